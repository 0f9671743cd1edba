"""Where a test of the Triton kernels runs: in the interpreter, and again on the GPU of a machine that has one.

python -m pytest -m gpu tests/kernels          those on the GPU alone; `make soak` has them too
"""

from __future__ import annotations

import pytest
import torch

_WITHOUT_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use")

PLACES = ("interpreter", pytest.param("gpu", marks=(pytest.mark.gpu, pytest.mark.soak, _WITHOUT_GPU)))
