"""Templates of tasks that ship with the app: how in-context evaluation writes examples and a question."""

from __future__ import annotations

from pathlib import Path

import assets
from stages.store.errors import UserError
from stages.store.files import path_of
from stages.store.names import nearest

FOLDER = Path(assets.__file__).parent / "tasks"
AUTO = "auto"
"""Stands for the template that fits the dataset."""


def shipped_tasks() -> dict[str, str]:
    """The templates that come with the app, by name."""
    return {path.stem: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.jinja"))}


def absolute_task(task: str) -> str:
    """A template as a worker, which stands in another folder, can find it: its name, or its file.

    UserError naming the nearest when there is none.
    """
    if "/" not in task and not task.endswith(".jinja"):
        known = [AUTO, *shipped_tasks()]
        if task not in known:
            raise UserError(f"There is no task template {task!r}.", nearest(task, known))
        return task
    path = path_of(task).absolute()
    if not path.is_file():
        raise UserError(f"There is no task template {path}.", "Give a file, or the name of one that is shipped.")
    return str(path)
