"""The table of tiles covers every row of every document once, the heaviest tiles first, and is built once a batch."""

from __future__ import annotations

import pytest
import torch

from kernels.triton_packed import tile_table

ROWS, BLOCK = 100, 16


@pytest.mark.parametrize("order", ["late", "early", "long"])
@pytest.mark.parametrize("ends", [[0, 100], [0, 3, 3, 40, 97], [0, 1, 2, 3], [0, 0, 0], [0, 16, 32, 100, 100, 100]])
def test_every_row_of_every_document_is_in_one_tile(ends: list[int], order: str) -> None:
    table = tile_table(torch.tensor(ends, dtype=torch.int32), ROWS, BLOCK, order)
    covered = []
    for start, length, tile in table.tolist():
        covered += range(start + tile * BLOCK, start + min((tile + 1) * BLOCK, length))
    assert sorted(covered) == list(range(ends[-1]))


def test_the_number_of_tiles_depends_on_shapes_alone() -> None:
    bounds = ([0, 100, 100, 100], [0, 1, 2, 3], [0, 33, 50, 100])
    assert len({tile_table(torch.tensor(ends), ROWS, BLOCK, "late").shape for ends in bounds}) == 1


def test_tiles_with_most_to_do_come_first() -> None:
    bounds = torch.tensor([0, 20, 100])
    assert tile_table(bounds, ROWS, BLOCK, "late")[0].tolist() == [20, 80, 4]
    assert tile_table(bounds, ROWS, BLOCK, "early")[0].tolist() == [20, 80, 0]
    lengths = tile_table(bounds, ROWS, BLOCK, "long")[:, 1].tolist()
    assert lengths == sorted(lengths, reverse=True)


def test_a_batch_builds_its_table_once_and_a_changed_one_again() -> None:
    bounds = torch.tensor([0, 20, 100])
    first = tile_table(bounds, ROWS, BLOCK, "late")
    assert tile_table(bounds, ROWS, BLOCK, "late") is first
    assert tile_table(bounds, ROWS, 32, "late") is not first
    bounds[1] = 50
    assert not torch.equal(tile_table(bounds, ROWS, BLOCK, "late"), first)


def test_wrong_bounds_stay_within_the_tensors() -> None:
    table = tile_table(torch.tensor([0, 70, 30, 500]), ROWS, BLOCK, "long").tolist()
    assert all(start >= 0 and start + length <= ROWS for start, length, _ in table)
