"""A bias reaches the Triton kernels with dense rows at even places, the numbers being the caller's."""

from __future__ import annotations

import pytest
import torch

from kernels.triton_backend import BIAS_STEP, _in_even_rows


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 1, 1, 40), (1, 3, 5, 1), (5, 33), (33,), (1, 1, 1, 1)])
def test_rows_of_a_bias_are_laid_at_even_places(shape: tuple[int, ...]) -> None:
    S = 7 if shape[-1] == 1 else shape[-1]
    bias = torch.randn(shape)
    found = _in_even_rows(bias, S)
    assert found.stride(3) == 1
    assert all(stride % BIAS_STEP == 0 for stride in found.stride()[:3])
    assert torch.equal(found.expand(2, 3, 5, S), bias.expand(2, 3, 5, S))


def test_a_bias_with_its_heads_last_is_laid_out_anew() -> None:
    bias_BHTS = torch.randn(1, 16, 32, 4).permute(0, 3, 1, 2)
    found = _in_even_rows(bias_BHTS, 32)
    assert found.stride(3) == 1
    assert torch.equal(found, bias_BHTS)


def test_a_bias_in_even_rows_is_not_copied() -> None:
    bias = torch.randn(2, 4, 8, 64)
    assert _in_even_rows(bias, 64).data_ptr() == bias.data_ptr()
    cut = torch.randn(2, 4, 8, 64)[..., :50]
    assert _in_even_rows(cut, 50).data_ptr() == cut.data_ptr()
