"""A decoder's passes during generation as one call of compiled code each: `kernels/decoder.c` over weights in panels.

On a CPU a step of a small model costs as much in starting its operations as in carrying them out; compiled it takes
half the time. The mathematics is that of `decoder.py`, in fp32 whatever the weights are, and a row's logits do not
depend on what other rows there are.

N tokens, B sequences, I inputs, O outputs, V vocabulary.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

import kernels
from kernels.choice import say_once
from kernels.native import NotCompiled, library
from stages.models.cache import KVCache
from stages.models.decoder import Block, Decoder, Linear
from stages.models.rotary import Turn

SOURCE = Path(kernels.__file__).with_name("decoder.c")

VARIABLE = "WORKBENCH_DECODER"
"""The environment variable that, set to "plain", leaves compiled code out."""

ASKED = f"asked for by {VARIABLE}"

ACTIVATIONS = {"relu": 0, "silu": 1, "gelu_tanh": 2}

SMALL = 8 << 20
"""Bytes of fp32 weights up to which compiled code, which uses one thread and fp32, serves in place of several threads
and of bf16 as well: PyTorch gains nothing by them there (tiny, two threads: 1.3 against 2.7 ms a step)."""

MOST = 1 << 30
"""Bytes of weights beyond which a model is not copied: it would no longer be small beside the rest."""

AT_ONCE = 128
"""Tokens of prompts in one pass: matrices are read once for all of them, and their hidden states stay near the core
(Zen 4, 30 M parameters, 1,024 tokens: by 32 676 ms, by 128 612, by 256 607)."""

LONGEST = 512
"""Tokens of a prompt up to which attention query by query is not slower than PyTorch's products (Zen 4, tiny: 28
against 70 ms at 512 tokens, 42 against 39 at 1,024; 30 M: 612 against 805, 726 against 696)."""


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in (
            "norm_1", "norm_1_bias", "attention_in", "attention_in_bias", "q_norm", "q_norm_bias", "k_norm",
            "k_norm_bias", "attention_out", "attention_out_bias", "norm_2", "norm_2_bias", "mlp_in", "mlp_in_bias",
            "mlp_out", "mlp_out_bias",
        )),
        ("window", ctypes.c_int64),
    ]  # fmt: skip


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in (
            "layers", "width", "heads", "key_heads", "head_width", "inner", "vocabulary", "rms", "pre_norm", "gated",
            "activation",
        )),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in (
            "tokens", "positions", "final_norm", "final_norm_bias", "head", "blocks",
        )),
    ]  # fmt: skip


class _Cache(ctypes.Structure):
    _fields_ = [
        ("kv", ctypes.c_void_p), ("rows", ctypes.c_int64), ("room", ctypes.c_int64),
        ("cos", ctypes.c_void_p), ("signed_sin", ctypes.c_void_p),
    ]  # fmt: skip


def compiled(model: Decoder) -> CompiledDecoder | None:
    """The model laid out for compiled code; None where it is not served, one line saying why if that may surprise."""
    if not serves(model):
        return None
    code, why = here()
    if code is None and why != ASKED:
        say_once(f"Generation on this CPU goes without compiled code, at half the speed for small models: {why}.")
    return None if code is None else CompiledDecoder(code, model)


def here() -> tuple[ctypes.CDLL | None, str]:
    """The compiled code of this machine, compiled now if it has not been; or None and why there is none."""
    if os.environ.get(VARIABLE, "") == "plain":
        return None, ASKED
    try:
        return library(SOURCE), "compiled by this machine's C compiler"
    except NotCompiled as why:
        return None, str(why)


def serves(model: Decoder) -> bool:
    """Whether compiled code computes what this model does, and faster than PyTorch with the threads it may use."""
    weight, config = model.tokens, model.config
    if weight.device.type != "cpu" or config.activation not in ACTIVATIONS:
        return False
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size <= SMALL:
        return weight.dtype in (torch.float32, torch.bfloat16)
    return weight.dtype == torch.float32 and size <= MOST and torch.get_num_threads() == 1


class CompiledDecoder:
    """Shares the model's weights or holds copies of them: they must not change while this is in use."""

    def __init__(self, code: ctypes.CDLL, model: Decoder) -> None:
        self._forward, self._work_floats = code.forward, code.work_floats
        code.work_floats.restype = code.lanes.restype = ctypes.c_int64
        code.work_floats.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
        code.forward.restype = None
        code.forward.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 5]
        self._lanes = int(code.lanes())
        self._kept: list[object] = []  # what the pointers point to
        self._rotary, self._config = model.rotary, model.config
        self._work = np.empty(0, np.float32)
        self._most_positions = sys.maxsize if model.positions is None else len(model.positions)
        self._turn: Turn | None = None
        self._model = self._describe(model)

    def prefill_rows(self, tokens_BT: Tensor, lengths_B: Tensor, cache: KVCache, rows_B: Tensor) -> None:
        """`Decoder.prefill_rows`, without computing the padding."""
        lengths, tokens = lengths_B.numpy(), tokens_BT.numpy()
        there_BT = np.arange(tokens.shape[1]) < lengths[:, None]
        positions_N = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)[there_BT]
        tokens_N, rows_N = tokens[there_BT], np.repeat(rows_B.numpy(), lengths)
        where = self._where(cache)
        for start in range(0, len(tokens_N), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            self._run(tokens_N[part], positions_N[part], rows_N[part], where, None)
        cache.lengths[rows_B] = lengths_B

    def decode(self, tokens_B: Tensor, cache: KVCache) -> Tensor:
        """`Decoder.decode`: the logits (B, V) after one more token of each of the first rows."""
        B, columns = len(tokens_B), -(-self._config.vocab_size // self._panel) * self._panel
        logits_BV = torch.empty(B, columns)
        self._run(tokens_B.numpy(), cache.lengths[:B].numpy(), np.arange(B), self._where(cache), logits_BV)
        cache.lengths[:B] += 1
        return logits_BV[:, : self._config.vocab_size]

    @property
    def _panel(self) -> int:
        return 2 * self._lanes

    def _run(
        self, tokens_N: np.ndarray, positions_N: np.ndarray, rows_N: np.ndarray, where: _Cache, logits: Tensor | None
    ) -> None:
        """One pass; without logits it fills the cache alone. Raises IndexError: compiled code looks nowhere else."""
        N = len(tokens_N)
        limits = (self._config.vocab_size, min(where.room, self._most_positions), where.rows)
        numbers = [np.ascontiguousarray(each, np.int64) for each in (tokens_N, positions_N, rows_N)]
        if any(each.min() < 0 or each.max() >= limit for each, limit in zip(numbers, limits, strict=True)):
            raise IndexError(f"tokens, positions and rows must lie below {limits}")
        needed = self._work_floats(ctypes.byref(self._model), N, where.room)
        if len(self._work) < needed:
            self._work = np.empty(needed, np.float32)
        self._forward(
            ctypes.byref(self._model), ctypes.byref(where), N, *(each.ctypes.data for each in numbers),
            self._work.ctypes.data, None if logits is None else logits.data_ptr(),
        )  # fmt: skip

    def _where(self, cache: KVCache) -> _Cache:
        turn: tuple[int | None, int | None] = (None, None)
        if self._rotary is not None:
            if self._turn is None or len(self._turn[0]) < cache.room:
                self._turn = self._rotary.at(slice(0, cache.room), cache.room, cache.k)
            turn = (self._turn[0].data_ptr(), self._turn[1].data_ptr())
        return _Cache(cache.kv.data_ptr(), cache.kv.shape[2], cache.room, *turn)

    def _describe(self, model: Decoder) -> _Model:
        c = model.config
        final_norm, final_norm_bias = self._norm(model.final_norm)
        layers = [
            self._layer(cast(Block, block), window or 0)
            for block, window in zip(model.blocks, model.windows, strict=True)
        ]
        blocks = (_Layer * len(layers))(*layers)
        self._kept.append(blocks)
        return _Model(
            layers=c.layers, width=c.width, heads=c.heads, key_heads=c.key_heads, head_width=c.head_width,
            inner=c.inner_width, vocabulary=c.vocab_size, rms=c.norm_kind == "rms", pre_norm=c.norm == "pre",
            gated=c.gated, activation=ACTIVATIONS[c.activation], eps=c.norm_eps, tokens=self._keep(model.tokens),
            positions=self._keep(model.positions), final_norm=final_norm, final_norm_bias=final_norm_bias,
            head=self._panels(model.head_weight.detach().t()), blocks=ctypes.addressof(blocks),
        )  # fmt: skip

    def _layer(self, block: Block, window: int) -> _Layer:
        mlp_in, mlp_in_bias = _weights(block.mlp_in)
        if block.gated:
            mlp_in = _interleaved(mlp_in, self._lanes)
            mlp_in_bias = None if mlp_in_bias is None else _interleaved(mlp_in_bias[None], self._lanes)[0]
        return _Layer(
            *self._norm(block.norm_1), *self._linear(*_weights(block.attention_in)), *self._norm(block.q_norm),
            *self._norm(block.k_norm), *self._linear(*_weights(block.attention_out)), *self._norm(block.norm_2),
            *self._linear(mlp_in, mlp_in_bias), *self._linear(*_weights(block.mlp_out)), window,
        )  # fmt: skip

    def _norm(self, norm: nn.Module | None) -> tuple[int | None, int | None]:
        if norm is None:
            return None, None
        return self._keep(cast(Tensor, norm.weight)), self._keep(getattr(norm, "bias", None))

    def _linear(self, weight_IO: Tensor, bias_O: Tensor | None) -> tuple[int | None, int | None]:
        bias = None if bias_O is None else self._panels(bias_O[None])
        return self._panels(weight_IO), bias

    def _panels(self, weight_IO: Tensor) -> int | None:
        """Columns in panels, the last one filled up with zeros: (panels, I, columns of a panel), 64 bytes aligned."""
        I, O = weight_IO.shape  # noqa: E741 - the shape's own letters
        weight_IO = nn.functional.pad(weight_IO, (0, -O % self._panel))
        return self._keep(weight_IO.view(I, -1, self._panel).transpose(0, 1))

    def _keep(self, tensor: Tensor | None) -> int | None:
        """Where its numbers lie in fp32, one after the other; copied where they do not yet."""
        if tensor is None:
            return None
        plain = tensor.detach().float().contiguous()
        self._kept.append(plain)
        return plain.data_ptr()


def _weights(linear: Linear) -> tuple[Tensor, Tensor | None]:
    """Weight (I, O), low-rank adapters merged into it, and bias."""
    weight = linear.weight.detach()
    merged = weight if linear.lora is None else linear.lora.added_to(weight).detach()
    return merged, None if linear.bias is None else linear.bias.detach()


def _interleaved(weight_IO: Tensor, lanes: int) -> Tensor:
    """The halves gate and up in turns of `lanes` columns, each filled up with zeros."""
    gate_up = [nn.functional.pad(half, (0, -half.shape[1] % lanes)) for half in weight_IO.chunk(2, 1)]
    return torch.stack([half.unflatten(1, (-1, lanes)) for half in gate_up], 2).flatten(1)
