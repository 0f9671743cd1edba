"""What the next screens need, imported before they are asked for: the first key to a place would wait for it."""

from __future__ import annotations

import importlib
import threading
import time

SCREENS = ("data", "build", "runs", "run", "records", "tune", "start", "rank", "judge", "chat")
"""The screens that most people open, in the order in which a life needs them."""
MODULES = (*(f"workbench.screens.{screen}" for screen in SCREENS), "workbench.plots.plot")
PAUSE = 0.05
"""Seconds between two imports, in which keys are worked off."""


def warm_up() -> None:
    """Import them beside the app. It takes no part in anything else, so it may be cut off at any moment."""
    threading.Thread(target=_import_all, name="warm-up", daemon=True).start()


def _import_all() -> None:
    for module in MODULES:
        importlib.import_module(module)
        time.sleep(PAUSE)
