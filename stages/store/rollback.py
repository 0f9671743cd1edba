"""Going back to an earlier checkpoint of a run: those beyond it are set aside, and resuming goes on from it.

Nothing is deleted. What is set aside lies in the run's folder `set-aside/`, and is a checkpoint like any other when it
is named by its path.
"""

from __future__ import annotations

from pathlib import Path

from stages.store.checkpoints import Checkpoint, list_checkpoints, verify
from stages.store.errors import UserError
from stages.store.files import disk_errors, sync_folder, unused
from stages.store.lineage import checkpoint_at, children_of_checkpoint
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace

FOLDER = "set-aside"


def roll_back(workspace: Workspace, run: RunDir, step: int) -> list[Path]:
    """Make the checkpoint of `step` the run's last; where the checkpoints beyond it are now.

    Raises UserError while the run is at work, when it has no such checkpoint or a damaged one, and when another run
    was made from a checkpoint that would be set aside.
    """
    with run.held(f"The run {run.spec().name!r} is at work.", "Pause it first."):
        kept, beyond = _parted(run, step)
        verify(kept.path)
        needed = [child for checkpoint in beyond for child in children_of_checkpoint(workspace, run, checkpoint)]
        if needed:
            names = ", ".join(str(child) for child in needed)
            raise UserError(f"A later checkpoint is needed by {names}.", "Delete what needs it first, or keep it.")
        moved = _set_aside(run, beyond)
        state = run.state()
        state.last_checkpoint, state.step = kept.name, step
        run.write_state(state, durable=True)
        run.append_event("rolled back", step=step, set_aside=[checkpoint.name for checkpoint in beyond])
        return moved


def _parted(run: RunDir, step: int) -> tuple[Checkpoint, list[Checkpoint]]:
    kept = checkpoint_at(run, step)
    return kept, [checkpoint for checkpoint in list_checkpoints(run) if checkpoint.step > step]


def _set_aside(run: RunDir, checkpoints: list[Checkpoint]) -> list[Path]:
    folder = run.path / FOLDER
    moved = []
    with disk_errors(run.path):
        for checkpoint in reversed(checkpoints):  # the newest first: a kill in between leaves the run at an earlier one
            folder.mkdir(exist_ok=True)
            target = unused(folder / checkpoint.name)
            checkpoint.path.rename(target)
            moved.append(target)
        if moved:
            sync_folder(folder)
            sync_folder(run.checkpoints)
    return moved
