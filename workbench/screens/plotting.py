"""Keys of every screen with a plot: which metric, against what, which range of it, log axis, smoothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from textual.widget import Widget

from stages.store.errors import UserError
from workbench.display import path_lines
from workbench.keys import bind
from workbench.plots.curves import Track
from workbench.plots.picture import Group, Look, Picture, Shown, apart, groups, overlay, picture
from workbench.plots.scope import WHOLE, Scope, example, parse_range, range_text
from workbench.screens.question import Ask
from workbench.widgets.loss_plot import LossPlot

if TYPE_CHECKING:
    from textual.screen import Screen

    from workbench.app import WorkbenchApp

    Base = Screen[None]
else:
    Base = object

PLOT_KEYS = [
    bind("plot.next", "right_square_bracket", "metric(1)", "Next metric", "Plot the next metric.", show=False),
    bind("plot.previous", "left_square_bracket", "metric(-1)", "Metric", "Plot the metric before.", show=False),
    bind("plot.log", "y", "log_axis", "Log axis", "A logarithmic axis for the values."),
    bind("plot.smoother", "plus,equals_sign", "smoothing(1)", "Smoother", "Smooth the curve more.", show=False),
    bind("plot.rougher", "minus", "smoothing(-1)", "Rougher", "Smooth the curve less.", show=False),
    bind(
        "plot.against",
        "x",
        "against",
        "Against",
        "Plot against steps, tokens, time or compute; a lineage in order.",
        show=False,
    ),
    bind("plot.range", "z", "range", "Range", "Show a range: 1000-5000, 2k-, 5:00-1:30:00.", show=False),
    bind("plot.whole", "Z", "whole", "Whole", "Show all of the curve again.", show=False),
    bind("plot.in", "i", "zoom(0.5)", "Zoom in", "Show half as much, about the middle.", show=False),
    bind("plot.out", "o", "zoom(2)", "Zoom out", "Show twice as much.", show=False),
    bind("plot.save", "P", "save_plot", "Picture", "Save the plot as an SVG picture.", show=False),
    bind("plot.left", "left,less_than_sign", "pan(-0.25)", "Left", "When zoomed, further left.", show=False),
    bind("plot.right", "right,greater_than_sign", "pan(0.25)", "Right", "When zoomed, further right.", show=False),
]


NOTHING_LOGGED = {
    "tokens": "no tokens were logged",
    "time": "no time was logged",
    "compute": "no compute was logged: of training alone is it counted, and by this version",
}
"""What stands in place of a plot, by axis."""


class Plotting(Base):
    """What a screen remembers of its plot. Mixed into screens, which draw when `plot_changed` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.look = Look()
        self.chosen = ""
        """Title of the chosen group, or the chosen metric; the first when a run has no such thing."""
        self.groups: list[Group] = []

    @property
    def group(self) -> Group | None:
        """The group that is plotted: the chosen one, or the one nearest to it among one run or several."""
        return min(self.groups, key=lambda group: _distance(group, self.chosen), default=None)

    def picture_of(self, track: Track, *, end: float = 0.0) -> Picture:
        """The chosen group of one run, as one wants to see it."""
        self.groups = groups(track.whole.metrics())
        group = self.group
        return self._named(picture(track, group, self.look, end=end)) if group else Picture()

    def picture_of_all(self, runs: Sequence[Shown], *, end: float = 0.0) -> Picture:
        """The chosen metric of several runs."""
        metrics = [name for run in runs for name in run.track.whole.metrics()]
        self.groups = apart(list(dict.fromkeys(metrics)))
        group = self.group
        return self._named(overlay(runs, group.title, self.look, end=end)) if group else Picture()

    def show_picture(self, shown: Picture) -> None:
        """Draw it; how it is looked at stands on the border around the plot."""
        plot = self.query_one(LossPlot)
        plot.show(shown)
        if isinstance(plot.parent, Widget):
            set_subtitle(plot.parent, shown.note)

    def plot_changed(self) -> None:
        """Another metric or look was chosen: draw. For screens to fill in."""

    def tracks(self) -> list[Track]:
        """The tracks of the runs on the plot. For screens to fill in."""
        return []

    def action_metric(self, by: int) -> None:
        """Choose the group of metrics `by` places further, around the end."""
        if self.groups and (group := self.group):
            self.chosen = self.groups[(self.groups.index(group) + by) % len(self.groups)].title
            self.plot_changed()

    def action_log_axis(self) -> None:
        self.look = self.look.toggled_log()
        self.plot_changed()

    def action_smoothing(self, by: int) -> None:
        self.look = self.look.smoother(by)
        self.plot_changed()

    def action_against(self) -> None:
        """Draw against the next of steps, tokens, time and compute that the runs on the plot have."""
        scope = self.look.scope.against_next()
        while scope.axis != "steps" and not any(track.whole.has(scope.axis) for track in self.tracks()):
            scope = scope.against_next()
        self._show_scope(scope)

    def action_save_plot(self) -> None:
        """Write the plot as it is to a file, and say where."""
        from stages.store.files import write_atomic
        from workbench.plots.svg import legible_name, svg_of

        app = cast("WorkbenchApp", self.app)
        plot = self.query_one(LossPlot)
        shown = plot.picture
        if plot.extent is None:
            self.notify(f"There is nothing on the plot to save: {shown.empty or 'no curve'}.")
            return
        names = [legible_name([key.name]) for key in shown.keys[:2]]
        stamp = time.strftime("%Y%m%d-%H%M%S")
        path = app.workspace.root / "plots" / f"{stamp}-{legible_name([shown.title or 'plot', *names])}.svg"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, svg_of(shown).encode())
        except OSError as error:
            app.show_error(UserError(f"{path} cannot be written: {error.strerror}."))
        except UserError as error:
            app.show_error(error)
        else:
            self.notify(path_lines(path), title="The plot is saved.", timeout=10)

    def action_range(self) -> None:
        """Ask for a range and show it."""
        axis, range_ = self.look.scope
        ask = Ask(
            f"Range of {axis}",
            example(axis),
            range_text(range_, axis),
            lambda text: parse_range(text, axis),
        )
        self.app.push_screen(ask, self._answered)

    def action_whole(self) -> None:
        """Show all of the curve."""
        self._show_scope(self.look.scope._replace(range=WHOLE))

    def action_zoom(self, factor: float) -> None:
        """Show `factor` times as much; all of it when that is as much as there is."""
        extent = self.query_one(LossPlot).extent
        if extent is None or (factor > 1 and self.look.scope.range == WHOLE):
            return
        scope = self.look.scope.zoomed(factor, extent)
        self._show_scope(scope if self._within_data(scope) else scope._replace(range=WHOLE))

    def action_pan(self, share: float) -> None:
        """Move by a share of what is shown."""
        extent = self.query_one(LossPlot).extent
        if extent is not None and self._within_data(moved := self.look.scope.panned(share, extent)):
            self._show_scope(moved)

    def _answered(self, text: str | None) -> None:
        if text is not None:
            axis = self.look.scope.axis
            self._show_scope(Scope(axis, parse_range(text, axis)))

    def _show_scope(self, scope: Scope) -> None:
        if scope != self.look.scope:
            self.look = replace(self.look, scope=scope)
            self.plot_changed()

    def _within_data(self, scope: Scope) -> bool:
        """Whether a range shows some of the data, and leaves some out."""
        ends = [ends for track in self.tracks() if (ends := track.whole.ends(scope.axis))]
        left, right = min((a for a, _ in ends), default=0.0), max((b for _, b in ends), default=0.0)
        first, last = scope.range
        return (
            first is not None and last is not None and first < right and last > left and (first > left or last < right)
        )

    def _named(self, shown: Picture) -> Picture:
        axis, range_ = self.look.scope
        if range_ != WHOLE:
            shown.empty = f"nothing in {range_text(range_, axis)}; Z shows all"
        elif axis != "steps":
            shown.empty = NOTHING_LOGGED[axis]
        return shown


def set_subtitle(pane: Widget, text: str) -> None:
    """Write on the lower border of a pane. Textual paints the whole pane even when the text is the same."""
    if (pane.border_subtitle or "") != text:
        pane.border_subtitle = text


def _distance(group: Group, chosen: str) -> int:
    """How far a group is from what was chosen: itself, its member, the same measure, anything."""
    if group.title == chosen:
        return 0
    if chosen in group.metrics:
        return 1
    return 2 if chosen and group.title.endswith(f"/{chosen}") else 3
