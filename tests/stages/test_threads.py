"""CPU threads of a model that answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from stages.asking.threads import SMALL, choose_threads


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def after(*parameters: int) -> list[int]:
    found = []
    for count in parameters:
        choose_threads(count)
        found.append(torch.get_num_threads())
    return found


def test_a_large_model_after_a_small_one_has_the_threads_of_the_process() -> None:
    torch.set_num_threads(3)
    assert after(SMALL, SMALL - 1, SMALL - 1, SMALL) == [3, 1, 1, 3]


def test_threads_that_were_set_since_are_those_of_the_process() -> None:
    torch.set_num_threads(3)
    choose_threads(1)
    torch.set_num_threads(2)
    assert after(SMALL, 1, SMALL) == [2, 1, 2]


def test_what_is_asked_for_holds_for_one_model() -> None:
    torch.set_num_threads(2)
    choose_threads(1, wanted=4)
    assert torch.get_num_threads() == 4
    assert after(SMALL) == [2]
