"""The keys of where one is: of the focused widget, of the screen, and of the app."""

from __future__ import annotations

import re
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ActiveBinding, Screen
from textual.widget import Widget
from textual.widgets import Static

from workbench.display import displayable_line, line
from workbench.keys import SCROLL_KEYS, bind
from workbench.screens.base import FILTER_KEY, Dialog
from workbench.widgets.filter_field import NO_MATCH, Filterable

WIDE = 100
"""Columns from which ids have room beside the sentences."""
KEYS = 12
"""Cells for the keys before a sentence."""

FOOT = "/ filters · esc closes · [keys] in workbench.toml changes a key by its id"


class HelpText(VerticalScroll, Filterable, can_focus=True):
    BINDINGS = [*SCROLL_KEYS]


class HelpScreen(Dialog[None]):
    """Lists bindings under a heading for the widget, the screen and the app they belong to."""

    CSS_PATH = "help.tcss"
    BINDINGS = [bind("help.close", "question_mark,q", "dismiss", "Close", "Close the help.")]

    def __init__(self, groups: list[tuple[str, list[ActiveBinding]]]) -> None:
        super().__init__()
        self._groups = groups

    @classmethod
    def of(cls, screen: Screen[Any]) -> HelpScreen:
        """The help for what is active on `screen`."""
        titles: dict[str, list[ActiveBinding]] = {}
        for active in screen.active_bindings.values():
            node = active.node
            if active.binding.id == FILTER_KEY.id and getattr(screen, "filterable", None) is None:
                continue
            if (not active.binding.id and node is screen) or not active.binding.description or active.binding.system:
                continue
            title = "Everywhere" if node is screen.app else "Here" if node is screen else _widget_title(node)
            titles.setdefault(title, []).append(active)
        order = sorted(titles, key=lambda title: {"Here": 0, "Everywhere": 2}.get(title, 1))
        return cls([(title, titles[title]) for title in order])

    def compose(self) -> ComposeResult:
        with Vertical(id="help"):
            with HelpText():
                yield Static(self._text(), id="keys")
            yield Static(FOOT, classes="muted", markup=False)

    @on(HelpText.Filtered)
    def _filter_changed(self) -> None:
        self.query_one("#keys", Static).update(self._text())

    def _text(self) -> Content:
        """The groups in which a key passes the filter, with those keys."""
        text = self.query_one(HelpText) if self.query(HelpText) else None
        parts = []
        for title, group in self._groups:
            passing = [active for active in group if text is None or text.passes(self._told(active))]
            if passing:
                parts += [Content.assemble("\n", (title, "bold $primary")), self._table(passing)]
        return Content("\n").join(parts) if parts else Content(NO_MATCH)

    def _told(self, active: ActiveBinding) -> str:
        binding = active.binding
        said = (self.app.get_key_display(binding), active.tooltip, binding.tooltip, binding.id, binding.description)
        return " ".join(filter(None, said))

    def _table(self, group: list[ActiveBinding]) -> Content:
        keys: dict[tuple[str, str], list[str]] = {}
        for active in group:
            binding = active.binding
            sentence = active.tooltip or binding.tooltip or _sentence(binding.description)
            keys.setdefault((sentence, binding.id or ""), []).append(self.app.get_key_display(binding))
        lines: list[Content] = []
        for (sentence, id_), shown in keys.items():
            name = Content.styled(f"  {id_}" if self.app.size.width >= WIDE else "", "$text-muted")
            text = (line(sentence) + name).wrap(self._room())
            first = Content.styled(f"  {' '.join(shown):<{KEYS}} ", "bold $accent") + text[0]
            lines += [first, *(Content(" " * (KEYS + 3)) + rest for rest in text[1:])]
        return Content("\n").join(lines)

    def _room(self) -> int:
        """Cells for a sentence: the box of help.tcss less its border, padding and scroll bar, less the keys."""
        return min(92, self.app.size.width * 9 // 10) - 8 - KEYS - 3


def _sentence(description: str) -> str:
    """A description that Textual's own widgets give (`Page Up`), written as ours are (`Page up.`)."""
    return f"{description.capitalize().rstrip('.')}." if description else ""


def _widget_title(node: object) -> str:
    """What the widget says it is, else the title on its border, else the words of its class's name."""
    title = getattr(node, "HELP_TITLE", None)
    title = title or (getattr(node, "border_title", None) if isinstance(node, Widget) else None)
    return displayable_line(str(title)) if title else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(node).__name__)
