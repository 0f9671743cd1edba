"""Transformer-XL: a decoder that reads a text segment by segment and remembers what it made of those before.

    h ← norm(h + attention(h, memory));  h ← norm(h + mlp(h))       in each block; the embedding is scaled by √C

Keys and values are of the block's input in the segment and in the memory, which holds the same block's inputs for the
last M tokens before it and takes no gradient. Positions are relative (equation at the end of section 3.3):

    A_ij = ( (q_i + u) k_jᵀ + (q_i + v) (W_R R_{i−j})ᵀ ) / √D       R sinusoids of the distance, u and v of each head

Source: Dai et al., Transformer-XL (arXiv 1901.02860), sections 3.2 and 3.3. The softmax is over the whole vocabulary
and tied to the embedding; the published model for WikiText-103 has an adaptive one, with a bias for each token.
Shapes: B batch, T tokens of a segment, M tokens remembered, S = M + T, C width, H heads, D width of a head, L layers,
V vocabulary, N = B·T.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels import attention, linear_cross_entropy
from stages.models.decoder import ACTIVATIONS, Linear
from stages.models.hf import DTYPES, fill, save_published
from stages.models.hf_config import Ids, config_json, read_any_config, write_json
from stages.models.initial import draw_weights
from stages.models.loss import IGNORED
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError


class Layer(nn.Module):
    """One block, on h (B, T, C) and the memory of its inputs (B, M, C)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C, inner, wide = config.width, config.inner_width, config.heads * config.head_width
        self.heads, self.dropout = config.heads, config.dropout
        self.activation = ACTIVATIONS[config.activation]
        self.query_in = Linear(C, wide, bias=False)
        self.keys_in = Linear(C, 2 * wide, bias=False)
        self.distance_in = Linear(C, wide, bias=False)
        self.attention_out = Linear(wide, C, bias=False)
        self.norm_1 = nn.LayerNorm(C, config.norm_eps)
        self.mlp_in = Linear(C, inner, bias=True)
        self.mlp_out = Linear(inner, C, bias=True)
        self.norm_2 = nn.LayerNorm(C, config.norm_eps)

    def forward(self, h_BTC: Tensor, memory_BMC: Tensor, sinusoids_SC: Tensor, u_HD: Tensor, v_HD: Tensor) -> Tensor:
        """sinusoids_SC: of the distances S − 1 to 0."""
        h_BTC = self.norm_1(h_BTC + self._attention(h_BTC, memory_BMC, sinusoids_SC, u_HD, v_HD))
        inner = functional.dropout(self.activation(self.mlp_in(h_BTC.flatten(0, 1))), self.dropout, self.training)
        added = functional.dropout(self.mlp_out(inner), self.dropout, self.training).view_as(h_BTC)
        normed: Tensor = self.norm_2(h_BTC + added)
        return normed

    def _attention(self, h_BTC: Tensor, memory_BMC: Tensor, sinusoids_SC: Tensor, u_HD: Tensor, v_HD: Tensor) -> Tensor:
        B, T, _ = h_BTC.shape
        seen_BSC = torch.cat((memory_BMC, h_BTC), 1)
        q = self.query_in(h_BTC).view(B, T, self.heads, -1)
        k, value = self.keys_in(seen_BSC).view(B, seen_BSC.shape[1], 2 * self.heads, -1).transpose(1, 2).chunk(2, 1)
        far_HSD = self.distance_in(sinusoids_SC).view(len(sinusoids_SC), self.heads, -1).transpose(0, 1)
        by_distance_BHTS = (q + v_HD).transpose(1, 2) @ far_HSD.transpose(1, 2)
        bias_BHTS = shifted(by_distance_BHTS) * q.shape[-1] ** -0.5
        y_BHTD = attention((q + u_HD).transpose(1, 2), k, value, causal=True, bias=bias_BHTS)
        y_BTC: Tensor = self.attention_out(y_BHTD.transpose(1, 2).reshape(B, T, -1))
        return functional.dropout(y_BTC, self.dropout, self.training)


class TransformerXL(nn.Module):
    """Token ids and a memory to logits over the next token, and the memory for the next segment.

    Parameters are uninitialised until `new_transformer_xl` or a loader fills them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.content_bias = nn.Parameter(torch.empty(config.heads, config.head_width))
        self.distance_bias = nn.Parameter(torch.empty(config.heads, config.head_width))
        self.blocks = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def empty_memory(self, rows: int) -> Tensor:
        """(L, rows, 0, C): before the first segment."""
        return torch.empty(
            self.config.layers, rows, 0, self.config.width, dtype=self.tokens.dtype, device=self.tokens.device
        )

    def forward(
        self, tokens_BT: Tensor, targets_BT: Tensor, memory_LBMC: Tensor, *, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Mean −log p(target) in nats over the targets other than -100, a fp32 scalar; and the next memory.

        z_loss: weight of log² Z beside each −log p (`stages.pretrain`).
        """
        h_NC, memory_LBMC = self.hidden_states(tokens_BT, memory_LBMC)
        loss = linear_cross_entropy(h_NC, self.tokens, targets_BT.reshape(-1), ignored=IGNORED, z_loss=z_loss)
        return loss, memory_LBMC

    def hidden_states(self, tokens_BT: Tensor, memory_LBMC: Tensor) -> tuple[Tensor, Tensor]:
        """What the output layer reads (B·T, C), and the next memory (L, B, at most `config.memory`, C)."""
        T, M = tokens_BT.shape[1], memory_LBMC.shape[2]
        h_BTC = functional.embedding(tokens_BT, self.tokens) * self.config.width**0.5
        h_BTC = functional.dropout(h_BTC, self.config.dropout, self.training)
        sinusoids_SC = sinusoids(M + T, self.config.width, self.tokens)
        kept: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            kept.append(self._remember(memory_LBMC[layer], h_BTC))
            h_BTC = block(h_BTC, memory_LBMC[layer], sinusoids_SC, self.content_bias, self.distance_bias)
        h_BTC = functional.dropout(h_BTC, self.config.dropout, self.training)
        return h_BTC.flatten(0, 1), torch.stack(kept)

    def logits(self, h_NC: Tensor) -> Tensor:
        """(N, V): the output layer on hidden states (N, C)."""
        return functional.linear(h_NC, self.tokens)

    def _remember(self, memory_BMC: Tensor, h_BTC: Tensor) -> Tensor:
        """The last `config.memory` of what a block has been given."""
        both = torch.cat((memory_BMC, h_BTC.detach()), 1)
        return both[:, max(0, both.shape[1] - self.config.memory) :]


class Continuing:
    """Texts being continued, a row each, all prompts of one length: ask for `logits`, choose, `append`, and again."""

    def __init__(self, model: TransformerXL, prompts: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._memory = model.empty_memory(len(prompts))
        self._unread_BT = torch.tensor(prompts, device=model.tokens.device)

    def logits(self) -> Tensor:
        """What may come next, (B, V) fp32."""
        h_BC = self._memory[0, :, :0]
        for part_BT in self._unread_BT.split(self._model.config.context, 1):
            h_NC, self._memory = self._model.hidden_states(part_BT, self._memory)
            h_BC = h_NC.view(*part_BT.shape, -1)[:, -1]
        return self._model.logits(h_BC).float()

    def append(self, tokens_B: Tensor) -> None:
        """Go on from one more token in each row."""
        self._unread_BT = tokens_B[:, None]


def shifted(by_distance: Tensor) -> Tensor:
    """Scores by distance (…, T, S), of distances S − 1 to 0, as scores by key: [i, j] is that of the distance from
    query i, which stands at S − T + i, to key j. What lies behind the query is meaningless.

    Source: Dai et al., appendix B.
    """
    *front, T, S = by_distance.shape
    padded = functional.pad(by_distance, (1, 0)).view(*front, S + 1, T)
    return padded[..., 1:, :].reshape(*front, T, S)


def sinusoids(length: int, width: int, like: Tensor) -> Tensor:
    """(length, width): sines and cosines of the distances length − 1 to 0, in the dtype and on the device of `like`."""
    places = torch.arange(length - 1, -1, -1, device=like.device, dtype=torch.float32)
    rates = 10_000.0 ** (-torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width)
    angles = places[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), 1)[:, :width].to(like.dtype)


def new_transformer_xl(config: ModelConfig, seed: int, device: torch.device | str = "cpu") -> TransformerXL:
    """A freshly initialised model: norms 1, biases 0, weights N(0, s²); the same seed gives the same bits.

    s is 0.02 at the published width of 410 and grows as width^-1/2 for narrower ones, so that sums over the width keep
    their size.
    """
    spread = 0.02 * max(1.0, (410 / config.width) ** 0.5)
    with torch.device("meta"):
        model = TransformerXL(config)
    model = model.to_empty(device=device)
    draw_weights(model, seed, spread)
    return model


def save_transformer_xl(model: TransformerXL, folder: Path, *, eos_id: int, pad_id: int) -> None:
    """Write config.json and the weights into an existing folder, in a format of our own: transformers has none."""
    ids: Ids = {"eos": eos_id, "pad": pad_id}
    write_json(folder / "config.json", config_json(model.config, DTYPES[model.tokens.dtype], ids))
    save_published(model, model.config, folder)


def load_transformer_xl(
    folder: Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    config: ModelConfig | None = None,
) -> TransformerXL:
    """The Transformer-XL in a model folder, in evaluation mode; arguments as for `hf.load_model`.

    Raises UserError for a model that is none, or whose files do not agree.
    """
    config = config or read_any_config(folder)
    if config.kind != "recurrent decoder":
        raise UserError(f"{folder} holds no Transformer-XL.", "`workbench train transformer_xl` makes one.")
    return fill(TransformerXL, folder, config, dtype, device)
