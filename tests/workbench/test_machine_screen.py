"""The machine at a glance: what is in use, who holds it, who waits."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from stages.store.locks import try_lock
from stages.store.notes import read_notes
from stages.store.queue import Ticket, waiting
from stages.store.workspace import Workspace
from tests.workbench.conftest import add_run, screen_text, settled, wait_for
from workbench import machine
from workbench.app import WorkbenchApp
from workbench.machine import Gpu, Machine, Reading
from workbench.screens.machine import MachineScreen, sparkline

SIZES = [(120, 40), (80, 24)]
GPUS = [Gpu("NVIDIA H100 80GB HBM3", "GPU-1", 41 * 10**9, 85 * 10**9, 0.97, 61, 402.0, 700.0)]


@pytest.fixture
def at_work(workspace: Workspace, request: pytest.FixtureRequest) -> Workspace:
    """One run whose worker is this process, and one that waits behind it."""
    for name, status, pid in (("busy", "running", os.getpid()), ("patient", "queued", None)):
        state: dict[str, Any] = {"step": 40, "total": 200, "ended": None, "pid": pid, "device": "cpu"}
        run = add_run(workspace, "pretrain", name, status, **state)
        descriptor = try_lock(run.lock)
        assert descriptor is not None
        request.addfinalizer(lambda held=descriptor: os.close(held))
        ticket = Ticket("cpu", run.id)
        request.addfinalizer(ticket.release)
    return workspace


def reading(**changes: Any) -> Reading:
    figures: dict[str, Any] = {
        "cpu": 0.5,
        "cores": 16,
        "memory_used": 18 * 10**9,
        "memory_total": 64 * 10**9,
        "disk_free": 10**12,
        "disk_total": 2 * 10**12,
        "gpus": GPUS,
        "holders": [],
    }
    return Reading(**figures | changes)


def test_a_look_finds_who_works_and_who_waits(at_work: Workspace) -> None:
    looks = Machine(at_work)
    looks.look()
    sum(number * number for number in range(2_000_000))
    found = looks.look()
    busy, patient = found.holders
    assert (busy.entry.spec.name, busy.place, patient.entry.spec.name, patient.place) == ("busy", 0, "patient", 1)
    assert busy.cores > 0.1
    assert busy.memory > 10**7
    assert 0 < found.memory_used < found.memory_total
    assert 0 < found.disk_free < found.disk_total


def test_memory_that_runs_out_is_told() -> None:
    assert reading().scarce() == ""
    assert "Memory is nearly full: 0.5 of 64 GB" in reading(memory_used=63_500_000_000).scarce()
    full = GPUS[0]._replace(used=84_800_000_000)
    assert "NVIDIA H100 80GB HBM3 is nearly full: 0.2 of 85 GB" in reading(gpus=[full]).scarce()


def test_a_ticket_moves_by_priority_and_keeps_its_turn_among_equals() -> None:
    first, second, third = (Ticket("cpu", name) for name in ("a", "b", "c"))
    try:
        third.set_priority(2)
        assert waiting("cpu") == ["c", "a", "b"]
        third.set_priority(0)
        assert waiting("cpu") == ["a", "b", "c"]
        first.set_priority(-1)
        assert waiting("cpu") == ["b", "c", "a"]
        assert first.ahead() == ["b", "c"]
    finally:
        for ticket in (first, second, third):
            ticket.release()


def test_bars_are_of_eighths() -> None:
    assert sparkline([0, 0.13, 0.5, 1, 7, -1], 10) == "▁▂▅██▁"
    assert sparkline([0, 0.5, 1], 2) == "▅█"


@pytest.mark.parametrize("size", SIZES)
async def test_the_screen_shows_it_and_moves_a_waiting_run(
    at_work: Workspace,
    make_app: Callable[..., WorkbenchApp],
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
) -> None:
    monkeypatch.setattr(machine, "read_gpus", lambda: (GPUS, {os.getpid(): 38_900_000_000}))
    async with make_app().run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press("M")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, MachineScreen) and "busy" in screen_text(pilot.app))
        shown = screen_text(pilot.app)
        assert "97% · 41.0 of 85.0 GB" in shown
        assert "61 °C · 402 of 700 W" in shown
        assert "38.9 GB" in shown
        await pilot.press("j", "plus")
        await wait_for(pilot, lambda: "+1" in screen_text(pilot.app))
        waits = next(entry for entry in pilot.app.screen._holders if entry.entry.status == "queued")  # type: ignore[attr-defined]
        assert read_notes(waits.entry.run).priority == 1
        await pilot.press("escape")
        await wait_for(pilot, lambda: not isinstance(pilot.app.screen, MachineScreen))


async def test_without_a_gpu_it_says_so(workspace: Workspace, make_app: Callable[..., WorkbenchApp]) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("M")
        await wait_for(pilot, lambda: "no NVIDIA GPU" in screen_text(pilot.app))
        assert "Nothing is at work" in screen_text(pilot.app)


async def test_scarce_memory_is_told_once_wherever_one_is(
    workspace: Workspace, make_app: Callable[..., WorkbenchApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.lookout.MEMORY_INTERVAL", 1.0)
    monkeypatch.setattr(machine, "scarcity", lambda: "Memory is nearly full: 0.1 of 8 GB are free.")
    app = make_app()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await wait_for(pilot, lambda: "nearly full" in screen_text(app))
        assert sum("nearly full" in note.title for note in app._notifications) == 1
