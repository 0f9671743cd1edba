"""T5: an encoder reads a text from both sides, and a decoder that looks at what it has read writes another.

    encoder   h ← h + self(norm(h));  h ← h + mlp(norm(h));  one more norm at the end
    decoder   h ← h + self(norm(h));  h ← h + cross(norm(h), encoder);  h ← h + mlp(norm(h));  one more norm
    self      softmax(q kᵀ + b(j − i)) v        no 1/√D; b is learnt for buckets of distances, once for all layers
    logits    norm(h) E^T / √C  (T5 1.0, E the token embedding),  or  norm(h) W^T  (T5 1.1, gated)

Norms are RMSNorm, and no layer has biases. Source: Raffel et al., Exploring the Limits of Transfer Learning (arXiv
1910.10683), section 2.1; buckets as in the released code; 1.1: Shazeer (arXiv 2002.05202).
Shapes: B batch, S tokens read, T tokens written, C width, H heads, D width of a head, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from kernels import attention, linear_cross_entropy
from stages.models.decoder import ACTIVATIONS, Linear
from stages.models.hf import DTYPES, fill, save_published
from stages.models.hf_config import Ids, config_json, generation_json, read_any_config, read_json, write_json
from stages.models.loss import IGNORED
from stages.models.weights import contents
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one attention, each (B, H, S, D)."""


class Layer(nn.Module):
    """One block of either stack, on h (B, T, C). The decoder's attends to what the encoder has read as well."""

    def __init__(self, config: ModelConfig, *, writes: bool) -> None:
        super().__init__()
        C, inner, wide = config.width, config.inner_width, config.heads * config.head_width
        self.heads, self.dropout, self.writes = config.heads, config.dropout, writes
        self.activation, self.gated = ACTIVATIONS[config.activation], config.gated
        self.norm_1 = nn.RMSNorm(C, config.norm_eps)
        self.attention_in = Linear(C, 3 * wide, bias=False)
        self.attention_out = Linear(wide, C, bias=False)
        if writes:
            self.cross_norm = nn.RMSNorm(C, config.norm_eps)
            self.cross_in = Linear(C, wide, bias=False)
            self.cross_keys = Linear(C, 2 * wide, bias=False)
            self.cross_out = Linear(wide, C, bias=False)
        self.norm_2 = nn.RMSNorm(C, config.norm_eps)
        self.mlp_in = Linear(C, 2 * inner if config.gated else inner, bias=False)
        self.mlp_out = Linear(inner, C, bias=False)

    def forward(
        self,
        h_BTC: Tensor,
        bias: Tensor,
        lengths_B: Tensor | None,
        read: KeysValues | None = None,
        before: KeysValues | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """The block's output, and the keys and values of its self-attention, those of `before` in front.

        bias (1, H, T, keys) on self-attention. lengths_B: how much of what is read counts. read: what `cross_keys` made
        of the encoder's states, for a block that writes.
        """
        q, k, v = self.split_heads(self.attention_in(self.norm_1(h_BTC)), 3)
        if before is not None:
            k, v = torch.cat((before[0], k), 2), torch.cat((before[1], v), 2)
        seen = None if self.writes else lengths_B
        h_BTC = h_BTC + self._attend(self.attention_out, q, k, v, seen, bias, causal=self.writes)
        if read is not None:
            (q,) = self.split_heads(self.cross_in(self.cross_norm(h_BTC)), 1)
            h_BTC = h_BTC + self._attend(self.cross_out, q, *read, lengths_B, None, causal=False)
        return h_BTC + self._mlp(self.norm_2(h_BTC)), (k, v)

    def keys_of(self, states_BSC: Tensor) -> KeysValues:
        """Keys and values of what the encoder has read."""
        k, v = self.split_heads(self.cross_keys(states_BSC), 2)
        return k, v

    def split_heads(self, x_BTN: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, T, parts · H · D) as `parts` tensors (B, H, T, D)."""
        B, T, _ = x_BTN.shape
        return x_BTN.view(B, T, parts * self.heads, -1).transpose(1, 2).split(self.heads, 1)

    def _attend(
        self,
        out: nn.Module,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        lengths_B: Tensor | None,
        bias: Tensor | None,
        *,
        causal: bool,
    ) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        y_BHTD = attention(q, k, v, causal=causal, bias=bias, key_lengths=lengths_B, dropout=dropout, scale=1.0)
        B, _, T, _ = y_BHTD.shape
        y_BTC: Tensor = out(y_BHTD.transpose(1, 2).reshape(B, T, -1))
        return functional.dropout(y_BTC, self.dropout, self.training)

    def _mlp(self, x_BTC: Tensor) -> Tensor:
        inner = self.mlp_in(x_BTC)
        if self.gated:
            gate, up = inner.chunk(2, -1)
            inner = self.activation(gate) * up
        else:
            inner = self.activation(inner)
        inner = functional.dropout(inner, self.dropout, self.training)
        return functional.dropout(self.mlp_out(inner), self.dropout, self.training)


class T5(nn.Module):
    """Token ids read to logits over the tokens written.

    Parameters are uninitialised until `new_t5` or a loader fills them. With `checkpointing` a training step keeps only
    the input of each block.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        C, V = config.width, config.vocab_size
        self.tokens = nn.Parameter(torch.empty(V, C))
        self.head = None if config.tied else nn.Parameter(torch.empty(V, C))
        self.encoder_bias = nn.Parameter(torch.empty(config.buckets, config.heads))
        self.decoder_bias = nn.Parameter(torch.empty(config.buckets, config.heads))
        self.encoder_blocks = nn.ModuleList(Layer(config, writes=False) for _ in range(config.layers))
        self.decoder_blocks = nn.ModuleList(Layer(config, writes=True) for _ in range(config.writing_layers))
        self.encoder_norm = nn.RMSNorm(C, config.norm_eps)
        self.decoder_norm = nn.RMSNorm(C, config.norm_eps)

    def forward(
        self,
        read_BS: Tensor,
        written_BT: Tensor,
        targets_BT: Tensor,
        lengths_B: Tensor | None = None,
        *,
        z_loss: float = 0.0,
    ) -> Tensor:
        """Mean −log p(target) in nats over the targets other than -100, a fp32 scalar.

        read_BS: what the encoder reads, of which the first lengths_B tokens of a row count (all when None).
        written_BT: the targets moved one to the right, the start token first (`moved_right`).
        z_loss: weight of log² Z beside each −log p (`stages.pretrain`).
        """
        h_NC = self.scaled(self.hidden_states(read_BS, written_BT, lengths_B)).flatten(0, 1)
        return linear_cross_entropy(h_NC, self.head_weight, targets_BT.reshape(-1), ignored=IGNORED, z_loss=z_loss)

    def hidden_states(self, read_BS: Tensor, written_BT: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """(B, T, C): what the output layer reads at each token written."""
        states_BSC = self.encode(read_BS, lengths_B)
        reads = [layer.keys_of(states_BSC) for layer in self.decoder_blocks]  # type: ignore[operator]
        return self.write(written_BT, reads, lengths_B)[0]

    def encode(self, read_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """(B, S, C): what the encoder makes of a text."""
        S = read_BS.shape[1]
        h_BSC = self._embed(read_BS)
        bias = self._bias(self.encoder_bias, S, S, both_ways=True)
        for layer in self.encoder_blocks:
            h_BSC, _ = self._through(layer, h_BSC, bias, lengths_B)
        return functional.dropout(self.encoder_norm(h_BSC), self.config.dropout, self.training)

    def write(
        self,
        written_BT: Tensor,
        reads: list[KeysValues],
        lengths_B: Tensor | None = None,
        before: list[KeysValues] | None = None,
    ) -> tuple[Tensor, list[KeysValues]]:
        """Hidden states (B, T, C) at the tokens written, and each layer's keys and values so far.

        reads: of each layer, what `keys_of` gave. before: keys and values of what was written earlier.
        """
        T = written_BT.shape[1]
        keys = T + (before[0][0].shape[2] if before else 0)
        h_BTC = self._embed(written_BT)
        bias = self._bias(self.decoder_bias, T, keys, both_ways=False)
        kept = []
        for number, layer in enumerate(self.decoder_blocks):
            h_BTC, own = self._through(layer, h_BTC, bias, lengths_B, reads[number], before[number] if before else None)
            kept.append(own)
        return functional.dropout(self.decoder_norm(h_BTC), self.config.dropout, self.training), kept

    def logits(self, h: Tensor) -> Tensor:
        """The output layer on hidden states (…, C): (…, V)."""
        return functional.linear(self.scaled(h), self.head_weight)

    def scaled(self, h: Tensor) -> Tensor:
        """What the output layer reads: the hidden states, divided by √C in T5 1.0."""
        return h * self.config.width**-0.5 if self.config.scaled_logits else h

    @property
    def head_weight(self) -> Tensor:
        """(V, C): the output layer, which is the token embedding when tied."""
        return self.tokens if self.head is None else self.head

    def _through(self, layer: nn.Module, *args: Any) -> tuple[Tensor, KeysValues]:
        """A block's output; with `checkpointing` it is computed again in the backward pass."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            again: tuple[Tensor, KeysValues] = checkpoint(layer, *args, use_reentrant=False)
            return again
        made: tuple[Tensor, KeysValues] = layer(*args)
        return made

    def _embed(self, tokens: Tensor) -> Tensor:
        return functional.dropout(functional.embedding(tokens, self.tokens), self.config.dropout, self.training)

    def _bias(self, learnt: Tensor, queries: int, keys: int, *, both_ways: bool) -> Tensor:
        """(1, H, queries, keys): the bias on each pair. The queries are the last of the keys."""
        places = torch.arange(keys, device=learnt.device)
        distances = places[None] - places[keys - queries :, None]
        buckets = bucket_of(distances, self.config.buckets, self.config.bucket_distance, both_ways=both_ways)
        return functional.embedding(buckets, learnt).permute(2, 0, 1)[None]


def bucket_of(distances: Tensor, buckets: int, farthest: int, *, both_ways: bool) -> Tensor:
    """The bucket of each distance (key minus query): one each for near ones, then logarithmically wider ones.

    both_ways: half of the buckets are for keys behind the query; otherwise those share bucket 0. From `farthest` on all
    distances share the last bucket.
    """
    offset = torch.zeros_like(distances)
    if both_ways:
        buckets //= 2
        offset, far = (distances > 0) * buckets, distances.abs()
    else:
        far = (-distances).clamp(min=0)
    exact = buckets // 2
    share = torch.log(far.clamp(min=1).float() / exact) / math.log(farthest / exact)
    wide = (exact + (share * (buckets - exact)).long()).clamp(max=buckets - 1)
    return offset + torch.where(far < exact, far, wide)


def moved_right(targets_BT: Tensor, start: int) -> Tensor:
    """What the decoder reads to predict the targets: the start token, then all targets but the last; -100 as start."""
    first_B1 = torch.full_like(targets_BT[:, :1], start)
    moved_BT = torch.cat((first_B1, targets_BT[:, :-1]), 1)
    return moved_BT.masked_fill(moved_BT == IGNORED, start)


def new_t5(config: ModelConfig, seed: int, device: torch.device | str = "cpu") -> T5:
    """A freshly initialised T5: norms 1, weights N(0, s²) with the s of the released code; one seed gives one model.

    s: 1 for the embedding, (C D)^-1/2 for queries, as attention is not divided by √D, and (inputs)^-1/2 for the rest.
    """
    with torch.device("meta"):
        model = T5(config)
    model = model.to_empty(device=device)
    generator = torch.Generator().manual_seed(seed)
    wide = config.heads * config.head_width
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            inputs = config.width if name in ("head", "encoder_bias", "decoder_bias") else len(parameter)
            std = 1.0 if name == "tokens" else inputs**-0.5
            fresh = torch.empty(parameter.shape).normal_(0.0, std, generator=generator)
            if name.endswith(("attention_in.weight", "cross_in.weight")):
                fresh[:, :wide] *= config.head_width**-0.5
            parameter.copy_(fresh)
    return model


def save_t5(model: T5, folder: Path, *, pad_id: int, eos_id: int, prefixes: Mapping[str, str] | None = None) -> None:
    """Write config.json, generation_config.json and the weights into a folder, as T5ForConditionalGeneration opens it.

    As in T5, what is written begins with the token of padding. prefixes: by task, what stands before its texts.
    """
    ids: Ids = {"pad": pad_id, "eos": eos_id}
    start = {"decoder_start_token_id": pad_id}
    said = config_json(model.config, DTYPES[model.tokens.dtype], ids)
    del said["bos_token_id"]
    if prefixes:
        said["task_specific_params"] = {task: {"prefix": prefix} for task, prefix in prefixes.items()}
    write_json(folder / "config.json", said | start)
    write_json(folder / "generation_config.json", generation_json(model.config, ids) | start)
    save_published(model, model.config, folder)


def prefixes_in(folder: Path) -> dict[str, str]:
    """By task, what stands before its texts, as a folder's config.json says."""
    said = read_json(folder / "config.json").get("task_specific_params")
    tasks = said.items() if isinstance(said, dict) else ()
    found = {str(task): params.get("prefix") for task, params in tasks if isinstance(params, dict)}
    return {task: prefix for task, prefix in found.items() if isinstance(prefix, str)}


def load_t5(
    folder: Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    config: ModelConfig | None = None,
) -> T5:
    """The T5 in a model folder, in evaluation mode; arguments as for `hf.load_model`.

    Raises UserError for a model that is no T5, or whose files do not agree.
    """
    return fill(T5, folder, config or t5_config(folder), dtype, device)


def t5_config(folder: Path) -> ModelConfig:
    """The shape of the T5 in a folder. UserError when it holds another model.

    Its configuration may say that the output layer is the embedding when it is not: the weights decide.
    """
    config = read_any_config(folder)
    if config.kind != "encoder-decoder":
        raise UserError(f"{folder} holds no T5.", "`workbench train t5` makes one.")
    apart = not config.scaled_logits and "lm_head.weight" in contents(folder)
    return msgspec.structs.replace(config, tied=not apart)
