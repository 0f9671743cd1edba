"""The decoder: GPT-2's architecture, and GPT-1's by the place of its layer norms.

Shapes: B batch, T tokens, C width, F feed-forward width, V vocabulary, H heads, D = C / H.

    pre-norm   h ← h + attention(norm(h));  h ← h + mlp(norm(h));  one more norm at the end     (Radford et al. 2019)
    post-norm  h ← norm(h + attention(h));  h ← norm(h + mlp(h))                                (Radford et al. 2018)

Weights of linear layers are stored (inputs, outputs), as published GPT checkpoints have them: each layer is one addmm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels import attention, attention_decode
from stages.models.loss import cross_entropy
from stages.store.presets import ModelConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu": functional.gelu,
    "relu": functional.relu,
}

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Attention of one layer: (layer, q (B, H, T, D), k, v) -> (B, H, T, D). It may keep the keys and values."""


class Linear(nn.Module):
    """x W + b for x (N, inputs)."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x_NI: Tensor) -> Tensor:
        return x_NI @ self.weight if self.bias is None else torch.addmm(self.bias, x_NI, self.weight)


class Block(nn.Module):
    """One transformer block on h (B·T, C)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        C, inner, bias = config.width, config.inner_width, config.bias
        self.layer, self.heads, self.pre_norm, self.dropout = layer, config.heads, config.norm == "pre", config.dropout
        self.activation = ACTIVATIONS[config.activation]
        self.norm_1 = nn.LayerNorm(C, config.norm_eps, bias=bias)
        self.attention_in = Linear(C, 3 * C, bias)
        self.attention_out = Linear(C, C, bias)
        self.norm_2 = nn.LayerNorm(C, config.norm_eps, bias=bias)
        self.mlp_in = Linear(C, inner, bias)
        self.mlp_out = Linear(inner, C, bias)

    def forward(self, h_NC: Tensor, B: int, attend: Attend) -> Tensor:
        if self.pre_norm:
            h_NC = h_NC + self._attention(self.norm_1(h_NC), B, attend)
            return h_NC + self._mlp(self.norm_2(h_NC))
        h_NC = self.norm_1(h_NC + self._attention(h_NC, B, attend))
        return self.norm_2(h_NC + self._mlp(h_NC))

    def _attention(self, x_NC: Tensor, B: int, attend: Attend) -> Tensor:
        N, C = x_NC.shape
        qkv = self.attention_in(x_NC).view(B, N // B, 3, self.heads, C // self.heads)
        q_BHTD, k_BHTD, v_BHTD = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y_BHTD = attend(self.layer, q_BHTD, k_BHTD, v_BHTD)
        return self._drop(self.attention_out(y_BHTD.transpose(1, 2).reshape(N, C)))

    def _mlp(self, x_NC: Tensor) -> Tensor:
        return self._drop(self.mlp_out(self.activation(self.mlp_in(x_NC))))

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training) if self.dropout else x


@dataclass
class KVCache:
    """Keys and values of the tokens seen so far. Row b holds lengths[b] tokens of one sequence."""

    k: Tensor  # (layers, rows, H, context, D)
    v: Tensor
    lengths: Tensor  # (rows,) int64

    def copy_row(self, source: int, target: int) -> None:
        """Overwrite one row by another."""
        n = int(self.lengths[source])
        self.k[:, target, :, :n] = self.k[:, source, :, :n]
        self.v[:, target, :, :n] = self.v[:, source, :, :n]
        self.lengths[target] = n


class Decoder(nn.Module):
    """A language model: token ids to logits over the next token.

    Parameters are uninitialised until `initialise` or a loader fills them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.positions = nn.Parameter(torch.empty(config.context, config.width))
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.final_norm = (
            nn.LayerNorm(config.width, config.norm_eps, bias=config.bias) if config.norm == "pre" else None
        )
        self.head = None if config.tied else nn.Parameter(torch.empty(config.vocab_size, config.width))

    @property
    def head_weight(self) -> Tensor:
        """(V, C): the output layer, which is the token embedding when tied."""
        return self.tokens if self.head is None else self.head

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor | None = None) -> Tensor:
        """Logits (B, T, V); or, given targets (-100 is ignored), their mean cross-entropy in nats, a fp32 scalar."""
        h_NC = self.hidden_states(tokens_BT)
        logits_NV = functional.linear(h_NC, self.head_weight)
        if targets_BT is None:
            return logits_NV.view(*tokens_BT.shape, -1)
        return cross_entropy(logits_NV, targets_BT.reshape(-1))

    def hidden_states(self, tokens_BT: Tensor) -> Tensor:
        """(B·T, C): what the output layer reads. Raises ValueError when T exceeds the context."""
        B, T = tokens_BT.shape
        if (context := self.config.context) < T:
            raise ValueError(f"{T} tokens do not fit the model's context of {context}")
        return self._blocks(functional.embedding(tokens_BT, self.tokens) + self.positions[:T], B, self._attend)

    def new_cache(self, rows: int, length: int) -> KVCache:
        """An empty cache for `rows` sequences of up to `length` tokens, on the model's device, in its dtype."""
        c = self.config
        shape = (c.layers, rows, c.heads, length, c.head_width)
        zeros = torch.zeros(rows, dtype=torch.int64, device=self.tokens.device)
        return KVCache(self.tokens.new_zeros(shape), self.tokens.new_zeros(shape), zeros)

    @torch.no_grad()
    def prefill(self, tokens_T: Tensor, cache: KVCache, row: int) -> Tensor:
        """Append tokens to one row of the cache and return the logits (V,) after the last of them."""
        T, start = len(tokens_T), int(cache.lengths[row])
        end = start + T

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.k[layer, row, :, start:end], cache.v[layer, row, :, start:end] = k[0], v[0]
            return attention(
                q, cache.k[layer, row : row + 1, :, :end], cache.v[layer, row : row + 1, :, :end], causal=True
            )

        h_NC = self._blocks((functional.embedding(tokens_T, self.tokens) + self.positions[start:end])[None], 1, attend)
        cache.lengths[row] = end
        return functional.linear(h_NC[-1], self.head_weight)

    @torch.no_grad()
    def decode(self, tokens_B: Tensor, cache: KVCache) -> Tensor:
        """Append one token to each of the cache's first B rows and return the logits (B, V) after them."""
        B = len(tokens_B)
        rows, places = torch.arange(B, device=tokens_B.device), cache.lengths[:B].clone()

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.k[layer][rows, :, places] = k[:, :, 0]
            cache.v[layer][rows, :, places] = v[:, :, 0]
            return attention_decode(q[:, :, 0], cache.k[layer, :B], cache.v[layer, :B], places + 1)[:, :, None]

        h_NC = self._blocks((functional.embedding(tokens_B, self.tokens) + self.positions[places])[:, None], B, attend)
        cache.lengths[:B] += 1
        return functional.linear(h_NC, self.head_weight)

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, causal=True, dropout=self.config.dropout if self.training else 0.0)

    def _blocks(self, h_BTC: Tensor, B: int, attend: Attend) -> Tensor:
        h_NC = h_BTC.reshape(-1, self.config.width)
        if self.config.dropout:
            h_NC = functional.dropout(h_NC, self.config.dropout, self.training)
        for block in self.blocks:
            h_NC = block(h_NC, B, attend)
        return h_NC if self.final_norm is None else self.final_norm(h_NC)


def initialise(model: Decoder, generator: torch.Generator) -> Decoder:
    """GPT-2's start: weights N(0, 0.02), those that write to the residual stream N(0, 0.02 / √(2 · layers)), biases 0.

    Numbers are drawn in fp32 on the generator's device in a fixed order, so that one seed gives the same bits in any
    dtype and on any device of the model. Returns the model.
    """
    residual_std = 0.02 / math.sqrt(2 * model.config.layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim == 1:
                parameter.fill_(1.0)
            else:
                std = residual_std if name.endswith(("attention_out.weight", "mlp_out.weight")) else 0.02
                fresh = torch.empty(parameter.shape, device=generator.device).normal_(0.0, std, generator=generator)
                parameter.copy_(fresh)
    return model


def new_decoder(
    config: ModelConfig, seed: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Decoder:
    """A freshly initialised decoder. The same seed gives the same bits."""
    with torch.device("meta"):
        model = Decoder(config)
    model = model.to(dtype).to_empty(device=device)
    return initialise(model, torch.Generator().manual_seed(seed))
