"""A decoder with a scalar head: what reward models and critics are.

    v_t = w · h_t        h_t the hidden state that the output layer would read, w ~ N(0, 1 / (C + 1)) at first

A reward model's score of a text is v at its last token. Source of the head and its start: Huang et al., The N+
Implementation Details of RLHF with PPO (arXiv 2403.17031), details 2 and 3. On disk it is the family's
…ForSequenceClassification with one label, which has no bias.

Shapes: B batch, T tokens, C width, N = B·T.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.models.decoder import Decoder
from stages.models.hf import DTYPES, fill, save_published
from stages.models.hf_config import Ids, is_reward_model, read_config, read_json, reward_config_json, write_json
from stages.store.architecture import ModelConfig
from stages.store.classifiers import is_classifier
from stages.store.errors import UserError


class ValueModel(nn.Module):
    """A value for each token. Takes the decoder over: it loses its own output layer."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        decoder.head = None
        self.decoder = decoder
        like = decoder.tokens
        self.score = nn.Parameter(torch.empty(1, decoder.config.width, dtype=like.dtype, device=like.device))

    @property
    def config(self) -> ModelConfig:
        """The shape of the decoder."""
        return self.decoder.config

    def forward(self, tokens_BT: Tensor, documents: Tensor | None = None, places_M: Tensor | None = None) -> Tensor:
        """Values (B, T), or of the tokens at these places (M,), in fp32; arguments as for `Decoder.hidden_states`."""
        h_MC = self.decoder.hidden_states(tokens_BT, documents, places_M)
        values_M = functional.linear(h_MC.float(), self.score.float())[:, 0]
        return values_M.view(tokens_BT.shape) if places_M is None else values_M

    def scores(self, tokens_BT: Tensor, real_BT: Tensor) -> Tensor:
        """Scores (B,) in fp32 of rows padded on either side; `real_BT` is True for tokens that are no padding.

        Raises ValueError for a row without tokens. Padding changes no score: it is moved behind the tokens, where
        causal attention does not see it and positions do not count it.
        """
        lengths_B = real_BT.sum(1)
        if int(lengths_B.min()) == 0:
            raise ValueError("a row holds no token, so it has no score")
        front_BT = (~real_BT).long().argsort(dim=1, stable=True)
        starts_B = torch.arange(len(tokens_BT), device=tokens_BT.device) * tokens_BT.shape[1]
        return self(tokens_BT.gather(1, front_BT), places_M=starts_B + lengths_B - 1)

    def packed_scores(self, tokens_1N: Tensor, documents: Tensor) -> Tensor:
        """Scores (documents,) in fp32 of texts laid end to end; `documents` as for `Decoder.hidden_states`."""
        return self(tokens_1N, documents, documents[1:] - 1)


def new_value_model(decoder: Decoder, seed: int) -> ValueModel:
    """A decoder with a fresh head, w ~ N(0, 1 / (C + 1)). The same seed gives the same bits in any dtype."""
    model = ValueModel(decoder)
    generator = torch.Generator().manual_seed(seed)
    fresh = torch.empty(model.score.shape).normal_(0.0, 1 / math.sqrt(model.config.width + 1), generator=generator)
    with torch.no_grad():
        model.score.copy_(fresh)
    return model


def load_value_model(
    folder: Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    config: ModelConfig | None = None,
) -> ValueModel:
    """The model of a …ForSequenceClassification folder, in evaluation mode; arguments as for `hf.load_model`.

    Raises UserError for a folder of another class, with more than one label, or whose files do not agree.
    """
    if is_classifier(folder):
        raise UserError(f"The model in {folder} puts labels to texts; a reward model scores them.")
    if not is_reward_model(folder):
        raise UserError(f"{folder} holds no reward model.", "Train one: `workbench train reward`.")
    labels = read_json(folder / "config.json").get("id2label")
    if not isinstance(labels, dict) or len(labels) != 1:
        raise UserError(f"The model in {folder} puts several labels to a text; a reward model has one.")
    return fill(empty_value_model, folder, config or read_config(folder), dtype, device)


def save_value_model(
    model: ValueModel, folder: Path, *, pad_id: int | None, eos_id: int | list[int] | None = None
) -> None:
    """Write config.json and the weights into an existing folder, as AutoModelForSequenceClassification opens them.

    Transformers reads the score at the last token that is not `pad_id`, so no text may end with that token. Without
    one it reads the last token, and takes one text at a time.
    """
    ids: Ids = {"pad": pad_id, "eos": eos_id}
    write_json(folder / "config.json", reward_config_json(model.config, DTYPES[model.score.dtype], ids))
    save_published(model, model.config, folder)


def empty_value_model(config: ModelConfig) -> ValueModel:
    """One whose weights nobody has set."""
    return ValueModel(Decoder(config))
