"""Changes to a text: line endings, Unicode form, control characters, mojibake, masks; and how a record takes them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from stages.store.records import ChatRecord, LabelledRecord, Message, PreferenceRecord, PromptRecord, Record, TextRecord
from stages.store.specs.build import Build

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Category Cc without tab and newline."""

URL = re.compile(
    r"\b(?:https?://|ftp://|www\.)[^\s<>\"'\u3000-\u303f\uff00-\uffef]+[^\s<>\"'.,;:!?)\]}\u3000-\u303f]", re.I
)
EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b")

_CONTINUATION = "[\x80-\xbf" + bytes(range(0x80, 0xA0)).decode("cp1252", "ignore") + "]"
MOJIBAKE = re.compile(f"[\xc2\xc3]{_CONTINUATION}|[\xe2-\xe9]{_CONTINUATION}{{2}}|\xf0{_CONTINUATION}{{3}}")
"""Two, three or four bytes of UTF-8 read as Windows-1252 or Latin-1: é as Ã©, ’ as â€™."""

Change = Callable[[str], str]


def changes(settings: Build) -> list[tuple[str, str, Change]]:
    """What the settings change in every text, in order: a name, a sentence for people, the change."""
    form = settings.normalise
    found: list[tuple[str, str, Change]] = [
        ("line endings", "Made every line end in a newline alone, and dropped byte-order marks.", plain_line_endings)
    ]
    if settings.repair_mojibake:
        found.append(("mojibake", "Repaired UTF-8 that had been read as Windows-1252.", repair_mojibake))
    if form != "none":
        found.append(("unicode", f"Normalised Unicode to {form}.", partial(unicodedata.normalize, form)))
    if settings.control_characters:
        found.append(("control characters", "Removed control characters other than newline and tab.", without_control))
    if settings.mask_urls:
        found.append(("web addresses", "Put <url> in place of web addresses.", partial(URL.sub, "<url>")))
    if settings.mask_emails:
        found.append(("e-mail addresses", "Put <email> in place of e-mail addresses.", mask_emails))
    return found


def plain_line_endings(text: str) -> str:
    """CRLF and CR become LF; a byte-order mark at the start goes."""
    text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def without_control(text: str) -> str:
    """Drop control characters other than newline and tab."""
    return CONTROL.sub("", text)


def mask_emails(text: str) -> str:
    """<email> in place of every e-mail address."""
    return EMAIL.sub("<email>", text) if "@" in text else text


def repair_mojibake(text: str) -> str:
    """Undo one reading of UTF-8 as Windows-1252, wherever the bytes are UTF-8."""
    return text if text.isascii() else MOJIBAKE.sub(_reread, text)


def _reread(found: re.Match[str]) -> str:
    try:
        return b"".join(map(_byte, found[0])).decode()
    except UnicodeDecodeError:
        return found[0]


def _byte(character: str) -> bytes:
    return bytes([ord(character)]) if ord(character) < 0x100 else character.encode("cp1252")


def rewritten(record: Record, change: Change) -> Record:
    """The record with every text changed; the same object where nothing was."""
    match record:
        case TextRecord():
            after = change(record.text)
            return record if after == record.text else msgspec.structs.replace(record, text=after)
        case LabelledRecord():
            return _replaced(record, texts=[change(text) for text in record.texts])
        case ChatRecord():
            return _replaced(record, messages=_turns(record.messages, change))
        case PreferenceRecord():
            completions = [change(text) for text in record.completions]
            return _replaced(record, messages=_turns(record.messages, change), completions=completions)
        case PromptRecord():
            answer = record.answer if record.answer is None else change(record.answer)
            return _replaced(record, messages=_turns(record.messages, change), answer=answer)


def _turns(messages: list[Message], change: Change) -> list[Message]:
    return [msgspec.structs.replace(message, content=change(message.content)) for message in messages]


def _replaced(record: Record, **fields: Any) -> Record:
    after = msgspec.structs.replace(record, **fields)
    return record if after == record else after
