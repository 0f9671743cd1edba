"""Models in the local Hugging Face cache, by their id. Nothing here opens the network."""

from __future__ import annotations

import os
import re
from pathlib import Path

from stages.store.errors import UserError
from stages.store.files import path_of

MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def model_source(text: str) -> Path:
    """The folder that `text` means: a path, or the id (org/name) of a model in the local cache. UserError otherwise."""
    path = path_of(text).absolute()
    if path.is_dir():
        return path
    cached = cached_model(text)
    if cached is not None:
        return cached
    if path.exists():
        raise UserError(f"{text!r} is a file.", "Name the folder that holds config.json and the weights.")
    if MODEL_ID.fullmatch(text):
        raise UserError(
            f"There is no folder {text!r}, and no model of that name in the Hugging Face cache {hub_cache()}.",
            "Nothing is fetched from the network: download it first, or name a folder.",
        )
    raise UserError(f"There is no folder {text!r}.", "Name a Hugging Face model folder.")


def cached_model(name: str) -> Path | None:
    """The folder of a model's newest revision in the local cache; None when the cache does not hold it."""
    if not MODEL_ID.fullmatch(name):
        return None
    repository = hub_cache() / f"models--{name.replace('/', '--')}"
    snapshots = repository / "snapshots"
    try:
        main = snapshots / (repository / "refs" / "main").read_text("utf-8").strip()
        if main.parent == snapshots and main.is_dir():
            return main
        found = [path for path in snapshots.iterdir() if path.is_dir()]
    except (OSError, UnicodeDecodeError, ValueError):
        return None
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def hub_cache() -> Path:
    """Where Hugging Face's libraries keep what they fetched."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
