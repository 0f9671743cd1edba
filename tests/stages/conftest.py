"""A small workspace with real data for tests of the stages, made by the stages themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.store.workspace import Workspace
from tests.stages.helpers import build_small_world


@pytest.fixture(scope="session", autouse=True)
def _shared_by_no_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs that fixtures of a module launch do not stand in the machine's own queue."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def _own_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the dataset `rhymes` and the byte tokenizer `bytes`; read only."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        return build_small_world(folder)
