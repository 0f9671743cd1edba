"""The lamps of the cockpit: a line for each gauge, and a sentence for each that has left its band."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.style import Style
from textual.widgets import Static

from workbench.keys import SCROLL_KEYS
from workbench.plots.gauges import SPARK, Reading
from workbench.widgets.side_by_side import flowed

WELL, ILL = "●", "▲"
"""A lamp within its band, and one that has left it: told apart without colours."""


class Lamps(VerticalScroll, can_focus=True):
    """All gauges of one run. A click on one plots it."""

    BINDINGS = [*SCROLL_KEYS]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (the name that Textual gives it)
        super().__init__(id=id)
        self._readings: Sequence[Reading] = ()

    def on_resize(self) -> None:
        if self._readings:
            self.show(self._readings)

    def compose(self) -> ComposeResult:
        yield Static(id="lamps-text", markup=False)

    def show(self, readings: Sequence[Reading]) -> None:
        """Show these readings: in a column, or one after the other where the screen is narrow."""
        self._readings = readings
        narrow = self.screen.has_class("-narrow")
        shown = _rows(readings, self.content_size.width) if narrow else _column(readings)
        alarms = [
            Content.styled(f"{ILL} {reading.sentence}", "$text-warning") for reading in readings if reading.verdict
        ]
        parts = [shown, *alarms] if narrow else [shown, *([Content()] if alarms else []), *alarms]
        text = Content("\n").join(parts) if readings else Content.styled("No figures yet.", "$text-muted")
        self.query_one("#lamps-text", Static).update(text)


def _column(readings: Sequence[Reading]) -> Content:
    title = max((len(reading.gauge.title) for reading in readings), default=0)
    value = max((len(reading.text) for reading in readings), default=0)
    lines = []
    for reading in readings:
        name = f" {reading.gauge.title:<{title}}  "
        figure = Content.styled(f"{reading.text:>{value}}", "bold")
        curve = Content.styled(f"  {reading.spark:<{SPARK}}", "$primary")
        band = Content.styled(f"  {reading.bounds}", "$text-muted")
        lines.append(_clickable(Content.assemble(_lamp(reading), name, figure, curve, band), reading))
    return Content("\n").join(lines)


def _rows(readings: Sequence[Reading], width: int) -> Content:
    """One after the other; no lamp is parted from its figure at the end of a line."""
    return flowed(
        (
            _clickable(Content.assemble(_lamp(each), f" {each.gauge.title} ", (each.text, "bold")), each)
            for each in readings
        ),
        width,
    )


def _lamp(reading: Reading) -> Content:
    return Content.styled(ILL, "bold $text-warning") if reading.verdict else Content.styled(WELL, "$text-success")


def _clickable(text: Content, reading: Reading) -> Content:
    return text.stylize_before(Style.from_meta({"group": reading.gauge.metric}))
