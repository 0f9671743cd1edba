"""The one door to attention. Which backend serves a call is decided once per kind of call, from measurements.

Shapes: B batch, H query heads, G key and value heads (H a multiple of G), T queries, S keys, D head width,
N tokens of documents laid end to end.

The environment variable WORKBENCH_ATTENTION names one backend (reference, plain, sdpa, triton) to use wherever it can
serve; where it cannot, the measured choice is used and one line says so. It is read when a kind of call is first met.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kernels import plain, reference, sdpa
from kernels.choice import INTERPRETED, NO_GPU, PASSED, Served, by_environment, failure, guarded, not_triton, record

BACKENDS: dict[str, ModuleType] = {"reference": reference, "plain": plain, "sdpa": sdpa}
"""Modules with `attention` and, some, `attention_packed` and `attention_decode`. `triton` joins them when first used:
importing it costs a process that has no GPU for nothing."""

VARIABLE = "WORKBENCH_ATTENTION"

PLAIN_KEYS = 512
"""On a CPU, up to this many keys the plain path beats SDPA (bf16 1.1-5 x, fp32 1.1-2 x, forward and backward, D 32
and 64, one and two threads of Zen 4), and beyond it loses by as much."""

EVEN = 32
"""On a CPU, the lengths of packed documents are rounded up to a multiple of this (tiny's steps of instruction tuning,
tokens a second: 13,900 as they are, 14,300 by 16, 14,600 by 32, 14,100 by 64)."""


Kind = tuple[str, torch.device, torch.dtype, bool, bool, str]
"""What the choice depends on: call, device, dtype, whether the keys are few, whether the plain path can serve, and why
Triton cannot (empty when it can)."""

_chosen: dict[Kind, ModuleType] = {}


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    bias: Tensor | None = None,
    key_lengths: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale · q kᵀ + bias, over the visible keys) v.

    q (B, H, T, D); k, v (B, G, S, D) -> (B, H, T, D) in q's dtype. T ≠ S is allowed: query i stands at key i + S - T.
    causal: a query sees no key after its own position. window: it sees only keys at a distance below it, on both sides
    unless causal. bias: broadcastable to (B, H, T, S), differentiable. key_lengths: (B,) integers, keys from there on
    are unseen. dropout: the probability, applied to the weights. scale: 1/√D when None.
    A query that sees no key gives 0. Raises ValueError on shapes that do not fit.
    """
    T, S = q.shape[2], k.shape[2]
    _check(q, k, v, q.shape[1], k.shape[1], window)
    lean = plain.serves(T, S, causal, window, bias is not None, key_lengths is not None, dropout > 0)
    obstacle = _obstacle("attention", q, k, v, scale, bias, dropout)
    backend = _backend(("attention", q.device, q.dtype, S <= PLAIN_KEYS, lean, obstacle))
    options = {"causal": causal, "window": window, "bias": bias, "key_lengths": key_lengths, "scale": scale}
    if obstacle:
        return backend.attention(q, k, v, dropout=dropout, **options)
    return _watched(backend, attention, q, k, v, **options)


def attention_packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    *,
    causal: bool,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention within each of several documents that lie end to end.

    q (N, H, D); k, v (N, G, D); cu_seqlens (documents + 1,) rising integers from 0: document i is rows cu_seqlens[i] to
    cu_seqlens[i + 1] -> (N, H, D). Rows after the last document give 0; empty documents are allowed, so that cu_seqlens
    may be padded by repeating its last number.
    """
    _check(q, k, v, q.shape[1], k.shape[1], window)
    obstacle = _obstacle("attention_packed", q, k, v, scale)
    backend = _backend(("attention_packed", q.device, q.dtype, True, False, obstacle))
    if hasattr(backend, "attention_packed"):
        return _watched(backend, attention_packed, q, k, v, cu_seqlens, causal=causal, window=window, scale=scale)
    ends = cu_seqlens.tolist()
    if ends[0] != 0 or ends != sorted(ends) or ends[-1] > len(q):
        raise ValueError(f"cu_seqlens must rise from 0 to at most the {len(q)} rows, but is {ends}")
    lengths = [b - a for a, b in pairwise(ends) if a < b]
    # A split's gradient is one concatenation; that of a slice is as large as the whole, for every document.
    pieces = [x.transpose(0, 1)[None].split([*lengths, len(q) - ends[-1]], 2) for x in (q, k, v)]
    documents = list(zip(*pieces, strict=True))[:-1]
    parts = [_document(*each, causal=causal, window=window, scale=scale) for each in documents]
    tail = q.new_zeros(1, q.shape[1], len(q) - ends[-1], q.shape[2])
    return torch.cat([*parts, tail], dim=2)[0].transpose(0, 1)


def _document(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, **options: Any) -> Tensor:
    """`attention` of one document.

    On a CPU a short one is filled up with zeros behind its end, where causal queries see nothing: oneDNN makes and
    keeps a kernel for each length, and making one takes longer than the products.
    """
    length = q.shape[2]
    behind = -length % EVEN if causal and q.device.type == "cpu" and length <= PLAIN_KEYS else 0
    if behind:
        q, k, v = (functional.pad(x, (0, 0, 0, behind)) for x in (q, k, v))
    return attention(q, k, v, causal=causal, **options)[:, :, :length]


def attention_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    lengths: Tensor,
    *,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention of one new token in each of B sequences whose keys and values stand in a cache.

    q (B, H, D); caches (B, G, S, D), of which the first lengths[b] count, the new token's included; lengths (B,)
    integers; window: only the last `window` of those -> (B, H, D). A length of 0 gives 0.
    """
    _check(q, k_cache, v_cache, q.shape[1], k_cache.shape[1], window)
    obstacle = _obstacle("attention_decode", q, k_cache, v_cache, scale)
    backend = _backend(("attention_decode", q.device, q.dtype, True, True, obstacle))
    if obstacle:
        return backend.attention_decode(q, k_cache, v_cache, lengths, window=window, scale=scale)
    return _watched(backend, attention_decode, q, k_cache, v_cache, lengths, window=window, scale=scale)


def decide_usual_calls(where: torch.device) -> None:
    """Have the report name the backends of the usual calls on this device."""
    for call in ("attention", "attention_packed", "attention_decode"):
        for dtype in (torch.float32, torch.bfloat16):
            for few in (True, False) if call == "attention" else (True,):
                _backend((call, where, dtype, few, True, _obstacle_on(where, dtype, 64)))


def _watched(backend: ModuleType, call: Callable[..., Tensor], *tensors: Tensor, **options: Any) -> Tensor:
    """The backend's answer; Triton's kernels under a guard, whose way out is the same call through this door."""
    function = getattr(backend, call.__name__)
    if backend is not BACKENDS.get("triton"):
        return function(*tensors, **options)
    served = Served(call.__name__, tensors[0].device, tensors[0].dtype, tensors[0].shape[-1])
    guard = {} if call is attention_decode else {"guard": served}
    return guarded(served, lambda: function(*tensors, **guard, **options), lambda: call(*tensors, **options))


def _check(q: Tensor, k: Tensor, v: Tensor, H: int, G: int, window: int | None) -> None:
    if k.shape != v.shape or q.shape[-1] != k.shape[-1] or H % G:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} do not fit: k and v must have one shape, "
            "the head width of q, and a number of heads that divides q's"
        )
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1, but is {window}")


def _backend(kind: Kind) -> ModuleType:
    backend = _chosen.get(kind)
    return _choose(kind) if backend is None else backend


def _choose(kind: Kind) -> ModuleType:
    call, device, dtype, few_keys, lean, obstacle = kind
    name, why = _measured(call, device, few_keys, lean, obstacle)
    why = not_triton("Attention", VARIABLE, device, why, obstacle)
    name, why = by_environment(VARIABLE, name, why, lambda asked: _unfit(asked, call, lean, obstacle))
    detail = f"{call}, {'up to' if few_keys else 'over'} {PLAIN_KEYS} keys" if call == "attention" else call
    record(detail, device, dtype, name, why)
    return _chosen.setdefault(kind, _module(name))


def _measured(call: str, device: torch.device, few_keys: bool, lean: bool, obstacle: str) -> tuple[str, str]:
    """The backend that measurements favour, and why."""
    if device.type == "cuda" and not obstacle:
        return "triton", PASSED
    if call == "attention_decode":
        return "plain", "one product over the cache, read in place"
    if call == "attention_packed":
        return "sdpa", "document by document through attention, whose choice each follows"
    if device.type == "cpu" and few_keys and lean:
        return "plain", f"fastest on a CPU up to {PLAIN_KEYS} keys"
    if device.type == "cpu" and few_keys:
        return "sdpa", "serves lengths, biases, dropout and queries without keys"
    return "sdpa", f"fastest on a CPU over {PLAIN_KEYS} keys" if device.type == "cpu" else "PyTorch's fused attention"


def _unfit(name: str, call: str, lean: bool, obstacle: str) -> str:
    """Why a backend that was asked for cannot serve a call; empty when it can."""
    if name == "triton":
        return obstacle
    if name not in BACKENDS:
        return f"there is no backend of that name in this version (there are {', '.join(BACKENDS)} and triton)"
    if call == "attention_decode" and not hasattr(BACKENDS[name], call):
        return f"it has no {call}"
    if name == "plain" and call == "attention" and not lean:
        return "it takes no bias, key lengths or dropout, and no query without keys"
    return ""


def _obstacle(
    call: str, q: Tensor, k: Tensor, v: Tensor, scale: float | None, bias: Tensor | None = None, dropout: float = 0.0
) -> str:
    """Why the Triton kernels cannot take a call; empty when they can."""
    if q.device.type != "cuda" and not INTERPRETED:
        return NO_GPU
    if not q.dtype == k.dtype == v.dtype:
        return "q, k and v are of several dtypes"
    if dropout:
        return "it has no dropout"
    if bias is not None and bias.requires_grad and torch.is_grad_enabled():
        return "it gives a bias no gradient"
    if scale is not None and not scale > 0:
        return "it takes positive scales only"
    if call == "attention_decode" and torch.is_grad_enabled() and (q.requires_grad or k.requires_grad):
        return "it gives decoding no gradient"
    return _obstacle_on(q.device, q.dtype, q.shape[-1]) or failure(Served(call, q.device, q.dtype, q.shape[-1]))


@cache
def _obstacle_on(device: torch.device, dtype: torch.dtype, width: int) -> str:
    """The same for what a call's options cannot change: the machine, the dtype and the head width."""
    if device.type != "cuda" and not INTERPRETED:
        return NO_GPU
    try:
        backend = _module("triton")
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    reason = backend.refusal(device, dtype, width)
    if reason or device.type != "cuda":
        return reason
    if os.environ.get(VARIABLE, "triton") not in ("", "triton"):
        return f"{VARIABLE} names another"  # which spares a card on which the self-test itself is the trouble
    return import_module("kernels.selftest").verdict(device, dtype, width)


def _module(name: str) -> ModuleType:
    if name == "triton" and name not in BACKENDS:
        BACKENDS[name] = import_module("kernels.triton_backend")
    return BACKENDS[name]
