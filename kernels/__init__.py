"""Fused operations and their PyTorch fallbacks, each behind one door.

from kernels import attention, attention_packed, attention_decode, linear_cross_entropy, rotary, swiglu, backend_report
"""

from kernels.attention import attention, attention_decode, attention_packed
from kernels.choice import BackendRow
from kernels.elementwise import rotary, swiglu
from kernels.linear_cross_entropy import linear_cross_entropy
from kernels.report import backend_report

__all__ = [
    "BackendRow",
    "attention",
    "attention_decode",
    "attention_packed",
    "backend_report",
    "linear_cross_entropy",
    "rotary",
    "swiglu",
]
