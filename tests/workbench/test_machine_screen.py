"""The machine at a glance: what is in use, who holds it, who waits."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from stages.store.locks import try_lock
from stages.store.notes import read_notes
from stages.store.queue import Ticket, waiting
from stages.store.workspace import Workspace
from tests.workbench.conftest import add_run, screen_text, settled, wait_for
from workbench import machine
from workbench.app import WorkbenchApp
from workbench.machine import Gpu, GpuProcess, GpuUser, Machine, Reading, gpu_users, read_gpus
from workbench.screens.machine import GpuGauge, MachineScreen, figures_of, held_by, sparkline

SIZES = [(120, 40), (80, 24)]
HELD = (GpuProcess(os.getpid(), 38_900_000_000), GpuProcess(2**22 + 1, 2_100_000_000))
"""By this process, and by one that cannot be: PIDs end at 2^22."""
GPUS = [Gpu("NVIDIA H100 80GB HBM3", "GPU-1", 41 * 10**9, 85 * 10**9, 0.97, 61, 402.0, 700.0, HELD)]


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


def test_who_else_holds_a_gpu_is_told_by_name_and_pid() -> None:
    mine, gone = GpuProcess(os.getpid(), 10**9), GpuProcess(2**22 + 1, 0)
    mine_too = GpuUser("\x1b]0;mine", 3 * 10**9)
    users = gpu_users(GPUS[0]._replace(processes=(gone, mine)), {})
    assert users == [GpuUser(psutil.Process().name(), 10**9, os.getpid()), GpuUser("", 0, 2**22 + 1)]
    told = held_by([mine_too, *users])
    assert told == f"held by ␛]0;mine 3.0 GB · {users[0].name} (PID {os.getpid()}) 1.0 GB · (PID {2**22 + 1})"
    assert held_by([]) == ""


def test_the_driver_is_asked_who_computes_and_who_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does both counts once; what the driver does not serve stays open."""

    class NVMLError(Exception):
        pass

    def refuse(*_: Any) -> None:
        raise NVMLError

    def process(pid: int, memory: int | None) -> SimpleNamespace:
        return SimpleNamespace(pid=pid, usedGpuMemory=memory)

    asked = {
        "Count": 1,
        "HandleByIndex": "handle",
        "MemoryInfo": SimpleNamespace(used=5, total=10),
        "Name": "a card",
        "UUID": "GPU-1",
        "ComputeRunningProcesses": [process(7, 3), process(8, None)],
        "GraphicsRunningProcesses": [process(7, 2), process(9, 1)],
    }
    refused = ("UtilizationRates", "PowerUsage", "EnforcedPowerLimit", "Temperature")
    driver: dict[str, Any] = {f"nvmlDeviceGet{name}": lambda *_, value=value: value for name, value in asked.items()}
    driver |= {f"nvmlDeviceGet{name}": refuse for name in refused}
    driver |= {"NVMLError": NVMLError, "nvmlInit": lambda: None, "NVML_TEMPERATURE_GPU": 0}
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(**driver))
    (found,) = read_gpus()
    assert found.processes == (GpuProcess(7, 3), GpuProcess(8, 0), GpuProcess(9, 1))
    assert (found.utilisation, found.temperature, found.watts, found.limit) == (None, None, None, None)
    assert figures_of(found) == [("", None), ("0.0 of 0.0 GB", 0.5), ("", None), ("", None)]


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
    monkeypatch.setattr(machine, "read_gpus", lambda: GPUS)
    async with make_app().run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press("M")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, MachineScreen) and "busy" in screen_text(pilot.app))
        shown = screen_text(pilot.app)
        for figure in ("97% busy", "41.0 of 85.0 GB", "61 °C", "402 of 700 W"):
            assert figure in shown
        assert "held by busy 38.9 GB · (PID 4194305) 2.1 GB" in shown
        courses = pilot.app.screen.query_one(GpuGauge).render().plain.splitlines()[1].split()
        assert [course[-1] for course in courses] == ["█", "▄", "▅", "▅"], "of kernels, memory, temperature, power"
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
