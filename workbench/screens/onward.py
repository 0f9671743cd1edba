"""What comes next, for screens of runs: a line that says it once the run has ended, and the key that goes there.

After a run that has finished that is a step of the life; one that ended before goes on with its work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import work
from textual.app import ComposeResult
from textual.content import Content
from textual.css.query import NoMatches
from textual.widgets import Static

from workbench.board.run_board import Entry
from workbench.board.survey import Survey
from workbench.display import line
from workbench.life.onward import LEADING, after_run, label
from workbench.life.steps import Step
from workbench.screens.steering import RESUMABLE, Steering

if TYPE_CHECKING:
    from workbench.screens.base import PlaceScreen

    class Base(Steering, PlaceScreen):
        """What it is mixed into."""
else:
    Base = object


def onward_line(step: Step) -> Content:
    """The line of a step."""
    return enter_line(label(step))


def enter_line(told: str) -> Content:
    """The key with what it does, as a button that has the focus. `told` has foreign text in it."""
    return Content.assemble((" enter ", "bold $accent reverse"), line(f" {told} ", "bold $primary reverse"))


def going_on(entry: Entry) -> str:
    """What enter does about a run that ended before its work was done."""
    last = entry.state.last_checkpoint
    keeps = entry.spec.stage == "sample"  # what it has written
    where = f" from {last.replace('-', ' ')}" if last else "" if keeps else " from its beginning"
    return f"Go on with {entry.spec.name}{where}"


class NextStep(Static):
    """The line. A click on it does what its key does."""

    async def on_click(self) -> None:
        await self.run_action("screen.onward")


class Onward(Base):
    """Mixed into screens of runs."""

    _onward: Step | None = None

    def run_in_view(self) -> Entry | None:
        """The run that something comes after. For screens to fill in."""
        raise NotImplementedError

    def compose_foot(self) -> ComposeResult:
        """The line, which stands above the bar of keys."""
        onward = NextStep(id="onward")
        onward.display = False
        yield onward

    def on_screen_resume(self) -> None:
        self.look_onward()

    def look_onward(self) -> None:
        """Find out what comes next, when the run has finished."""
        entry = self.run_in_view()
        if entry is not None and entry.status == "finished" and entry.spec.stage in LEADING:
            self._find_onward(entry)
        else:
            self._show_onward(None)
            if entry is not None and entry.status in RESUMABLE and not self.has_class("-low"):  # the state says it too
                self._show_line(enter_line(going_on(entry)))

    @work(thread=True, exclusive=True, group="onward")
    def _find_onward(self, entry: Entry) -> None:
        step = after_run(Survey(self.workbench.workspace).look(), entry)
        self.app.call_from_thread(self._show_onward, step)

    def _show_onward(self, step: Step | None) -> None:
        self._onward = step
        self._show_line(onward_line(step) if step is not None else None)

    def _show_line(self, told: Content | None) -> None:
        try:
            shown = self.query_one("#onward", Static)
        except NoMatches:
            return  # the screen is gone
        shown.display = told is not None
        if told is not None:
            shown.update(told)

    def action_onward(self) -> None:
        """Go to what comes next, or on with a run that ended before."""
        entry = self.run_in_view()
        if self._onward is not None:
            self.workbench.open_step(self._onward)
        elif entry is not None and entry.status in RESUMABLE:
            self.action_resume()
        elif entry is not None and entry.live and entry.spec.stage in LEADING:
            self.notify(f"{entry.spec.name} is {entry.status}: enter goes on once it has finished.")
