"""The one door by which foreign text (data, completions, names, logs, errors) reaches a widget or a terminal.

Stored text stays byte-exact; what is shown has its control, bidirectional and invisible characters replaced by visible
symbols, and is never parsed as markup.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.content import Content
    from textual.style import Style

_INVISIBLE = (
    r"\x00-\x09\x0b-\x1f\x7f-\x9f"  # C0 but the newline, DEL, C1
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # soft hyphen, joiners, fillers, Mongolian selectors
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f"  # zero widths, separators, bidi marks, embeddings and isolates
    r"\u3164\ud800-\udfff\ufeff\uffa0\ufff9-\ufffb"  # fillers, lone surrogates, byte order mark, annotations
    r"\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # format controls of scripts and music
    r"\U000e0000-\U000e0fff"  # tags and variation selectors: text that nobody sees
)
_FOREIGN = re.compile(f"[{_INVISIBLE}]")
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0"
"""Invisible characters that str.isprintable takes for letters or marks."""


def displayable(text: str, *, tabs: int = 0) -> str:
    """`text` with every character that acts on a terminal, or hides in it, as a visible symbol. Newlines stay.

    With `tabs`, tabs become spaces up to the next multiple of so many columns; otherwise they are shown as `␉`.
    """
    if tabs and "\t" in text:
        text = text.expandtabs(tabs)
    lines = text.split("\n")
    if all(map(str.isprintable, lines)) and not _hides_fillers(text):
        return text
    return _FOREIGN.sub(_symbol, text)


def displayable_line(text: str) -> str:
    """Like `displayable`, for a place of one line: newlines are shown as `␊`."""
    return displayable(text).replace("\n", "␊")


def shortened(text: str, width: int) -> str:
    """One displayable line of at most `width` characters; an ellipsis says that there was more."""
    line = displayable_line(text[: width + 1])
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"


def content(text: str, style: str | Style = "", *, tabs: int = 0) -> Content:
    """Foreign text as Textual content in `style`, with no markup."""
    from textual.content import Content

    shown = displayable(text, tabs=tabs)
    return Content.styled(shown, style) if style else Content(shown)


def line(text: str, style: str | Style = "") -> Content:
    """Foreign text for a place of one line: a name, a title, a cell of a table."""
    return content(displayable_line(text), style)


def path_lines(path: Path, width: int = 54) -> str:
    """A path with `~` for the home folder, on lines of its own that break between names alone.

    A name of more than `width` characters breaks behind its dashes.
    """
    try:
        shown = f"~/{path.relative_to(Path.home()).as_posix()}"
    except (ValueError, RuntimeError):
        shown = path.as_posix()
    lines = [""]
    for piece in re.findall(r"[^/]*/|[^/]+$", displayable_line(shown)):
        for part in [piece] if len(piece) <= width else re.findall(r"[^-]*-|[^-]+$", piece):
            if lines[-1] and len(lines[-1]) + len(part) > width:
                lines.append("")
            lines[-1] += part
    return "\n".join(lines)


def looks_same(one: Content, other: Content) -> bool:
    """Whether two contents show the same; their own == compares the text and not the styles."""
    return one.plain == other.plain and one.spans == other.spans


def _hides_fillers(text: str) -> bool:
    return not text.isascii() and any(filler in text for filler in _FILLERS)


def _symbol(match: re.Match[str]) -> str:
    return _shown(match[0])


@cache
def _shown(character: str) -> str:
    """The Control Pictures block for C0 and DEL, the code point in brackets for the rest."""
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"‹U+{code:04X}›"
