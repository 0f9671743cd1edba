"""What a person is told wherever in the app they are: runs that have ended, and memory that runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp
    from workbench.board.endings import Endings

ENDINGS_INTERVAL = 3.0
"""Seconds between looks for runs that have ended."""
MEMORY_INTERVAL = 10.0
"""Seconds between looks at how much memory is left."""


class Lookout:
    """Looks now and then, each time in a thread, and tells by toasts."""

    def __init__(self, app: WorkbenchApp) -> None:
        self._app = app
        self.endings: Endings | None = None
        """What has seen the runs of the workspace; None before the first look."""
        self._scarce = ""

    def begin(self) -> None:
        """Look from now on, until the app ends."""
        self._every(ENDINGS_INTERVAL, "endings", self._look_for_endings)
        self._every(MEMORY_INTERVAL, "memory", self._look_at_memory)

    def _every(self, seconds: float, group: str, look: Callable[[], None]) -> None:
        def begin_look() -> None:
            if not any(worker.group == group and worker.is_running for worker in self._app.workers):
                self._app.run_worker(look, group=group, thread=True)

        self._app.set_interval(seconds, begin_look)

    def _look_for_endings(self) -> None:
        """Tell of runs that have ended by themselves."""
        from workbench.board.endings import Endings

        self.endings = self.endings or Endings(self._app.workspace)
        if ended := self.endings.look():
            self._app.call_from_thread(self._app.tell_of_endings, ended)

    def _look_at_memory(self) -> None:
        """Warn once before memory runs out, and again only after there was enough."""
        from workbench.machine import scarcity

        told, self._scarce = self._scarce, scarcity()
        if self._scarce and not told:
            hint = "M shows which run holds what. A run that is paused gives its memory back."
            self._app.call_from_thread(self._app.notify, hint, title=self._scarce, severity="warning", timeout=20)
