"""`workbench runs tensorboard DIR`: metrics as TensorBoard files."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import click

from stages.store.errors import UserError
from stages.store.rundir import RunDir, find_run, list_runs
from workbench.cli.common import Environment, pass_environment, say

POLL = 2.0
"""Seconds between looks at the runs that are followed."""


@click.command("tensorboard")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.argument("names", nargs=-1, metavar="[RUN]…")
@click.option("--follow", "-f", is_flag=True, help="Go on while a run is at work; ctrl+c ends it.")
@pass_environment
def tensorboard(env: Environment, folder: Path, names: tuple[str, ...], follow: bool) -> None:
    """Write the metrics of runs as TensorBoard files: DIR/<run>/events….

    Without RUN, those of all runs that have metrics; where two have one name, each goes by its id. `tensorboard
    --logdir DIR` shows them; with --follow they grow as the runs do.
    """
    from workbench.board.event_files import EventFile

    found = [find_run(env.workspace, name) for name in names] or list_runs(env.workspace)
    measured = list({run.id: run for run in found if run.metrics.is_file()}.values())
    shared = Counter(_folder_name(run) for run in measured)
    called = [run.id if shared[name := _folder_name(run)] > 1 else name for run in measured]
    files = [EventFile(run, folder / name) for run, name in zip(measured, called, strict=True)]
    if not files:
        raise UserError("No run has metrics yet.", "Train one first: `workbench train --help`.")
    rows = [file.update() for file in files]
    say(f"{sum(rows):,} rows of {sum(map(bool, rows))} runs are in {folder}.")
    while follow and any(file.run.alive() for file in files):
        time.sleep(POLL)
        for file in files:
            file.update()
    for file in files:
        file.update()
        file.close()


def _folder_name(run: RunDir) -> str:
    try:
        return run.spec().name
    except UserError:  # its spec cannot be read; its metrics can
        return run.id
