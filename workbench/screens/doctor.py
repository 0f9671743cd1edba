"""The doctor: is this machine, and this installation, fit for the work? What `workbench doctor` prints, as it is found.

╭ doctor ─────────────────────────── all is well ╮
│ software                                       │
│  ok   python      3.11.9 at /…/bin/python      │
│  warn triton      …                            │
│       what to do about it                      │
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from workbench.copying import copy_out
from workbench.display import content, line
from workbench.doctor import (
    MARKS,
    PATIENCE,
    Finding,
    at_once,
    machine,
    machine_answer,
    machine_question,
    not_started,
    printed,
    terminal_of,
)
from workbench.keys import SCROLL_KEYS, bind
from workbench.screens.base import PlaceScreen
from workbench.widgets.filter_field import NO_MATCH, Filterable

STYLES = {"ok": "$text-success", "warning": "bold $text-warning", "broken": "bold $text-error"}
NAME = 20
"""Cells of a finding's name, where there is room beside it."""
LOOKING = "looking at torch, the GPUs and the kernels …"


class Report(VerticalScroll, Filterable, can_focus=True):
    HELP_TITLE = "The report"
    BINDINGS = [*SCROLL_KEYS]


class DoctorScreen(PlaceScreen):
    """Looks once; `r` looks again. What imports torch is a child process, which ends when one leaves."""

    PLACE = "home"
    CSS_PATH = "doctor.tcss"
    AUTO_FOCUS = "Report"
    BINDINGS = [
        bind("doctor.back", "escape", "back", "Back", "To where you were."),
        bind("doctor.again", "r", "again", "Look again", "Examine everything anew."),
        bind("doctor.copy", "Y", "copy_report", "Copy", "Copy the report, to show it to somebody."),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._findings: list[Finding] = []
        self._looking = True

    def compose_body(self) -> ComposeResult:
        with Vertical(id="doctor", classes="pane") as pane:
            pane.border_title = "doctor"
            with Report():
                yield Static(id="findings")

    def on_mount(self) -> None:
        self.show_trail("doctor")
        self._examine()

    def action_back(self) -> None:
        """Leave."""
        self.dismiss(None)

    def action_again(self) -> None:
        """Look anew, unless that is going on."""
        if not self._looking:
            self._examine()

    def action_copy_report(self) -> None:
        """Copy the report as `workbench doctor` prints it."""
        copy_out(self.app, "".join(f"{row}\n" for finding in self._findings for row in printed(finding)))

    @work(exclusive=True, group="examine")
    async def _examine(self) -> None:
        self._findings, self._looking = [], True
        self._show()
        size = self.app.size
        encoding = getattr(sys.__stdout__, "encoding", None) or "unknown"  # the app has taken stdout's place
        told = list(terminal_of(size.width, size.height, encoding))
        self._findings += await asyncio.to_thread(lambda: list(at_once(self.workbench.workspace, told)))
        self._show()
        self._findings += machine(await ask())
        self._looking = False
        self._show()

    @property
    def _verdict(self) -> str:
        broken, warned = (sum(one.status == status for one in self._findings) for status in ("broken", "warning"))
        parts = [f"{broken} broken" if broken else "", f"{warned} to look at" if warned else ""]
        if self._looking:
            parts.append(LOOKING)
        return " · ".join(filter(None, parts)) or "all is well"

    def on_report_filtered(self) -> None:
        self._show()

    def on_resize(self) -> None:
        self._show()

    def _show(self) -> None:
        report = self.query_one(Report)
        passing = [one for one in self._findings if report.passes(f"{one.kind} {one.name} {one.status} {one.value}")]
        rows = list(_rows(passing, wide=self.size.width >= 100))
        self.query_one("#findings", Static).update(Content("\n").join(rows) if rows else Content(self._nothing()))
        self.query_one("#doctor").border_subtitle = self._verdict

    def _nothing(self) -> str:
        return NO_MATCH if self._findings else "…"


async def ask() -> dict[str, Any]:
    """What stages.machine finds out, in a child process that ends with whoever asks."""
    command, environment = machine_question()
    pipe = asyncio.subprocess.PIPE
    try:
        child = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=pipe, stderr=pipe, stdin=asyncio.subprocess.DEVNULL
        )
    except OSError as error:
        return {"error": not_started(error)}
    try:
        out, err = await asyncio.wait_for(child.communicate(), PATIENCE)
    except TimeoutError:
        return {"error": f"it did not answer within {PATIENCE:.0f} s"}
    finally:
        if child.returncode is None:
            child.kill()
    return machine_answer(child.returncode or 0, out, err)


def _rows(findings: Sequence[Finding], *, wide: bool) -> Iterator[Content]:
    kind, kinds = "", list(dict.fromkeys(finding.kind for finding in findings))
    for finding in sorted(findings, key=lambda one: kinds.index(one.kind)):
        if finding.kind != kind:
            if kind:
                yield Content()
            kind = finding.kind
            yield line(kind, "bold $primary")
        name = line(finding.name)
        gap = " " * (NAME - name.cell_length) if wide and name.cell_length < NAME else "  "
        mark = Content.styled(f" {MARKS[finding.status]} ", STYLES[finding.status])
        yield Content.assemble(mark, " ", name, gap, line(finding.value, "$text-muted"))
        if finding.hint:
            yield Content.assemble("       ", content(finding.hint))
