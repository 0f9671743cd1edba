"""The device queue: order, width, and tickets of dead workers."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.store.queue import Ticket, Tickets, waiting


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_first_come_first_served() -> None:
    first, second = Ticket("cpu", "a"), Ticket("cpu", "b")
    assert first.ready()
    assert not second.ready()
    first.release()
    assert second.ready()
    second.release()


def test_priority_goes_first() -> None:
    running, ordinary, urgent = Ticket("cpu", "a", priority=9), Ticket("cpu", "b"), Ticket("cpu", "c", priority=5)
    assert waiting("cpu") == ["a", "c", "b"]
    running.release()
    assert urgent.ready()
    assert not ordinary.ready()
    urgent.release()
    ordinary.release()


def test_an_urgent_ticket_does_not_push_out_the_one_at_work() -> None:
    running, urgent = Ticket("cpu", "a"), None
    assert running.ready()
    urgent = Ticket("cpu", "b", priority=5)
    assert urgent.ahead() == []
    assert not urgent.ready()
    assert running.ready()
    running.release()
    assert urgent.ready()
    urgent.release()


def test_width_lets_several_in_and_devices_are_apart() -> None:
    tickets = [Ticket("cpu", str(n), width=2) for n in range(3)]
    assert [t.ready() for t in tickets] == [True, True, False]
    other = Ticket("GPU-1", "x")
    assert other.ready()
    for ticket in (*tickets, other):
        ticket.release()


def test_the_ticket_of_a_dead_worker_does_not_block() -> None:
    code = "from stages.store.queue import Ticket; t = Ticket('cpu', 'dead'); print('held', flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert child.stdout is not None
    child.stdout.readline()
    mine = Ticket("cpu", "mine")
    assert not mine.ready()
    child.kill()
    child.wait()
    assert mine.ready()
    assert waiting("cpu") == ["mine"]
    mine.release()


def test_several_devices_are_taken_together_or_not_at_all() -> None:
    single = Ticket("gpu-2", "single")
    assert single.ready()
    pair = Tickets(["gpu-2", "gpu-1"], "pair")
    late = Ticket("gpu-1", "late")
    assert not pair.ready()
    assert pair.ahead() == ["single"]
    assert not late.ready()
    single.release()
    assert pair.ready()
    assert waiting("gpu-1") == ["pair", "late"]
    assert waiting("gpu-2") == ["pair"]
    pair.release()
    assert late.ready()
    late.release()


def test_runs_that_want_the_same_devices_never_wait_for_each_other() -> None:
    ordinary = Tickets(["gpu-1", "gpu-2"], "ordinary")
    blocking = Ticket("gpu-2", "blocking", priority=9)
    assert blocking.ready()
    assert not ordinary.ready()  # it had gpu-1, and gave it back
    urgent = Tickets(["gpu-2", "gpu-1"], "urgent", priority=5)
    blocking.release()
    assert not ordinary.ready()
    assert urgent.ready()
    urgent.release()
    assert ordinary.ready()
    ordinary.release()
