"""The catalogue of datasets: dataset.json beside canonical records in Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from stages.store.files import read_facts
from stages.store.folders import find_folder, list_folders
from stages.store.workspace import Workspace

Kind = Literal["text", "chat", "preference", "prompts", "labelled"]


class Source(msgspec.Struct, frozen=True):
    """One file that went into a dataset."""

    path: str
    size: int
    sha256: str
    shape: str = ""
    """How its records were found to be written; empty where that was not asked."""


class Filter(msgspec.Struct, frozen=True):
    """What one filter did: how many records it removed or changed, and a few of them."""

    name: str
    sentence: str
    """What it does, for people."""
    removed: int = 0
    changed: int = 0
    examples: list[str] = []


class Problem(msgspec.Struct, frozen=True):
    """A record that could not be used. `line` counts from 1, and is the row of a Parquet or an Arrow file.

    It is 0 when the file as a whole is meant.
    """

    file: str
    line: int
    field: str
    message: str


class DatasetInfo(msgspec.Struct, kw_only=True, frozen=True):
    """dataset.json."""

    name: str
    kind: Kind
    digest: str
    """SHA-256 over kind, split and canonical records, in order."""
    records: dict[str, int]
    """Records in each split: train, val."""
    characters: dict[str, int] = {}
    bytes: dict[str, int] = {}
    """UTF-8 bytes of text in each split."""
    sources: list[Source] = []
    filters: list[Filter] = []
    read: int = 0
    """Records read before any filter."""
    problems: list[Problem] = []
    """The first hundred."""
    problem_count: int = 0
    split: str = ""
    settings: dict[str, Any] = {}
    run: str = ""
    created: float = 0.0
    schema: int = 1


class Dataset(NamedTuple):
    """A dataset in the workspace."""

    path: Path
    info: DatasetInfo

    @property
    def name(self) -> str:
        return self.path.name

    def shards(self, split: str) -> list[Path]:
        """The Parquet files of a split, in order."""
        return sorted((self.path / "records").glob(f"{split}-*.parquet"))


def list_datasets(workspace: Workspace) -> list[Dataset]:
    """All complete datasets by name."""
    return list_folders(workspace.datasets, "dataset.json", _open)


def find_dataset(workspace: Workspace, name: str) -> Dataset:
    """The dataset of this name; UserError naming the nearest otherwise."""
    makes = "data build SOURCE… --name NAME"
    return _open(find_folder(workspace.datasets, "dataset.json", name, what="dataset", makes=makes))


def _open(path: Path) -> Dataset:
    return Dataset(path, read_facts(path / "dataset.json", DatasetInfo))
