"""Which runs are marked to be drawn together, and which marker and colour each has."""

from __future__ import annotations

from collections.abc import Container

from workbench.themes import MARKERS


class Marks:
    """Places among the series by run id. A run keeps its place until its mark is taken away."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def toggle(self, run_id: str) -> bool:
        """Mark a run, or take its mark away; False when there is no marker left."""
        if self.places.pop(run_id, None) is not None:
            return True
        free = [place for place in range(len(MARKERS)) if place not in self.places.values()]
        if free:
            self.places[run_id] = free[0]
        return bool(free)

    def clear(self) -> None:
        """Take all marks away."""
        self.places.clear()

    def keep(self, run_ids: Container[str]) -> None:
        """Forget runs that are gone."""
        self.places = {run_id: place for run_id, place in self.places.items() if run_id in run_ids}
