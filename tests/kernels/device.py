"""Where the kernels' cases run: on the GPU that torch finds, else in Triton's interpreter. Import before any kernel.

TRITON_INTERPRET=1 asks for the interpreter where there is a GPU as well.
"""

from __future__ import annotations

import os

import torch

ON_CARD = torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1"
DEVICE = torch.device("cuda" if ON_CARD else "cpu")

if ON_CARD:
    # PyTorch's results are the yardstick for half precision. cuDNN's backward pass has given NaN in some of these calls
    # (pytorch#196678), and plain attention is to round as it does on a CPU, rather than to compute in fp32.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
else:
    from tests.kernels import interpreter

    assert interpreter.os.environ["TRITON_INTERPRET"] == "1"
