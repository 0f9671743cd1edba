"""How many tokens a dataset has for a checkpoint: counted where it was encoded for such a one before, else guessed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stages.store.datasets import Dataset
from stages.store.files import sha256_file
from stages.store.tokenizers import list_tokenizers
from stages.store.workspace import Workspace

FILES = ("conversations.json", "tokens.json")
"""What counts a dataset's tokens, beside the tokens themselves."""
BYTES_PER_TOKEN = 3.5
"""Of text; what is assumed of a tokenizer of which nothing is known."""
MOST_BYTES, LEAST_BYTES = 4.5, 1.5
"""Between these a token's bytes lie: those of a large vocabulary, and of one of some hundreds of entries."""
AROUND = 8
"""Tokens that a chat template puts around a turn, about."""


class TokenCount(NamedTuple):
    """Tokens of the training split: the likely number, and between which it lies."""

    likely: int
    least: int
    most: int
    counted: bool = False
    """Whether they were counted and not guessed."""


def tokens_for(workspace: Workspace, dataset: Dataset, folder: Path) -> TokenCount:
    """The tokens of a dataset for the model in a folder."""
    digest = _digest_in(folder)
    if digest and (counted := _counted(dataset, digest)) is not None:
        return TokenCount(counted, counted, counted, counted=True)
    known = [one.info.bytes_per_token for one in list_tokenizers(workspace) if one.info.digest == digest]
    if known and known[0]:
        likely = _guess(dataset, known[0])
        return TokenCount(likely, likely, likely)
    likely, least, most = (_guess(dataset, size) for size in (BYTES_PER_TOKEN, MOST_BYTES, LEAST_BYTES))
    return TokenCount(likely, least, most)


def _guess(dataset: Dataset, bytes_per_token: float) -> int:
    around = 0 if dataset.info.kind == "text" else 2 * AROUND
    text = dataset.info.bytes.get("train", 0) / bytes_per_token
    return round(text) + around * dataset.info.records.get("train", 0)


def _counted(dataset: Dataset, digest: str) -> int | None:
    """What was counted when the dataset was encoded by the tokenizer with this digest; None where it never was."""
    for file in (path for name in FILES for path in dataset.path.glob(f"tokens/{digest[:32]}*/{name}")):
        try:
            found: Any = msgspec.json.decode(file.read_bytes())
            if found["dataset_digest"] == dataset.info.digest:
                return int(found["splits"]["train"]["tokens"])
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, ValueError):
            continue  # not whole: as if it had not been counted
    return None


def _digest_in(folder: Path) -> str:
    """The digest of a model's tokenizer; empty where it has none that can be read."""
    path = folder / "tokenizer.json"
    try:
        return _digest(path, path.stat().st_mtime_ns)
    except OSError:
        return ""


@lru_cache(maxsize=16)
def _digest(path: Path, changed: int) -> str:
    return sha256_file(path)
