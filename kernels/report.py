"""Which backend serves what, and why."""

from __future__ import annotations

import torch

from kernels import choice
from kernels.attention import decide_usual_calls as decide_attention
from kernels.choice import BackendRow
from kernels.elementwise import decide_usual_calls as decide_elementwise
from kernels.linear_cross_entropy import decide_usual_calls as decide_loss


def backend_report(device: torch.device | str | None = None) -> list[BackendRow]:
    """The usual calls on this device, then what this process has met besides.

    The device is the GPU where there is one, and the CPU otherwise, when None.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    decide_attention(where)
    decide_loss(where)
    decide_elementwise(where)
    return list(choice.rows.values())
