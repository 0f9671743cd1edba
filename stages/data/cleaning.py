"""Cleaning documents: line endings, Unicode form, control characters, length, exact duplicates; each with its tally."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from stages.store.datasets import Filter
from stages.store.specs.build import Build

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Category Cc without tab and newline."""

EXAMPLES, SHOWN = 3, 80


class Tally:
    """What one filter did, for the report."""

    def __init__(self, name: str, sentence: str) -> None:
        self._name, self._sentence = name, sentence
        self._removed = self._changed = 0
        self._examples: list[str] = []

    def removed(self, text: str) -> None:
        """Count a document that was dropped."""
        self._removed += 1
        self._show(text, 0)

    def changed(self, before: str, after: str) -> None:
        """Count a document that was altered; the example shows where that begins, as it was."""
        self._changed += 1
        if len(self._examples) < EXAMPLES:
            self._show(before, _first_difference(before, after))

    def filter(self) -> Filter:
        """The line of the report."""
        return Filter(self._name, self._sentence, self._removed, self._changed, self._examples)

    def _show(self, text: str, place: int) -> None:
        if len(self._examples) < EXAMPLES:
            self._examples.append(excerpt(text, place))


class Cleaner:
    """Cleans one document after the other and keeps count. Remembers a digest of each document it kept."""

    def __init__(self, settings: Build) -> None:
        self._settings = settings
        self._seen: set[bytes] = set()
        self._endings = Tally("line endings", "Made every line end in a newline alone, and dropped byte-order marks.")
        self._unicode = Tally("unicode", f"Normalised Unicode to {settings.normalise}.")
        self._control = Tally("control characters", "Removed control characters other than newline and tab.")
        self._length = Tally("length", _length_sentence(settings))
        self._duplicates = Tally("duplicates", "Dropped documents that are exactly like an earlier one.")

    def clean(self, text: str) -> str | None:
        """The cleaned document, or None when it is dropped."""
        text = self._tallied(self._endings, text, plain_line_endings(text))
        if self._settings.normalise != "none":
            text = self._tallied(self._unicode, text, unicodedata.normalize(self._settings.normalise, text))
        if self._settings.control_characters:
            text = self._tallied(self._control, text, CONTROL.sub("", text))
        if not self._fits(text):
            self._length.removed(text)
            return None
        if self._settings.deduplicate and self._is_known(text):
            self._duplicates.removed(text)
            return None
        return text

    def filters(self) -> list[Filter]:
        """What each filter that was on has done, in their order."""
        tallies = [self._endings]
        tallies += [self._unicode] if self._settings.normalise != "none" else []
        tallies += [self._control] if self._settings.control_characters else []
        tallies += [self._length]
        tallies += [self._duplicates] if self._settings.deduplicate else []
        return [tally.filter() for tally in tallies]

    def _fits(self, text: str) -> bool:
        longest = self._settings.max_characters
        visible = len(text.strip())
        return visible >= max(1, self._settings.min_characters) and (longest is None or len(text) <= longest)

    def _is_known(self, text: str) -> bool:
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        known = digest in self._seen
        self._seen.add(digest)
        return known

    @staticmethod
    def _tallied(tally: Tally, before: str, after: str) -> str:
        if after != before:
            tally.changed(before, after)
        return after


def plain_line_endings(text: str) -> str:
    """CRLF and CR become LF; a byte-order mark at the start goes."""
    text = text.removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _first_difference(before: str, after: str) -> int:
    pairs = enumerate(zip(before, after, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(before), len(after)))


def excerpt(text: str, place: int) -> str:
    """About SHOWN characters around `place`, on one line."""
    start = max(0, place - SHOWN // 2)
    part = text[start : start + SHOWN].replace("\n", "⏎")
    return ("…" if start else "") + part + ("…" if start + SHOWN < len(text) else "")


def _length_sentence(settings: Build) -> str:
    sentence = (
        f"Dropped documents of fewer than {max(1, settings.min_characters):,} characters, spaces around not counted"
    )
    longest = settings.max_characters
    return sentence + (f", or more than {longest:,}." if longest is not None else ".")
