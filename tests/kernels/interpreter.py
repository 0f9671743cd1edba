"""Triton's interpreter, made right for bf16. Import before any kernel; sets TRITON_INTERPRET for this process.

As released, the interpreter multiplies the raw bits of bf16 numbers and truncates where a GPU rounds to nearest even.
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"

from typing import Any

import numpy as np
import triton.language as tl
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
