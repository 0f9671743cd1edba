"""What enter does in a chat while nothing is written: at first it asks something, then it goes on with the life."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from textual.content import Content

from stages.store.errors import UserError
from stages.store.rundir import RunDir
from workbench.board.survey import Survey
from workbench.display import content, shortened
from workbench.follow import RowFollower
from workbench.life.onward import after_chat, label
from workbench.life.steps import Step, lives

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp

ROOM = 74
"""Characters of the whole line, so that its end is in sight at 80 columns; all of a proposal is sent."""


class GoingOn:
    """Of one checkpoint: a text to begin with, and the step of the life that comes after talking to it."""

    def __init__(self, proposal: str = "", step: Step | None = None) -> None:
        self.proposal = proposal
        self.step = step

    @classmethod
    async def of(cls, app: WorkbenchApp, checkpoint: Path, *, talks: bool) -> GoingOn:
        """Look it up: the first validation record that the model was tuned on, or what its samples continue."""
        run = RunDir(checkpoint.parent.parent)
        try:
            spec = await asyncio.to_thread(run.spec)
        except UserError:
            return cls()
        step = await asyncio.to_thread(lambda: after_chat(lives(Survey(app.workspace).look()), run.id))
        if not talks:
            return cls(await asyncio.to_thread(_continued, run), step)
        dataset = spec.parents.get("dataset")
        return cls(await _asked(app, dataset.name) if dataset else "", step)

    def placeholder(self, otherwise: str, *, begun: bool) -> str | Content:
        """What stands in the field while it is empty; `begun` says whether something was answered."""
        if not begun and self.proposal:
            before = f"{otherwise}; enter sends “"
            return content(f"{before}{shortened(self.proposal, max(12, ROOM - len(before)))}”")
        if begun and self.step is not None:
            return content(f"Write on; enter goes on: {label(self.step)}")
        return otherwise


def _continued(run: RunDir) -> str:
    """The text that the samples of a run continue, where it has any."""
    rows = RowFollower(run.samples).read().rows
    prompt = rows[0].get("prompt") if rows else None
    return prompt if isinstance(prompt, str) else ""


async def _asked(app: WorkbenchApp, dataset: str) -> str:
    """What a user says in the first validation record of a dataset; nothing where there is no such record."""
    try:
        page = await app.desk.ask("records.read", dataset=dataset, split="val", start=0, count=1)
    except UserError:
        return ""
    messages = page["records"][0]["record"].get("messages", []) if page["records"] else []
    return next((message["content"] for message in messages if message["role"] == "user"), "")
