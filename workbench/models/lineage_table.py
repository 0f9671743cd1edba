"""Checkpoints along their lineage: each behind the one that it was made from, as a table of how strong they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stages.store.checkpoints import Checkpoint, resolve_checkpoint
from stages.store.errors import UserError
from stages.store.labels.elo import Standing
from stages.store.workspace import Workspace

Chain = tuple[tuple[str, int], ...]
"""Names and steps from the first ancestor to the checkpoint itself."""


class Line(NamedTuple):
    """A row of the table. `depth` counts ancestors, `parent` is the nearest; empty where nobody knows."""

    standing: Standing
    depth: int
    parent: str


def along_lineage(workspace: Workspace, found: Sequence[Standing]) -> list[Line]:
    """Standings in the order of the lineage: ancestors first, steps of a run in order. Reads lineages from disk."""
    chains = {one.checkpoint: chain_of(workspace, one.checkpoint) for one in found}
    known = {one.checkpoint: one for one in found}
    return [
        Line(known[name], len(chain) - 1, _name(*chain[-2]) if len(chain) > 1 else "")
        for name, chain in sorted(chains.items(), key=lambda item: item[1])
    ]


def chain_of(workspace: Workspace, name: str) -> Chain:
    """The lineage of `run@step` or an imported model; of one that is gone only itself."""
    stem, _, step = name.rpartition("@")
    chain: Chain = ((stem, int(step)) if stem and step.isdecimal() else (name, 0),)
    try:
        parent = _parent(resolve_checkpoint(workspace, name))
        while parent is not None and (named := _named(parent)) not in chain:
            chain = (named, *chain)
            parent = _parent(parent)
    except (UserError, OSError):
        pass  # an ancestor that is gone ends what can be known
    return chain


def _parent(checkpoint: Checkpoint) -> Checkpoint | None:
    lineage = checkpoint.lineage()
    pinned = lineage.parents.get("checkpoint") if lineage is not None else None
    return Checkpoint(Path(pinned.name), 0) if pinned is not None and Path(pinned.name).is_dir() else None


def _named(checkpoint: Checkpoint) -> tuple[str, int]:
    lineage = checkpoint.lineage()
    return (lineage.name, lineage.step) if lineage is not None else (checkpoint.path.name, 0)


def _name(name: str, step: int) -> str:
    return f"{name}@{step}" if step else name
