"""Reading files as bytes, one bounded line at a time: text files into documents, JSON lines into records."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from stages.store.datasets import Problem
from stages.store.records import TextRecord

LONGEST_LINE = 16_000_000
"""Bytes. A longer line is reported and left out; it is never held in memory."""

LONGEST_TEXT = 4_000_000
"""Characters. A longer text file is always cut, so that memory stays bounded."""

DEEPEST = 64
"""Levels of lists and objects in a record. What can be written must be readable, from any depth of calls."""

NAMED_FIELDS = 8
"""Fields that a refusal of a JSON object names, at most."""

CHUNK = 1 << 20

Report = Callable[[Problem], None]
"""Takes note of what could not be used."""


class Scan(NamedTuple):
    """What a first look at a whole file found."""

    size: int
    sha256: str
    binary: bool
    problem: Problem | None
    """Set when the file is refused as a whole."""


def scan(path: Path, *, text: bool, advance: Callable[[int], None]) -> Scan:
    """Read a file once: its digest and, for `text`, whether it is binary (holds NUL) or broken UTF-8.

    `advance` is called with the number of bytes of every chunk. Raises OSError.
    """
    digest, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
    size, lines, binary, problem = 0, 0, False, None
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            advance(len(chunk))
            binary = binary or b"\0" in chunk
            if text and problem is None:
                problem = _broken(decoder, chunk, path, lines, final=False)
                lines += chunk.count(b"\n")
    if text and problem is None:
        problem = _broken(decoder, b"", path, lines, final=True)
    return Scan(size, digest.hexdigest(), text and binary, problem)


def _broken(decoder: codecs.IncrementalDecoder, chunk: bytes, path: Path, lines: int, *, final: bool) -> Problem | None:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError as error:
        line = lines + error.object[: error.start].count(b"\n") + 1
        return Problem(shown(path), line, "", f"This is not UTF-8 (byte 0x{error.object[error.start]:02x}).")
    return None


def read_lines(file: BinaryIO, longest: int = LONGEST_LINE) -> Iterator[tuple[int, bytes | None, int]]:
    """Line numbers from 1, lines with their newline (None for one beyond `longest`), and bytes read. Splits at \\n."""
    number = 0
    while line := file.readline(longest + 1):
        number, read = number + 1, len(line)
        if len(line) <= longest or line.endswith(b"\n"):
            yield number, line, read
            continue
        while not line.endswith(b"\n") and (line := file.readline(CHUNK)):
            read += len(line)
        yield number, None, read


def read_text(path: Path, label: str, cut: int, report: Report, advance: Callable[[int], None]) -> Iterator[TextRecord]:
    """The documents of a text file that `scan` found to be UTF-8, cut as `cut_at_blank_lines` says."""

    def lines() -> Iterator[str]:
        with path.open("rb") as file:
            for number, line, read in read_lines(file):
                advance(read)
                if line is None:
                    report(_too_long(path, number, read))
                else:
                    yield line.decode()

    for text in cut_at_blank_lines(lines(), cut):
        yield TextRecord(text=text, source=label)


def read_json_lines(
    path: Path, label: str, field: str, report: Report, advance: Callable[[int], None]
) -> Iterator[TextRecord]:
    """One record a line that is an object with text under `field`; what else it holds goes into its meta."""
    with path.open("rb") as file:
        for number, line, read in read_lines(file):
            advance(read)
            if line is None:
                report(_too_long(path, number, read))
                continue
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not line.strip():
                continue
            found = parse_record(line, field, label)
            if isinstance(found, TextRecord):
                yield found
            else:
                report(Problem(shown(path), number, *found))


def parse_record(line: bytes, field: str, label: str) -> TextRecord | tuple[str, str]:
    """The record in a JSON line, or the field and the sentence that say why there is none."""
    try:
        value = msgspec.json.decode(line)
    except RecursionError:
        return "", "This JSON is nested too deeply."
    except UnicodeDecodeError as error:
        return "", f"This is not UTF-8 (byte 0x{error.object[error.start]:02x})."
    except msgspec.DecodeError as error:
        return "", _why_not_json(line, str(error))
    if not isinstance(value, dict):
        return "", "This is not a JSON object."
    text = value.pop(field, None)
    if text is None:
        names = ", ".join(sorted(value)[:NAMED_FIELDS]) or "none"
        return field, f"There is no field {field!r}; the fields are: {names[:200]}. Choose one with text_field."
    if not isinstance(text, str):
        return field, "This is not text."
    source, meta = value.get("source"), value.pop("meta", {})
    if source and isinstance(source, str):
        label = value.pop("source")
    meta = {**value, **(meta if isinstance(meta, dict) else {"meta": meta})}
    return ("", "This JSON is nested too deeply.") if _deep(meta) else TextRecord(text=text, source=label, meta=meta)


def cut_at_blank_lines(lines: Iterable[str], longest: int) -> Iterator[str]:
    """Join lines into texts of at most `longest` characters that end, where they can, after a blank line.

    Nothing is lost: the texts joined are the lines joined. A paragraph that is longer is cut at the end of a line, and
    a line that is longer within it.
    """
    held: list[str] = []
    size = boundary = 0  # characters held; lines up to and with the last blank one
    for line in lines:
        for part in _slices(line, longest):
            if held and size + len(part) > longest:
                end = boundary or len(held)
                yield "".join(held[:end])
                held, boundary = held[end:], 0
                size = sum(map(len, held))
                if held and size + len(part) > longest:
                    yield "".join(held)
                    held, size = [], 0
            held.append(part)
            size += len(part)
            if not part.strip():
                boundary = len(held)
    if held:
        yield "".join(held)


def shown(path: Path) -> str:
    """A path for messages and records: always valid Unicode."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _slices(line: str, longest: int) -> Iterator[str]:
    start = 0
    while len(line) - start > longest:
        end = start + longest
        if longest > 1 and line[end - 1] == "\r" and line[end] == "\n":
            end -= 1  # the two are one line ending
        yield line[start:end]
        start = end
    yield line[start:]


def _deep(value: Any) -> bool:
    """Whether lists and objects stand more than DEEPEST levels within each other; without recursion."""
    level = [value]
    for _ in range(DEEPEST):
        inner = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list))
        level = [part for parts in inner for part in parts]
    return bool(level)


SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def _why_not_json(line: bytes, message: str) -> str:
    if re.search(rb"[:\[,]\s*-?(NaN|Infinity)\b", line):
        return "NaN and Infinity are not JSON."
    if SURROGATE.search(line):
        return "This holds half of a surrogate pair, or is not JSON."
    return f"This is not JSON: {message.removeprefix('JSON is malformed: ')}."


def _too_long(path: Path, number: int, size: int) -> Problem:
    message = f"This line has {size / 1e6:.0f} MB and was left out; the limit is {LONGEST_LINE / 1e6:.0f} MB."
    return Problem(shown(path), number, "", message)
