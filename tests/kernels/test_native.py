"""C is compiled once, kept in the user's cache, and what stands in the way is said in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels import native
from kernels.native import NotCompiled, library

TWICE = "int twice(int x) { return 2 * x; }\n"


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, of which nothing is remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native._library.cache_clear()
    yield tmp_path / "cache" / "workbench" / "kernels"
    native._library.cache_clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "twice.c"
    path.write_text(TWICE)
    return path


def compiler(folder: Path, script: str) -> str:
    """A command that stands where a compiler is expected."""
    path = folder / "some-cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_source_is_compiled_once_and_anew_when_it_changes(source: Path, kept: Path) -> None:
    try:
        assert library(source).twice(21) == 42
    except NotCompiled as why:
        pytest.skip(str(why))
    (first,) = kept.iterdir()  # nothing else is left there
    made = first.stat().st_mtime_ns
    native._library.cache_clear()
    assert library(source).twice(4) == 8 and first.stat().st_mtime_ns == made
    native._library.cache_clear()
    source.write_text(TWICE.replace("2 * x", "3 * x"))
    assert library(source).twice(4) == 12 and len(list(kept.iterdir())) == 2


def test_without_a_compiler_that_is_what_is_said(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(source.parent))
    with pytest.raises(NotCompiled, match="there is no C compiler"):
        library(source)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'twice.c:1: error: not today' >&2; exit 4", "ended with 4: twice.c:1: error: not today"),
        ("exec sleep 60", "takes longer than 0.2 s"),
        ("while [ $1 != -o ]; do shift; done; echo nonsense > $2", "too short|invalid ELF|not a mach-o|slice"),
    ],
)
def test_a_compiler_that_fails_is_named_with_its_own_words(
    source: Path, kept: Path, script: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler(source.parent, script))
    monkeypatch.setattr(native, "SECONDS", 0.2 if "sleep" in script else 60)
    for _ in range(2):
        with pytest.raises(NotCompiled, match=said):
            library(source)
    assert not [each for each in kept.iterdir() if each.suffix != ".so"]


def test_a_cache_that_cannot_be_written_is_no_traceback(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler(source.parent, "exit 0"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(source))
    with pytest.raises(NotCompiled, match="Not a directory"):
        library(source)
