"""Keys that have been seen: the same answers in memory and on disk, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from stages.data.seen import Seen, digest


@given(st.lists(st.integers(0, 30)))
def test_a_small_memory_gives_the_same_answers(numbers: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        large, small = Seen(Path(folder) / "large"), Seen(Path(folder) / "small", in_memory=4)
        keys = [digest(str(number)) for number in numbers]
        assert [small.add(key) for key in keys] == [large.add(key) for key in keys]
        assert all(key in small for key in keys) and digest("none") not in small
        large.close()
        small.close()
        assert list(Path(folder).iterdir()) == []
