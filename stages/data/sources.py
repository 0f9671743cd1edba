"""What a dataset is built from: sources found, checked, recognised and read as canonical records of one kind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from stages.data.find_files import Finder, Form, Item, Skipped, is_code, is_licence, is_readme
from stages.data.opening import BROKEN, Unpacks, opened
from stages.data.readers import glance, read_text, scan, shown
from stages.data.rows import read_rows
from stages.data.shapes import GUESS, Detection, Row, Unfit, detect, named, read_row, renamed
from stages.data.starters import starter_kind, starter_records, starter_source
from stages.store.datasets import Filter, Kind, Problem, Source
from stages.store.errors import UserError, WorkFailed
from stages.store.records import Record, TextRecord

PROBLEMS = 100
STEP = 1 << 18
"""Bytes between two reports of progress."""
PATIENCE = 0.1
"""Seconds after which progress is reported in any case."""
SAMPLE = 100
"""Rows of a file from which its shape is found."""

Advance = Callable[[int, int], None]
"""Called with bytes done and bytes in all. It may raise, to cancel."""


class Found(NamedTuple):
    """A file that has been looked at."""

    item: Item
    source: Source
    changed: float
    """When it was last written, in seconds."""
    detection: Detection | None
    """How its rows are written; None for text, starter data and files of rows that nobody knows."""
    first: list[Row]
    """Its first row, if there is one."""

    @property
    def kind(self) -> Kind | None:
        """The kind of its records; None where nobody knows."""
        if self.item.form == "starter":
            return starter_kind(self.item.origin)
        if self.item.form == "text":
            return "text"
        return self.detection.kind if self.detection else None


class Corpus:
    """The sources of one dataset. First `survey`, then `documents`; `problems` and `skipped` grow with both.

    `kind` None: as found. `mapping`: our names of fields to those of the files. `form`: how every file is read,
    whatever its name; None: as its name says.
    """

    def __init__(
        self,
        sources: list[str],
        cut: int,
        *,
        kind: Kind | None = None,
        mapping: dict[str, str] | None = None,
        form: Form | None = None,
    ) -> None:
        self._names, self._cut, self._asked, self.mapping = sources, cut, kind, mapping or {}
        self._quick = False
        self._finder = Finder(form)
        self.found: list[Found] = []
        self.kind: Kind = kind or "text"
        self.problems: list[Problem] = []
        self.problem_count = 0
        self._binary = Skipped("binary files", "Left out files in folders that are not text.")
        self._papers = Skipped("licences and READMEs", "Left out files that describe the data beside them.")
        self._others = Skipped(
            "files of another kind", "Left out files that do not hold records of this dataset's kind."
        )

    @property
    def sources(self) -> list[Source]:
        """Every file that is read, with size and digest."""
        return [found.source for found in self.found]

    @property
    def size(self) -> int:
        """Bytes of all that is read."""
        return sum(source.size for source in self.sources)

    def skipped(self) -> list[Filter]:
        """What was left out."""
        later = [line for skipped in (self._binary, self._papers, self._others) for line in skipped.filters()]
        return self._finder.skipped() + later

    def survey(self, advance: Advance, *, quick: bool = False) -> None:
        """Find the files, take their digests, recognise them and decide on the kind of the dataset.

        `quick` looks at the beginning of each file alone, and takes no digests.
        Raises UserError for a source that does not exist or cannot be read, for records that nobody knows, and when
        the sources disagree about the kind.
        """
        items: dict[Path, Item] = {}
        for name in self._names:
            for item in self._finder.find(name):
                items.setdefault(item.path, item)
        self._quick, self.found = quick, []
        steps = _Steps(advance, sum(map(_size, items.values())))
        looked = [found for item in items.values() if (found := self._look(item, steps)) is not None]
        self.kind = self._asked or self._agreed_kind(looked)
        for found in looked:
            self._keep(found, looked)

    def documents(self, advance: Advance) -> Iterator[Record]:
        """Every record, in the order of the sources. Raises WorkFailed when a file has changed since the survey."""
        return (record for _, _, record in self.placed(advance))

    def placed(self, advance: Advance) -> Iterator[tuple[str, int, Record]]:
        """Like `documents`, each with the label of its file and the line, row or number in it, from 1."""
        steps = _Steps(advance, self.size)
        for found in self.found:
            item = found.item
            if item.form == "starter":
                for number, record in enumerate(starter_records(item.origin, steps.add), 1):
                    yield item.label, number, record
                continue
            try:
                now = item.path.stat()
                if (now.st_size, now.st_mtime) != (found.source.size, found.changed):
                    raise WorkFailed(f"{shown(item.path)} changed while it was being read.", "Build again.")
                for number, record in self._read(found, steps):
                    yield item.label, number, record
            except (OSError, UnicodeDecodeError, Unpacks, *BROKEN) as error:
                raise WorkFailed(f"{shown(item.path)} could not be read to its end: {error}.") from error

    def sample(self, found: Found, count: int, advance: Advance) -> Iterator[Record]:
        """A file's first records, for showing."""
        steps = _Steps(advance, found.source.size)
        if found.item.form == "starter":
            return islice(starter_records(found.item.origin, steps.add), count)
        return islice((record for _, record in self._read(found, steps)), count)

    def _read(self, found: Found, steps: _Steps) -> Iterator[tuple[int, Record]]:
        """A file's records, each with the line or row at which it begins."""
        item, refuse = found.item, self._refusal(found.item)
        if item.form == "text":
            with opened(item.path, steps.add) as file:
                line = 1
                for text in read_text(file, self._cut, refuse):
                    yield line, TextRecord(text=text, source=item.label)
                    line += text.count("\n")
            return
        for number, row in read_rows(item.path, item.form, refuse, steps.add):
            try:
                if found.detection is not None:
                    shape, _, kind = found.detection
                    for record in read_row(shape, kind, renamed(row, self.mapping), item.label):
                        yield number, record
            except Unfit as unfit:
                refuse(number, self.mapping.get(unfit.field, unfit.field), unfit.message)

    def _look(self, item: Item, steps: _Steps) -> Found | None:
        """Scan a file and find its shape; None when it has been refused or left out."""
        if item.form == "starter":
            source = Source(item.origin, 0, "", "starter data") if self._quick else starter_source(item.origin)
            return Found(item, source, 0.0, None, [])
        text = item.form == "text"
        try:
            changed = item.path.stat().st_mtime
            scanned = glance(item.path, text=text) if self._quick else scan(item.path, text=text, advance=steps.add)
            steps.add(scanned.size if self._quick else 0)
            rows = [] if text else self._sample_rows(item, steps)
        except (OSError, Unpacks, *BROKEN) as error:
            self._unreadable(item, error)
            return None
        if scanned.binary:
            self._refuse_binary(item)
            return None
        if scanned.problem is not None:
            self._report(scanned.problem)
            return None
        detection = detect(rows, self._asked) if rows else None
        if detection is not None and detection.shape is GUESS and not item.named and self._asked is None:
            detection = None  # in a folder of code, a table or a .json with one text is seldom a document
        source = Source(shown(item.path), scanned.size, scanned.sha256, detection.shape.name if detection else "")
        return Found(item, source, changed, detection, rows[:1])

    def _sample_rows(self, item: Item, steps: _Steps) -> list[Row]:
        rows = read_rows(item.path, item.form, lambda line, field, message: None, lambda count: steps.add(0))
        return [renamed(row, self.mapping) for _, row in islice(rows, SAMPLE)]

    def _agreed_kind(self, looked: list[Found]) -> Kind:
        """The kind that each source holds most of, by bytes. UserError when they disagree, or nothing is known."""
        kinds: dict[str, Kind] = {}
        for origin in dict.fromkeys(found.item.origin for found in looked):
            sizes: dict[Kind, int] = {}
            for found in looked:
                if found.item.origin == origin and found.kind is not None and not _is_paper(found, looked):
                    sizes[found.kind] = sizes.get(found.kind, 0) + found.source.size
            if sizes:
                kinds[origin] = max(sizes, key=lambda kind: sizes[kind])
        if len(set(kinds.values())) > 1:
            told = ", ".join(f"{shown_source(origin)} gives {kind}" for origin, kind in list(kinds.items())[:4])
            raise UserError(
                f"The sources are of different kinds: {told}.", "Choose one with kind, or build them apart."
            )
        if kinds:
            return next(iter(kinds.values()))
        unknown = next((found for found in looked if found.first), None)
        if unknown is not None:
            raise _unknown(unknown, None)
        return "text"

    def _keep(self, found: Found, looked: list[Found]) -> None:
        """Take a file into the dataset, or leave it out and say so."""
        item = found.item
        if _is_paper(found, looked):
            self._papers.add(item.path)
        elif found.kind == self.kind or (not found.first and found.kind is None and self._expects_rows(item)):
            self.found.append(found)  # a file without a row tells what is wrong with it when it is read
        elif item.named and found.kind is None:
            raise _unknown(found, self._asked)
        elif item.named:
            raise UserError(f"{shown(item.path)} holds records of kind {found.kind}, not {self.kind}.")
        elif found.kind is None and self.kind != "text":
            self._report(
                Problem(shown(item.path), 0, "", f"Its records are none that are known: {named(found.first[0])}.")
            )
        else:
            self._others.add(item.path)

    def _expects_rows(self, item: Item) -> bool:
        """Whether a file that gives no rows is worth a word; among texts, a .json or .csv is mostly something else."""
        return item.named or self.kind != "text" or item.form == "jsonl"

    def _unreadable(self, item: Item, error: Exception) -> None:
        why = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) and error.errno else str(error)
        reason = f"cannot be read: {why.rstrip('.') or 'it is damaged'}."
        if item.named:
            raise UserError(f"{shown(item.path)} {reason}") from error
        self._report(Problem(shown(item.path), 0, "", f"This file {reason}"))

    def _refuse_binary(self, item: Item) -> None:
        if item.named:
            raise UserError(f"{shown(item.path)} is not text: it holds zero bytes.", "Convert it to UTF-8 text first.")
        self._binary.add(item.path)

    def _refusal(self, item: Item) -> Callable[[int, str, str], None]:
        return lambda line, field, message: self._report(Problem(shown(item.path), line, field, message))

    def _report(self, problem: Problem) -> None:
        self.problem_count += 1
        if len(self.problems) < PROBLEMS:
            self.problems.append(problem)


def shown_source(source: str) -> str:
    """A source for messages."""
    return source.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class _Steps:
    """Adds up bytes and passes them on now and then."""

    def __init__(self, advance: Advance, total: int) -> None:
        self._advance, self._total = advance, total
        self._done = self._told = 0
        self._when = 0.0

    def add(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._done - self._told >= STEP or self._done == self._total or now - self._when >= PATIENCE:
            self._told, self._when = self._done, now
            self._advance(self._done, self._total)


def _is_paper(found: Found, looked: list[Found]) -> bool:
    """Whether this is a licence, or a README of data, found beside other files. A README of code is part of it."""
    item = found.item
    if item.named or item.form != "text" or not (is_licence(item.path) or is_readme(item.path)):
        return False
    beside = [other.item.path for other in looked if other.item.origin == item.origin and other is not found]
    data = [path for path in beside if not is_licence(path) and not is_readme(path)]
    return bool(data) and (is_licence(item.path) or not any(map(is_code, data)))


def _unknown(found: Found, kind: Kind | None) -> UserError:
    what = f"records of kind {kind}" if kind else "records that are known"
    return UserError(
        f"{shown(found.item.path)} does not hold {what}; its fields are: {named(found.first[0])}.",
        "Say what they are with a mapping, such as --map prompt=FIELD --map completion=FIELD, or --map text=FIELD.",
    )


def _size(item: Item) -> int:
    try:
        return item.path.stat().st_size
    except OSError:
        return 0
