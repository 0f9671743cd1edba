"""Names that people give: checked so that no name can leave the workspace or disturb a terminal."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from stages.store.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it may be the name of a dataset, tokenizer, model or run; raise UserError otherwise."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be the {what}.",
            "Use 1 to 64 letters, digits, dots, dashes and underscores, beginning with a letter or digit.",
        )
    return name


def named_after(source: str) -> str:
    """A name for what is made of a file, a folder or `starter:NAME`: the last part of it without its endings."""
    last = source.rstrip("/").rpartition("/")[2].rpartition(":")[2].lstrip(".")
    words = re.findall(r"[A-Za-z0-9]+", last.partition(".")[0] or last)
    return "-".join(words)[:64].strip("-") or "data"


def nearest(name: str, known: Iterable[str], makes: str = "") -> str:
    """A sentence that names the known name closest to `name`, or all of them when none is close.

    makes: the command that makes the first where there is none yet.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    if names:
        return f"Known: {', '.join(names)}."
    return f"There is none yet: `workbench {makes}` makes one." if makes else "There is none yet."
