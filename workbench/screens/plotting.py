"""Keys of every screen with a plot: which metric, log axis, smoothing."""

from __future__ import annotations

from workbench.curves import Curves
from workbench.keys import bind
from workbench.picture import Group, Look, Picture, groups, picture

PLOT_KEYS = [
    bind("plot.next", "right_square_bracket", "metric(1)", "Next metric", "Plot the next metric.", show=False),
    bind("plot.previous", "left_square_bracket", "metric(-1)", "Metric", "Plot the metric before.", show=False),
    bind("plot.log", "y", "log_axis", "Log axis", "A logarithmic axis for the values."),
    bind("plot.smoother", "plus,equals_sign", "smoothing(1)", "Smoother", "Smooth the curve more.", show=False),
    bind("plot.rougher", "minus", "smoothing(-1)", "Rougher", "Smooth the curve less.", show=False),
]


class Plotting:
    """What a screen remembers of its plot. Mixed into screens, which draw when `plot_changed` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.look = Look()
        self.chosen = ""
        """Title of the chosen group; the first when a run has no such metric."""
        self.groups: list[Group] = []

    @property
    def group(self) -> Group | None:
        chosen = [group for group in self.groups if group.title == self.chosen]
        return next(iter(chosen + self.groups), None)

    def picture_of(self, curves: Curves, *, end: float = 0.0) -> Picture:
        """The chosen group of `curves`, as one wants to see it."""
        self.groups = groups(curves.metrics())
        group = self.group
        return picture(curves, group, self.look, end=end) if group else Picture()

    def plot_changed(self) -> None:
        """Another metric or look was chosen: draw. For screens to fill in."""

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
