"""Escape and a key that come together are two keys.

A terminal without the Kitty protocol sends the same for escape, then R, as for alt and R. Textual takes what comes
within 100 ms for the latter; over a slow line, or typed fast, an escape would be lost. Nothing here is bound to alt and
a letter; alt and enter, which makes a new line, stay one key, as do alt with b and f, which go by words.
"""

from __future__ import annotations

from collections.abc import Iterable

from textual._xterm_parser import XTermParser
from textual.events import Key

OPTION = "§1234567890-="
"""Keys that Textual takes for what an Apple keyboard writes with option, when an escape comes before them."""


class EscapeParser(XTermParser):
    """Reads what a terminal sends, and tells escape and the key after it as they were pressed."""

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[Key]:
        if alt and sequence == "\r":
            yield Key("alt+enter", None)
            return
        if len(sequence) == 2 and sequence[0] == "\x1b" and sequence[1] in OPTION:
            alt, sequence = True, sequence[1]
        if alt:
            yield Key("escape", "\x1b")
        yield from super()._sequence_to_key_events(sequence)


def read_escapes() -> None:
    """Have the driver of terminals read with it."""
    from textual.drivers import linux_driver

    linux_driver.XTermParser = EscapeParser  # type: ignore[misc]  # the driver names its parser nowhere else
