"""The catalogue of tokenizers: tokenizers/<name>/ with tokenizer.json and tokenizer.info.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stages.store.files import read_facts
from stages.store.folders import find_folder, list_folders
from stages.store.workspace import Workspace

INFO = "tokenizer.info.json"


class TokenizerInfo(msgspec.Struct, kw_only=True, frozen=True):
    """tokenizer.info.json: what the app shows of a tokenizer without loading it."""

    name: str
    type: str
    """bpe, wordpiece, unigram, byte, or wordlevel where it was imported."""
    vocab_size: int
    digest: str
    """SHA-256 of tokenizer.json."""
    special: dict[str, int] = {}
    """Special tokens by role: pad, eos, bos, unk …; pad is never eos."""
    dataset: str = ""
    dataset_digest: str = ""
    source: str = ""
    """The file or folder it was imported from, where it was."""
    sample_bytes: int = 0
    """UTF-8 bytes of text it was trained on."""
    sample: str = ""
    """How that text was chosen, for people."""
    notes: list[str] = []
    """What one should know of it: tokens that were added, texts that do not come back."""
    bytes_per_token: float | None = None
    """Over the validation split of the dataset it was trained on."""
    round_trips: int = 0
    """Documents that decode to exactly themselves, of `round_trip_checked`."""
    round_trip_checked: int = 0
    settings: dict[str, Any] = {}
    run: str = ""
    created: float = 0.0
    schema: int = 1


class Tokenizer(NamedTuple):
    """A tokenizer in the workspace, not loaded."""

    path: Path
    info: TokenizerInfo

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def file(self) -> Path:
        return self.path / "tokenizer.json"


def list_tokenizers(workspace: Workspace) -> list[Tokenizer]:
    """All complete tokenizers by name."""
    return list_folders(workspace.tokenizers, INFO, _open)


def find_tokenizer(workspace: Workspace, name: str) -> Tokenizer:
    """The tokenizer of this name; UserError naming the nearest otherwise."""
    makes = "tokenizer train --data DATASET --name NAME"
    return _open(find_folder(workspace.tokenizers, INFO, name, what="tokenizer", makes=makes))


def _open(path: Path) -> Tokenizer:
    return Tokenizer(path, read_facts(path / INFO, TokenizerInfo))
