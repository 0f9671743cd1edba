"""Memory of a build: the same for a corpus five times as large."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.data import MEMORY, build, generate


@pytest.mark.soak
def test_memory_is_flat_between_200_mb_and_1_gb(tmp_path: Path) -> None:
    memory = []
    for megabytes in (200, 1_000):
        (sources := tmp_path / f"sources-{megabytes}").mkdir()
        generate(sources, megabytes)
        memory.append(build(tmp_path / f"built-{megabytes}", sources, near_duplicates=True)[2])
    assert memory[1] < MEMORY and memory[1] < 1.3 * memory[0], memory
