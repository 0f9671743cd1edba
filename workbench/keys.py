"""Keys: every binding has an id by which `[keys]` in workbench.toml remaps it, and a sentence for the help."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping

from textual.binding import Binding
from textual.dom import DOMNode

from stages.store.errors import UserError
from stages.store.names import nearest


def bind(
    id: str,  # noqa: A002
    keys: str,
    action: str,
    label: str,
    sentence: str = "",
    *,
    show: bool = True,
    priority: bool = False,
) -> Binding:
    """A binding for BINDINGS. `id` is `place.verb`; `keys` are separated by commas; `sentence` is for the help.

    With `priority` it comes before the focused widget, and acts before the next key is read.
    """
    return Binding(keys, action, label, show=show, tooltip=sentence or label, id=id, priority=priority)


LIST_KEYS = [
    bind("list.down", "j", "cursor_down", "Down", "One entry down (also the arrow).", show=False),
    bind("list.up", "k", "cursor_up", "Up", "One entry up (also the arrow).", show=False),
    bind("list.first", "g", "first", "First", "To the first entry (also home).", show=False),
    bind("list.last", "G", "last", "Last", "To the last entry (also end).", show=False),
]
"""hjkl for widgets with a cursor, such as OptionList and DataTable."""

SCROLL_KEYS = [
    bind("scroll.down", "j", "scroll_down", "Down", "Scroll down (also the arrow).", show=False),
    bind("scroll.up", "k", "scroll_up", "Up", "Scroll up (also the arrow).", show=False),
    bind("scroll.home", "g", "scroll_home", "Top", "To the top (also home).", show=False),
    bind("scroll.end", "G", "scroll_end", "Bottom", "To the bottom (also end).", show=False),
]
"""hjkl for widgets that scroll."""


def known_bindings() -> dict[str, Binding]:
    """All bindings with an id, of the app and every screen and widget. Imports all of them: not for start-up."""
    found: dict[str, Binding] = {}
    modules = [importlib.import_module("workbench.app")]
    for package in ("workbench.screens", "workbench.widgets"):
        folder = importlib.import_module(package).__path__
        modules += [importlib.import_module(f"{package}.{module.name}") for module in pkgutil.iter_modules(folder)]
    for module in modules:
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, DOMNode) and cls.__module__.startswith("workbench."):
                for binding in cls.__dict__.get("BINDINGS", ()):
                    if isinstance(binding, Binding) and binding.id:
                        found[binding.id] = binding
    return found


def check_keymap(keymap: Mapping[str, str]) -> None:
    """Raise UserError for an id in `[keys]` that no binding has."""
    known = known_bindings()
    for id_ in keymap:
        if id_ not in known:
            raise UserError(f"[keys]: there is no binding {id_!r}.", nearest(id_, known))
