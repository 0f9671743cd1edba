"""The transcript of a chat, which leaves the keys of answers to the screen."""

from __future__ import annotations

from typing import cast

from textual.binding import Binding
from textual.containers import ScrollableContainer

from workbench.keys import SCROLL_KEYS
from workbench.widgets.transcript import Transcript


def _scrolling() -> list[Binding]:
    """Keys that scroll: all but left, right, h, l and k, which are about answers here."""
    taken = ("left", "right")
    own = [cast("Binding", one) for one in ScrollableContainer.BINDINGS]
    return [one for one in own if one.key not in taken] + [one for one in SCROLL_KEYS if one.key != "k"]


class ChatTranscript(Transcript, inherit_bindings=False):
    """The transcript, which leaves the keys of answers to the screen."""

    HELP_TITLE = "The transcript"
    BINDINGS = [*_scrolling()]
