"""Launching runs, apart from what their workers do."""

from __future__ import annotations

import errno
import subprocess
import threading

import pytest

from stages.store.errors import UserError, WorkFailed
from stages.store.rundir import find_run, list_runs
from stages.store.workspace import Workspace
from tests.warm_workers import WarmWorkers
from workbench import runs


def test_of_two_launches_of_one_name_at_one_instant_one_is_refused(
    populated: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "start", lambda run, **_: None)
    ready, refused = threading.Barrier(4), list[UserError]()
    before = len(list_runs(populated))
    parents = {"dataset": "world", "tokenizer": "world-bpe"}

    def launch() -> None:
        ready.wait()
        try:
            runs.launch(populated, "pretrain", "twin", {}, **parents)
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=launch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list_runs(populated)) == before + 1
    assert find_run(populated, "twin").spec().name == "twin"
    assert len(refused) == 3
    assert all("already a run 'twin'" in str(error) for error in refused)


def test_a_worker_that_the_system_refuses_is_a_sentence_and_its_run_can_be_resumed(
    populated: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(WarmWorkers, "serves", lambda *_: False)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(WorkFailed, match="worker of the run cannot be started") as caught:
        runs.launch(populated, "pretrain", "first", {}, dataset="world", tokenizer="world-bpe")
    run = find_run(populated, "first")
    assert f"workbench runs resume {run.id}" in caught.value.hint
    assert run.status() == "lost"
