"""Sentences for what cannot be read, shared by the readers."""

from __future__ import annotations

import re
from collections.abc import Callable

Refuse = Callable[[int, str, str], None]
"""Takes note of a record that could not be used: its line or row (0: the file), the field, a sentence."""

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
NO_NUMBER = re.compile(rb"[:\[,]\s*-?(NaN|Infinity)\b")


def not_utf8(error: UnicodeDecodeError) -> str:
    """Which byte is not UTF-8."""
    return f"This is not UTF-8 (byte 0x{error.object[error.start]:02x})."


def why_not_json(data: bytes, message: str) -> str:
    """Why msgspec refused this JSON; `message` is what it said."""
    if NO_NUMBER.search(data):
        return "NaN and Infinity are not JSON."
    if SURROGATE.search(data):
        return "This holds half of a surrogate pair, or is not JSON."
    return f"This is not JSON: {message.removeprefix('JSON is malformed: ')}."
