"""A short list to choose from, with hjkl, whose entries stay in place when only their text changes."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.events import Click
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from workbench.display import looks_same
from workbench.keys import LIST_KEYS, bind
from workbench.widgets.filter_field import NO_MATCH, Filterable


class PickList(OptionList, Filterable):
    """Options by id. `show` keeps the highlighted id highlighted."""

    BINDINGS = [*LIST_KEYS, bind("list.open", "enter", "select", "Open", "Open the highlighted entry.", show=False)]

    def __init__(self, *, id: str | None = None, empty: str = "none yet") -> None:  # noqa: A002
        super().__init__(id=id, markup=False)
        self._empty = empty
        self._all: list[tuple[str, Content]] = []
        self._shown: list[tuple[str, Content]] | None = None

    @property
    def chosen(self) -> str | None:
        """The id of the highlighted entry."""
        option = self.highlighted_option
        return option.id if option is not None else None

    def show(self, entries: Sequence[tuple[str, Content]]) -> None:
        """Show those of `entries` (id, text) that pass the filter. Nothing is redrawn when nothing changed."""
        self._all = list(entries)
        self._show([entry for entry in self._all if self.passes(entry[1].plain)])

    @property
    def has_entries(self) -> bool:
        return bool(self._all)

    def filter_changed(self) -> None:
        self._show([entry for entry in self._all if self.passes(entry[1].plain)], empty_anew=True)

    def _show(self, entries: list[tuple[str, Content]], *, empty_anew: bool = False) -> None:
        before, self._shown = self._shown, entries
        if before and [key for key, _ in before] == [key for key, _ in entries]:
            for (key, text), (_, old) in zip(entries, before, strict=True):
                if not looks_same(text, old):
                    self.replace_option_prompt(key, text)
            return
        if before == [] and not entries and not empty_anew:
            return
        chosen = self.chosen
        options = [Option(text, id=key) for key, text in entries]
        nothing = Content.styled(NO_MATCH if self._all else self._empty, "$text-muted")
        self.set_options(options or [Option(nothing, disabled=True)])
        keys = [key for key, _ in entries]
        if keys:
            self.highlighted = keys.index(chosen) if chosen in keys else 0

    def action_page_up(self) -> None:
        if self.scrollable_content_region:  # without room nothing is laid out, and Textual fails to find a page
            super().action_page_up()

    def action_page_down(self) -> None:
        if self.scrollable_content_region:
            super().action_page_down()

    def on_click(self, event: Click) -> None:
        """A click highlights, a second one opens, as in every list."""
        event.prevent_default()
        at = event.style.meta.get("option")
        if at is not None and not self.get_option_at_index(at).disabled:
            self.highlighted = at
            if event.chain > 1:
                self.action_select()

    def choose(self, key: str) -> bool:
        """Highlight the entry `key`, whatever the filter; whether it is there."""
        if self.filter_text and key in [known for known, _ in self._all]:
            self.set_filter("")
        keys = [known for known, _ in self._shown or []]
        if key in keys:
            self.highlighted = keys.index(key)
        return key in keys


def cell(text: Content, width: int) -> Content:
    """`text` in exactly `width` cells."""
    shown = text.truncate(width, ellipsis=True)
    return shown.pad_right(max(0, width - shown.cell_length))
