"""How long a run will take: told by this machine's own runs, shown in the form before it is started."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import save_file

from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, add_checkpoint, add_dataset, add_run, screen_text, wait_for
from tests.workbench.test_model_cards import CPU, finished
from workbench.app import WorkbenchApp
from workbench.models import times
from workbench.models.model_cards import long
from workbench.models.rates import remember
from workbench.models.times import Speeds, speeds, training_time, tuning_time


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "this_machine", lambda: CPU)


def tuned(workspace: Workspace, name: str, parameters: int, *, seconds: float, status: str = "finished") -> RunDir:
    """A tuning of this host that saw 90,000 tokens."""
    state = {"device": "cpu", "host": socket.gethostname(), "started": CREATED, "ended": CREATED + seconds}
    run = add_run(workspace, "sft", name, status, created=CREATED + 50, **state)
    run.metrics.write_text(json.dumps({"step": 2_000, "tokens": 90_000.0, "tokens_per_s": 99_999.0}) + "\n")
    add_checkpoint(run, 2_000)
    save_file({"w": torch.zeros(parameters)}, run.checkpoints / "step-2000" / "model.safetensors")
    return run


def test_nothing_is_said_where_nothing_is_known(populated: Workspace) -> None:
    known = speeds(populated)
    assert known == Speeds([], None)
    assert training_time(known, 1e12, 1_000) == tuning_time(known, 1e6, 1_000) == ""


def test_a_new_model_takes_its_operations_at_the_rate_of_the_run_nearest_in_size(populated: Workspace) -> None:
    remember(CPU, {"flops": 1e10, "precision": "fp32"})
    assert training_time(speeds(populated), 6e12, 1_000) == "about 10 minutes", "what was timed, before there are runs"
    finished(populated, "a")
    (rate,) = speeds(populated).training
    assert training_time(speeds(populated), rate.flops * 600, rate.parameters) == "about 10 minutes"


def test_tuning_is_told_from_pre_training_until_something_was_tuned_here(populated: Workspace) -> None:
    finished(populated, "a")
    (rate,) = speeds(populated).training
    assert rate.tokens_per_s == 52_000
    tokens = 52_000 * 240
    assert tuning_time(speeds(populated), tokens, rate.parameters) == "4.0 minutes to 10 minutes"
    assert tuning_time(speeds(populated), tokens, 2 * rate.parameters) == "8.0 minutes to 20 minutes"
    assert tuning_time(speeds(populated), tokens, 0) == "", "a model whose size cannot be read"
    tuned(populated, "cut", 1_000, seconds=1, status="stopped")
    tuned(populated, "mine", 1_000, seconds=90)
    known = speeds(populated)
    assert known.tuning is not None and known.tuning.source == "the run mine"
    assert tuning_time(known, 1_000 * 600, 1_000) == "about 10 minutes", "from start to end, not by its steps alone"
    assert tuning_time(known, 1_000 * 600, 2_000) == "about 20 minutes"


async def test_the_form_says_it_before_tuning_starts(
    populated: Workspace, make_app: Callable[..., WorkbenchApp]
) -> None:
    add_dataset(populated, "world-chat", kind="chat", digest="c1" * 32, created=CREATED + 10)
    run = tuned(populated, "mine", 1_000, seconds=90)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        app.start_run("sft", {"checkpoint": run.spec().name, "steps": 500, "batch_size": 2, "context": 600})
        tokens = 500 * 2 * 600
        await wait_for(pilot, lambda: f"takes      about {long(tokens / 1_000)}" in screen_text(app))
