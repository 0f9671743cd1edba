"""Fused attention and its PyTorch fallback, behind one door.

from kernels import attention, attention_packed, attention_decode, backend_report
"""

from kernels.attention import BackendRow, attention, attention_decode, attention_packed, backend_report

__all__ = ["BackendRow", "attention", "attention_decode", "attention_packed", "backend_report"]
