"""The starter life while the app is open: it is taken a step further whenever a run of it has ended."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from stages.store.errors import UserError

if TYPE_CHECKING:
    from textual.notifications import SeverityLevel

    from workbench.app import WorkbenchApp
    from workbench.life.starter import StarterLife

INTERVAL = 1.0
"""Seconds between looks at the run that it waits for."""


class StarterAtWork:
    """One starter life at most, looked at in a thread; what becomes of it is told by toasts."""

    def __init__(self, app: WorkbenchApp) -> None:
        self._app = app
        self._life: StarterLife | None = None

    @property
    def going(self) -> bool:
        """Whether there is one that has neither ended nor halted."""
        return self._life is not None

    def begin(self, dataset: str | None = None) -> None:
        """Run the starter life, or go on with that of `dataset`; a step that failed is tried again."""
        from workbench.life.starter import StarterLife

        self._life = StarterLife(self._app.workspace, self._app.settings, dataset)
        self._go_on(self._life, again=True)

    def _go_on(self, life: StarterLife, *, again: bool = False) -> None:
        advance = partial(self._advance, life, again=again)
        self._app.run_worker(advance, group="starter", thread=True, exclusive=True)

    def _advance(self, life: StarterLife, *, again: bool) -> None:
        app = self._app
        try:
            advance = life.advance(again=again)
        except UserError as error:
            app.call_from_thread(self._end, error.title, error.hint, "error")
            return
        step = advance.step
        if advance.outcome in ("launched", "waiting"):
            if advance.outcome == "launched" and app.current_mode != "home":  # Home shows it
                app.call_from_thread(app.notify, f"The starter life: {step.title} is at work.")
            app.call_from_thread(app.set_timer, INTERVAL, partial(self._go_on, life))
        elif advance.outcome == "done":
            app.call_from_thread(self._end, f"{step.name} is trained.", "C chats with it.", "information")
        else:
            title = f"The starter life halted at {step.title}."
            app.call_from_thread(self._end, title, f"{step.detail}. On Home, s tries again.", "warning")

    def _end(self, title: str, message: str, severity: SeverityLevel) -> None:
        self._life = None
        self._app.notify(message, title=title, severity=severity, timeout=10)
