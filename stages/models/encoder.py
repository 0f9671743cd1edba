"""BERT's encoder: each token sees the whole text, and what stands in a blank is told from both sides.

    h ← norm(tokens + positions + types);  h ← norm(h + attention(h)), h ← norm(h + mlp(h)) in each block
    logits = norm(gelu(W h + b)) E^T + c        E the token embedding

Source: Devlin et al., BERT (arXiv 1810.04805), section 3 and appendix A; the released code for the head.
Shapes: B batch, T tokens, C width, V vocabulary, N = B·T, M tokens that are asked about.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels import attention, attention_packed
from stages.models.decoder import ACTIVATIONS, Block, document_positions
from stages.models.hf import DTYPES, fill, save_published
from stages.models.hf_config import Ids, config_json, read_any_config, refuse_reward_model, write_json
from stages.models.initial import draw_weights
from stages.models.loss import IGNORED, cross_entropy
from stages.store.architecture import ENCODERS, ModelConfig
from stages.store.errors import UserError


class Encoder(nn.Module):
    """Token ids to a vector each, and to logits over what could stand in a token's place.

    Parameters are uninitialised until `new_encoder` or a loader fills them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        C, V = config.width, config.vocab_size
        self.tokens = nn.Parameter(torch.empty(V, C))
        self.positions = nn.Parameter(torch.empty(config.context, C))
        self.types = nn.Parameter(torch.empty(config.types, C))
        self.embedding_norm = nn.LayerNorm(C, config.norm_eps)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.transform = nn.Linear(C, C)
        self.transform_norm = nn.LayerNorm(C, config.norm_eps)
        self.token_bias = nn.Parameter(torch.empty(V))

    def forward(
        self, tokens_BT: Tensor, targets_BT: Tensor, lengths_B: Tensor | None = None, *, z_loss: float = 0.0
    ) -> Tensor:
        """Mean −log p(target) in nats over the targets other than -100, a fp32 scalar. `lengths_B`: as below.

        z_loss: weight of log² Z beside each −log p (`stages.pretrain`).
        """
        h_NC = self.hidden_states(tokens_BT, lengths_B)
        targets_N = targets_BT.reshape(-1)
        places_M = torch.nonzero(targets_N != IGNORED)[:, 0]
        return cross_entropy(self.logits(h_NC[places_M]), targets_N[places_M], z_loss)

    def hidden_states(
        self,
        tokens_BT: Tensor,
        lengths_B: Tensor | None = None,
        types_BT: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """(B·T, C). Only the first lengths_B tokens of a row are seen; all when None. types_BT: 0 everywhere when None.

        documents: as for `Decoder.hidden_states`, texts laid end to end in one row. Raises ValueError when a text
        exceeds the context.
        """
        B, T = tokens_BT.shape
        longest = T if documents is None else int(documents.diff().max())
        if self.config.context < longest:
            raise ValueError(f"{longest} tokens do not fit the model's context of {self.config.context}")
        if documents is None:
            positions = self.positions[:T]
        else:
            positions = self.positions[document_positions(documents, T).clamp(max=self.config.context - 1)]
        types = self.types[0] if types_BT is None else functional.embedding(types_BT, self.types)
        h_BTC = self.embedding_norm(functional.embedding(tokens_BT, self.tokens) + positions + types)
        dropout = self.config.dropout if self.training else 0.0
        h_NC = functional.dropout(h_BTC.reshape(B * T, -1), dropout)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if documents is None:
                return attention(q, k, v, key_lengths=lengths_B, dropout=dropout)
            q_THD, k_TGD, v_TGD = (x[0].transpose(0, 1) for x in (q, k, v))
            return attention_packed(q_THD, k_TGD, v_TGD, documents, causal=False).transpose(0, 1)[None]

        for block in self.blocks:
            h_NC = block(h_NC, B, attend, None)
        return h_NC

    def logits(self, h_MC: Tensor) -> Tensor:
        """What could stand at each place, (M, V), of hidden states (M, C)."""
        transformed = ACTIVATIONS[self.config.activation](self.transform(h_MC))
        return functional.linear(self.transform_norm(transformed), self.tokens, self.token_bias)


def new_encoder(config: ModelConfig, seed: int, device: torch.device | str = "cpu") -> Encoder:
    """A freshly initialised encoder: norms 1, biases 0, weights N(0, s²); the same seed gives the same bits.

    s is BERT's 0.02 at its width of 768 and grows as width^-1/2 for narrower ones, so that sums over the width keep
    their size. With 0.02 at width 64 a post-norm encoder stays at the frequencies of the words for hundreds of steps.
    """
    spread = 0.02 * max(1.0, (768 / config.width) ** 0.5)
    model = _empty(config).to_empty(device=device)
    draw_weights(model, seed, spread)
    return model


def save_encoder(model: Encoder, folder: Path, *, pad_id: int) -> None:
    """Write config.json and the weights into an existing folder, as BertForMaskedLM opens them."""
    ids: Ids = {"pad": pad_id}
    write_json(folder / "config.json", config_json(model.config, DTYPES[model.tokens.dtype], ids))
    save_published(model, model.config, folder)


def load_encoder(
    folder: Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    config: ModelConfig | None = None,
) -> Encoder:
    """The encoder in a model folder, in evaluation mode; arguments as for `hf.load_model`.

    Raises UserError for a model that is no encoder, or whose files do not agree.
    """
    refuse_reward_model(folder)
    config = config or read_any_config(folder)
    if config.family not in ENCODERS:
        raise UserError(f"{folder} holds no encoder: it cannot fill blanks.", "`workbench train bert` makes one.")
    return fill(_empty, folder, config, dtype, device)


def _empty(config: ModelConfig) -> Encoder:
    with torch.device("meta"):
        return Encoder(config)
