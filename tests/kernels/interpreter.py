"""Triton's interpreter, made right for bf16. Import before any kernel; sets TRITON_INTERPRET for this process.

As released, the interpreter multiplies the raw bits of bf16 numbers and truncates where a GPU rounds to nearest even.
It also puts its own functions into triton.language anew at every call of a function within a kernel, which is a quarter
of its time; in a process that never compiles, once is enough.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as released
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


def widened(bits: np.ndarray) -> np.ndarray:
    """bf16, held as uint16, as fp32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(numbers: np.ndarray) -> np.ndarray:
    """fp32 to the nearest bf16, ties to even, held as uint16."""
    bits = np.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32)
    nearest = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(numbers), np.uint16(0x7FC0), nearest).reshape(np.shape(numbers))


_cast, _dot, _float_to_float = (
    InterpreterBuilder.cast_impl,
    InterpreterBuilder.create_dot,
    InterpreterBuilder.create_fp_to_fp,
)


def cast(self: Any, source: Any, target: Any) -> Any:
    """Round on the way down, widen on the way up; all else as released."""
    here, there = source.dtype.scalar, target.scalar
    if here == tl.bfloat16 and there == tl.float32:
        return TensorHandle(widened(source.data), there)
    if here == tl.float32 and there == tl.bfloat16:
        return TensorHandle(rounded(source.data), there)
    return _cast(self, source, target)


def dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
    """Products of bf16 numbers rather than of their bits."""
    a, b = (TensorHandle(widened(x.data), tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b))
    return _dot(self, a, b, *rest)


def float_to_float(self: Any, source: Any, target: Any, mode: Any) -> Any:
    if {source.dtype.scalar, target.scalar} == {tl.bfloat16, tl.float32}:
        return cast(self, source, target)
    return _float_to_float(self, source, target, mode)


InterpreterBuilder.cast_impl = cast
InterpreterBuilder.create_dot = dot
InterpreterBuilder.create_fp_to_fp = float_to_float
InterpreterBuilder.create_fp_ext = cast
InterpreterBuilder.create_fp_trunc = cast

_patch_lang, _get_np_dtype = released._patch_lang, released._get_np_dtype
_patched: set[Callable[..., Any]] = set()
_numpy_types: dict[tl.dtype, np.dtype[Any]] = {}


def patch_once(function: Callable[..., Any]) -> released._LangPatchScope:
    """Put the interpreter's functions where `function` looks for those of Triton. They stay there."""
    if function not in _patched:
        _patch_lang(function)
        _patched.add(function)
    return released._LangPatchScope()  # nothing to take back


def numpy_type(kind: tl.dtype) -> np.dtype[Any]:
    """As released, without a table made anew for each question."""
    scalar = kind.element_ty if isinstance(kind, tl.block_type) else kind
    if isinstance(scalar, tl.pointer_type):
        return _get_np_dtype(scalar)
    if scalar not in _numpy_types:
        _numpy_types[scalar] = _get_np_dtype(scalar)
    return _numpy_types[scalar]


released._patch_lang = patch_once
released._get_np_dtype = numpy_type
