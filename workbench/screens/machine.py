"""The machine: what is in use, which run holds it, and who waits for what.

╭ CPU ───────────────────╮╭ memory ────────────────╮
│ 87 % of 16 cores       ││ 18.1 of 64.0 GB        │
│ ▁▂▅▇▇▇▆▇▇▇             ││ ▃▃▃▄▄▄▄▄▄▄             │
╰────────────────────────╯╰────────────────────────╯
╭ NVIDIA H100 ─────────────────────────────────────╮
│ 97% busy    41.2 of 80.0 GB  61 °C    402 of 700 W│
│ ▁▂▅▇▇▇▆▇    ▃▃▃▄▄▄▄▄         ▅▅▆▆▆    ▄▅▅▅▅▅▅     │
╰─── held by sft-2 38.9 GB · python (PID 4321) 2.1 GB╯
╭ runs ─────────────────────────────────────────────╮
│ sft-2   at work   1.0 cores   2.1 GB   38.9 GB    │
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from stages.store.errors import UserError
from stages.store.notes import LARGEST, read_notes, write_notes
from workbench.display import content, line, shortened
from workbench.keys import bind
from workbench.machine import Gpu, GpuUser, Holder, Machine, Reading
from workbench.screens.base import PlaceScreen
from workbench.widgets.row_table import RowTable
from workbench.wording import amount, standing

BARS = "▁▂▃▄▅▆▇█"
KEPT = 300
"""Looks that are kept, one a second: as many as the widest gauge shows."""
NO_GPU = "There is no NVIDIA GPU that this program can use: work runs on the CPU."
HOT = 100
"""Degrees Celsius of a full bar: GPUs slow themselves down below it."""
NAME = 24
"""Characters of the name of one who holds memory of a GPU."""


class Gauge(Static):
    """A title, a sentence, and the course of a share as a line of bars."""

    def __init__(self, *, id: str) -> None:  # noqa: A002  (the name that Textual gives it)
        super().__init__(id=id, classes="pane gauge")
        self._shares: deque[float] = deque(maxlen=KEPT)
        self._said = ""

    def show(self, title: str, said: str, share: float) -> None:
        """One more look: `share` lies between 0 and 1."""
        self._shares.append(share)
        self._said = said
        self.border_title = content(title)
        self.refresh(layout=False)

    def render(self) -> Content:
        bars = sparkline(self._shares, self.size.width)
        return Content.assemble(line(self._said), "\n", Content.styled(bars, "$accent"))


class GpuGauge(Static):
    """A GPU: what it does as four courses side by side, and on its border who holds its memory."""

    def __init__(self, *, id: str) -> None:  # noqa: A002  (the name that Textual gives it)
        super().__init__(id=id, classes="pane gauge")
        self._courses: list[deque[float]] = [deque(maxlen=KEPT) for _ in range(4)]
        self._said = [""] * 4

    def show(self, gpu: Gpu, users: Sequence[GpuUser]) -> None:
        """One more look. A course whose figure the driver does not give stays empty."""
        figures = figures_of(gpu)
        self._said = [said for said, _ in figures]
        for course, (_, share) in zip(self._courses, figures, strict=True):
            if share is not None:
                course.append(share)
        self.border_title, self.border_subtitle = line(gpu.name), line(held_by(users))
        self.refresh(layout=False)

    def render(self) -> Content:
        width = max(2, self.size.width // len(self._courses))
        said = "".join(f"{text[: width - 1]:<{width}}" for text in self._said)
        bars = "".join(f"{sparkline(course, width - 1):<{width}}" for course in self._courses)
        return Content.assemble(line(said), "\n", Content.styled(bars, "$accent"))


def figures_of(gpu: Gpu) -> list[tuple[str, float | None]]:
    """What a GPU does, in words and as a share: kernels, memory, temperature (of HOT), power (of what it may draw)."""
    busy = ("", None) if gpu.utilisation is None else (f"{gpu.utilisation:.0%} busy", gpu.utilisation)
    heat = ("", None) if gpu.temperature is None else (f"{gpu.temperature} °C", gpu.temperature / HOT)
    power: tuple[str, float | None] = ("", None)
    if gpu.watts is not None:
        most = f" of {gpu.limit:,.0f}" if gpu.limit else ""
        power = f"{gpu.watts:,.0f}{most} W", gpu.watts / gpu.limit if gpu.limit else None
    return [busy, (_of(gpu.used, gpu.total), gpu.used / max(gpu.total, 1)), heat, power]


def held_by(users: Sequence[GpuUser]) -> str:
    """Who holds the memory of a GPU, the largest first: runs by name, others by name and PID."""
    told = []
    for user in users:
        name = shortened(user.name, NAME)
        whose = name if user.pid is None else f"{name} (PID {user.pid})".strip()
        told.append(f"{whose} {amount(user.memory, 'bytes')}" if user.memory else whose)
    return f"held by {' · '.join(told)}" if told else ""


def sparkline(shares: Iterable[float], width: int) -> str:
    """The last `width` shares, each a bar of one to eight eighths; a share is cut to 0 … 1."""
    return "".join(BARS[min(7, int(8 * max(0.0, share)))] for share in list(shares)[-max(1, width) :])


class MachineScreen(PlaceScreen):
    """Looked at once a second, while it is on top."""

    PLACE = "runs"
    CSS_PATH = "machine.tcss"
    AUTO_FOCUS = "RowTable"
    BINDINGS = [
        bind("machine.back", "escape", "back", "Back", "To where you were."),
        bind("machine.sooner", "plus,equals_sign", "priority(1)", "Sooner", "A waiting run comes before others."),
        bind(
            "machine.doctor", "d", "app.doctor", "Doctor", "Is this machine, and this installation, fit for the work?"
        ),
        bind("machine.later", "minus", "priority(-1)", "Later", "A waiting run lets others go first."),
    ]

    @dataclass
    class Looked(Message):
        """A thread has looked at the machine."""

        reading: Reading

    def __init__(self) -> None:
        super().__init__()
        self._machine: Machine | None = None
        self._holders: list[Holder] = []

    def compose_body(self) -> ComposeResult:
        with Horizontal(classes="row"):
            yield Gauge(id="cpu")
            yield Gauge(id="memory")
            yield Gauge(id="disk")
        yield Vertical(id="gpus")
        yield Static(id="machine-told")
        with Vertical(id="machine-runs", classes="pane"):
            yield RowTable()
            yield Static("Nothing is at work, and nothing waits.", id="machine-idle", classes="muted")

    def on_mount(self) -> None:
        self.query_one("#machine-runs").border_title = "runs at work and waiting"
        self.show_trail("machine")
        self.poll(1.0, self._look)

    def action_back(self) -> None:
        """Leave."""
        self.dismiss(None)

    def action_priority(self, by: int) -> None:
        """Move a waiting run in its queue."""
        holder = self._chosen()
        if holder is None:
            return
        entry = holder.entry
        if entry.status != "queued":
            self.notify(f"{entry.spec.name} is at work already.")
            return
        try:
            notes = read_notes(entry.run)
            priority = max(-LARGEST, min(LARGEST, notes.priority + by))
            write_notes(entry.run, msgspec.structs.replace(notes, priority=priority))
        except UserError as error:
            self.workbench.show_error(error)
        self._look()

    @on(RowTable.Opened)
    def _opened(self) -> None:
        if holder := self._chosen():
            self.dismiss(None)
            self.workbench.open_run(holder.entry.run)

    def _chosen(self) -> Holder | None:
        key = self.query_one(RowTable).chosen
        return next((holder for holder in self._holders if holder.entry.run.id == key), None)

    def _look(self) -> None:
        if not self.busy_with("look"):
            self._look_at_it()

    @work(thread=True, group="look")
    def _look_at_it(self) -> None:
        self._machine = self._machine or Machine(self.workbench.workspace)
        self.post_message(self.Looked(self._machine.look()))

    @on(Looked)
    async def _looked(self, event: Looked) -> None:
        reading = event.reading
        self._holders = reading.holders
        used, total = reading.memory_used, reading.memory_total
        self.query_one("#cpu", Gauge).show("CPU", f"{reading.cpu:.0%} of {reading.cores} cores", reading.cpu)
        self.query_one("#memory", Gauge).show("memory", _of(used, total), used / total)
        filled, disk = reading.disk_total - reading.disk_free, reading.disk_total
        self.query_one("#disk", Gauge).show("disk of the workspace", _of(filled, disk), filled / disk)
        await self._show_gpus(reading.gpus, reading.gpu_users)
        told = reading.scarce() or ("" if reading.gpus else NO_GPU)
        style = "$text-error" if reading.scarce() else "$text-muted"
        self.query_one("#machine-told", Static).update(content(told, style))
        self._show_holders(reading.holders, bool(reading.gpus))

    async def _show_gpus(self, gpus: Sequence[Gpu], users: Sequence[Sequence[GpuUser]]) -> None:
        box = self.query_one("#gpus", Vertical)
        if len(box.children) != len(gpus):
            await box.remove_children()
            await box.mount_all([GpuGauge(id=f"gpu-{number}") for number in range(len(gpus))])
        gauges = box.query(GpuGauge)  # none where the screen was left meanwhile
        for gpu, gauge, using in zip(gpus, gauges, users or repeat(()), strict=False):
            gauge.show(gpu, using)

    def _show_holders(self, holders: Sequence[Holder], with_gpu: bool) -> None:
        columns = ["run", "stage", "stands", "cores", "memory", *(["GPU memory"] if with_gpu else []), "priority"]
        rows = []
        for holder in holders:
            entry = holder.entry
            waits = entry.status == "queued"
            stands = f"waiting, {holder.place} before it" if waits else standing(entry.state, entry.status)
            held = [amount(holder.gpu_memory, "bytes")] if with_gpu else []
            urgent = f"{entry.notes.priority:+}" if entry.notes.priority else "0"
            cells = [entry.spec.name, entry.spec.stage, stands, f"{holder.cores:.2f}", amount(holder.memory, "bytes")]
            rows.append((entry.run.id, [*cells, *held, urgent]))
        table = self.query_one(RowTable)
        table.show(columns, rows)
        table.display = bool(rows)
        self.query_one("#machine-idle").display = not rows


def _of(used: float, total: float) -> str:
    return f"{used / 1e9:.1f} of {total / 1e9:.1f} GB"
