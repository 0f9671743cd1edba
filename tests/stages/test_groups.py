"""A group of runs with real workers: one after another through the queue, stopped and gone on with as one."""

from __future__ import annotations

from pathlib import Path

from stages.store.checkpoints import list_checkpoints
from stages.store.groups import runs_of
from stages.store.workspace import Workspace
from tests.stages.helpers import TINY, copy_of, ended, wait_until
from workbench.studies import groups
from workbench.studies.groups import ranked, standings
from workbench.studies.sweeps import plan_sweep

SETTINGS = TINY | {"steps": 300, "eval_every": 300, "checkpoint_every": 300, "sample_every": 0}


def test_a_sweep_is_stopped_and_gone_on_with_as_one_and_ends_in_a_sorted_table(
    small_world: Workspace, tmp_path: Path
) -> None:
    workspace = copy_of(small_world, tmp_path)
    parents = {"dataset": "rhymes", "tokenizer": "bytes"}
    group = plan_sweep(workspace, "pretrain", "s", SETTINGS, {"lr": [1e-5, 1e-3, 1e-2]}, parents=parents)
    launched = groups.launch_group(workspace, group)
    wait_until(lambda: any(run.state().step > 0 for run in launched), what="the first step")
    assert groups.stop_group(workspace, "s") >= 2
    wait_until(lambda: all(ended(run) for run in launched), what="the end of all runs")
    statuses = [run.status() for run in launched]
    assert set(statuses) <= {"stopped", "finished"} and statuses.count("stopped") >= 2

    assert groups.resume_group(workspace, "s") == statuses.count("stopped")
    wait_until(lambda: all(ended(run) for run in launched), what="the end of all runs")
    assert {run.id for run in runs_of(workspace, "s").values()} == {run.id for run in launched}
    rows = ranked(standings(workspace, group), "val/loss")
    assert all(row.finished and list_checkpoints(row.run) for row in rows if row.run)
    losses = [row.figures["val/loss"] for row in rows]
    assert losses == sorted(losses) and rows[-1].member.values == {"lr": 1e-5}
    assert groups.resume_group(workspace, "s") == 0
