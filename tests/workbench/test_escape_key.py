"""An escape is not lost to the key that comes with it."""

from __future__ import annotations

import pytest
from textual.events import Key

from workbench.terminal.escape_key import EscapeParser


def keys(*packets: str) -> list[str]:
    """The keys read from packets that come at once, and nothing after them."""
    parser = EscapeParser()
    found = [token for packet in packets for token in parser.feed(packet)]
    if parser._timeout_time is not None:
        parser._timeout_time = 0.0
        found += parser.tick()
    return [token.key for token in found if isinstance(token, Key)]


@pytest.mark.parametrize(
    ("packets", "pressed"),
    [
        (["\x1b"], ["escape"]),
        (["\x1bR"], ["escape", "R"]),
        (["\x1b", "q"], ["escape", "q"]),
        (["\x1bjjq"], ["escape", "j", "j", "q"]),
        (["\x1b?"], ["escape", "question_mark"]),
        (["\x1b["], ["escape", "left_square_bracket"]),
        (["\x1b1="], ["escape", "1", "equals_sign"]),
        (["\x1b\x1b"], ["escape", "escape"]),
        (["\x1b\r"], ["alt+enter"]),
        (["\x1b[A"], ["up"]),
        (["\x1b", "[A"], ["up"]),
        (["\x1b[27u", "R"], ["escape", "R"]),
        (["\x1bb"], ["ctrl+left"]),
    ],
    ids=repr,
)
def test_escape_and_what_comes_with_it_are_two_keys(packets: list[str], pressed: list[str]) -> None:
    assert keys(*packets) == pressed
