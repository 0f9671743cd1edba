"""Naming what a dataset is built from: files, folders, globs, starter data, ids of Hugging Face datasets, stdin.

Only names are looked at here; `stages/data/sources.py` reads what they name.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import BinaryIO

from stages.store.datasets import Kind
from stages.store.errors import UserError
from stages.store.files import disk_errors, path_of
from stages.store.names import nearest

STARTERS: dict[str, tuple[Kind, str]] = {
    "starter:sentences": ("text", "short texts on many subjects"),
    "starter:world": ("text", "documents of a small invented world, generated"),
    "starter:instructions": ("chat", "instructions with answers"),
    "starter:world-chat": ("chat", "questions about the world with answers"),
    "starter:rankings": ("preference", "answers ranked by hand"),
    "starter:world-preferences": ("preference", "answers about the world, ranked by a rule"),
    "starter:world-preferences-flipped": ("preference", "the same with one ranking in ten turned round"),
    "starter:probes": ("prompts", "twenty questions that show what a model is like"),
    "starter:world-questions": ("prompts", "every question about the world"),
    "starter:world-sft": ("prompts", "questions of the sft part"),
    "starter:world-reward": ("prompts", "questions of the reward part"),
    "starter:world-policy": ("prompts", "questions of the policy part"),
    "starter:world-eval": ("prompts", "questions held out"),
    "starter:demo": ("text", "documents of the part of the world that a small model learns in minutes"),
    "starter:demo-chat": ("chat", "questions about that part with answers"),
    "starter:demo-preferences": ("preference", "answers about that part, ranked by a rule"),
    "starter:demo-preferences-flipped": ("preference", "the same with one ranking in ten turned round"),
    "starter:demo-policy": ("prompts", "questions of that part, to improve a policy on"),
    "starter:demo-eval": ("prompts", "questions of that part, held out"),
    "starter:pairs": ("labelled", "pairs of sentences: does one follow from the other?"),
    "starter:world-labelled": ("labelled", "the world's four labelled tasks"),
    "starter:world-classify": ("labelled", "what a question is about"),
    "starter:world-pair": ("labelled", "pairs of statements"),
    "starter:world-choice": ("labelled", "multiple choice"),
    "starter:world-tokens": ("labelled", "a label for each word"),
}
"""What ships with the app: its kind, and what it is."""

HELD_OUT = frozenset(("starter:world-eval", "starter:demo-eval"))
"""Those that are there to measure by, and that nothing is to be trained on."""

STARTER, STDIN = "starter:", "-"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
SPOOL = "spool"
"""The folder of the workspace that keeps what came in on standard input until it has been built."""


def absolute_source(text: str) -> str:
    """A source as the worker, which stands in another folder, can find it. UserError when there is nothing there."""
    if text.startswith(STARTER):
        if text not in STARTERS:
            raise UserError(f"There is no starter data {text!r}.", nearest(text, STARTERS))
        return text
    path = path_of(text).absolute()
    if path.exists():
        return str(path)
    if glob.has_magic(text):
        if next(glob.iglob(str(path), recursive=True), None) is None:  # noqa: PTH207  # Path.glob takes no whole pattern
            raise UserError(f"No file matches {text!r}.", f"The current folder is {Path.cwd()}.")
        return str(path)
    if not HUB_ID.fullmatch(text) or path.suffix:
        raise UserError(f"There is no file or folder {text!r}.", f"The current folder is {Path.cwd()}.")
    return str(hub_folder(text))


def hub_folder(name: str) -> Path:
    """Where the local Hugging Face cache keeps the dataset `name`. UserError when it does not; nothing is fetched."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets") / name.replace("/", "___")
    repository = hub / f"datasets--{name.replace('/', '--')}"
    snapshot = _snapshot(repository)
    if snapshot is not None:
        return snapshot
    if prepared.is_dir():
        return prepared
    raise UserError(
        f"There is no file or folder {name!r}, and no dataset of that name in the Hugging Face cache {hub}.",
        "Nothing is fetched from the network; download it first, or name a file.",
    )


def _snapshot(repository: Path) -> Path | None:
    """The snapshot that `main` names, else the newest."""
    snapshots = repository / "snapshots"
    try:
        main = snapshots / (repository / "refs" / "main").read_text().strip()
        if main.parent == snapshots and main.is_dir():
            return main
    except OSError:
        pass
    found = [path for path in snapshots.iterdir() if path.is_dir()] if snapshots.is_dir() else []
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def spool(stream: BinaryIO, root: Path, name: str) -> Path:
    """Keep what `stream` gives in a file of the workspace at `root`, for a worker to read and then remove."""
    folder = root / SPOOL
    path = folder / f"{name}-{uuid.uuid4().hex[:8]}"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return path


def is_spooled(path: Path) -> bool:
    """Whether a file is one that `spool` made."""
    return path.parent.name == SPOOL and re.fullmatch(r".+-[0-9a-f]{8}", path.name) is not None
