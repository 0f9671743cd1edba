"""The start form of a run: what a spec says, a name, and the parents; a run launched from it or a mistake shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from stages.store.errors import UserError
from stages.store.names import check_name, named_after
from stages.store.rundir import RunDir
from stages.store.specs import spec_of
from stages.store.strict import Field
from workbench.display import content
from workbench.keys import bind
from workbench.runs import unique_name
from workbench.screens.base import PlaceScreen
from workbench.widgets.form import SpecForm


def heading(text: str, does: str = "starts it") -> Static:
    """The head of a form, with what enter does."""
    told = Content.assemble(text, ("   enter", "bold $accent"), (f" {does}", "not bold $text-muted"))
    return Static(told, classes="heading", id="title")


class LaunchScreen(PlaceScreen):
    """Subclasses say which stage, which fields stand before the spec's, and where to go when it is launched."""

    PLACE = "data"
    STAGE: ClassVar[str] = ""
    HEADING: ClassVar[str] = ""
    HIDDEN: ClassVar[tuple[str, ...]] = ()
    CSS_PATH = ["launch.tcss", "../widgets/form.tcss"]
    AUTO_FOCUS = "LineInput"
    BINDINGS = [
        bind("start.launch", "enter,ctrl+r", "launch", "Start", "Start it with these settings."),
        bind("start.back", "escape", "back", "Back", "Leave the form; nothing is started."),
    ]

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.given = dict(values or {})
        self._suggested = str(self.given.get("name") or "")
        """The name that the form gave, which follows the source until a person types another."""
        self._source = str(next(iter(self.given.get("sources", ())), self.given.get("source", "")))

    def compose_body(self) -> ComposeResult:
        yield heading(self.HEADING)
        extra = self.extra_fields()
        values = {**self.workbench.settings.stage(self.STAGE), **self.given}
        yield SpecForm(spec_of(self.STAGE), values, extra=extra, hidden=self.HIDDEN)
        yield Static(id="trouble", classes="error")

    def extra_fields(self) -> list[Field]:
        """Fields that are not in the spec: the name, the parents. May fill `given` with their first values."""
        raise NotImplementedError

    def check(self, settings: dict[str, Any], extra: dict[str, Any]) -> tuple[str, UserError] | None:
        """A mistake that the spec cannot know, with the field it stands at. May put values right."""
        try:
            check_name(extra["name"], "name")
        except UserError as error:
            return "name", error
        return None

    def name_after(self, source: str, taken: Iterable[str]) -> None:
        """Name what is made after its source where that is another one now, until a person names it."""
        name = self.query_one(SpecForm).rows["name"]
        before, self._source = self._source, source.strip()
        if self._source not in ("", before) and name.text == self._suggested:
            self._suggested = name.text = unique_name(taken, named_after(self._source))

    def launched(self, run: RunDir) -> None:
        """Called on the screen's thread when the run has been launched; the form is gone by then."""

    def show_made(self, kind: str, run: RunDir) -> None:
        """Where a form for Data leads: to Data when it was opened there, else to the run, which knows what is next."""
        if self.workbench.current_mode == "data":
            self.workbench.show_data(kind, run.spec().name)
        else:
            self.workbench.open_run(run)

    @on(SpecForm.Submitted)
    def action_launch(self) -> None:
        """Read the form; launch, or show what is wrong."""
        form = self.query_one(SpecForm)
        values = form.read()
        if values is None:
            return
        settings, extra = form.split(values)
        mistake = self.check(settings, extra)
        if mistake is not None:
            form.blame(*mistake)
            return
        self.query_one("#trouble", Static).update(Content())
        self._launch(settings, extra)

    def action_back(self) -> None:
        self.dismiss()

    def launch(self, settings: dict[str, Any], extra: dict[str, Any]) -> RunDir:
        """Launch the run, on a thread of its own. UserError is shown in the form."""
        from workbench.runs import launch

        width = self.workbench.settings.queue.cpu_width
        return launch(self.workbench.workspace, self.STAGE, extra.pop("name"), settings, cpu_width=width, **extra)

    @work(thread=True, exclusive=True, group="launch")
    def _launch(self, settings: dict[str, Any], extra: dict[str, Any]) -> None:
        try:
            run = self.launch(settings, extra)
        except UserError as error:
            self.app.call_from_thread(self._refused, error)
        else:
            self.app.call_from_thread(self._leave, run)

    def _refused(self, error: UserError) -> None:
        self.query_one("#trouble", Static).update(content(str(error)))

    def _leave(self, run: RunDir) -> None:
        self.dismiss()
        self.launched(run)
