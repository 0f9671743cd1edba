"""The data doctor: what sources or a dataset hold, how long their records are, and what is suspicious about them.

Everything streams; what must be remembered for duplicates is on disk beyond a bound. A verb of the desk.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from stages.build import corpus_of
from stages.data.contamination import Contamination, evaluation_records
from stages.data.doctor_findings import Answers, Labels, Prompts, contamination_watch, duplicate_watches, plain_watches
from stages.data.readers import LONGEST_TEXT
from stages.data.records import read_records
from stages.data.seen import Seen
from stages.data.tokenizer import TextTokenizer
from stages.store import strict
from stages.store.checks import Bar, Check, Finding, Lengths
from stages.store.datasets import Dataset, Filter, Kind, Problem, find_dataset
from stages.store.records import Record, texts_in
from stages.store.specs.build import Build
from stages.store.tokenizers import find_tokenizer
from stages.store.workspace import Workspace

QUANTILES = (5, 25, 50, 75, 95, 99)
BARS = 16
SAMPLED = 5_000_000
"""Records whose lengths are kept, at 4 bytes each; the report says when there are more."""
ENCODED = 500_000
"""Characters encoded at once."""


class Job(Protocol):
    """What the desk lends to a verb."""

    workspace: Workspace

    def check(self) -> None:
        """Raise, if nobody waits for the answer any more."""

    def progress(self, done: int, total: int, phase: str = "") -> None:
        """Tell how far the work is."""


class Watching(Protocol):
    """What looks at every record and tells at the end what it found."""

    def see(self, place: str, record: Record) -> None:
        """Look at a record; `place` says where it stands, for people."""

    def finding(self) -> Finding | None:
        """What was found in all records; None when nothing is worth telling."""


class Patient(NamedTuple):
    """What is examined."""

    name: str
    kind: Kind
    records: Iterator[tuple[str, str, Record]]
    """Split, place and record."""
    files: int
    bytes: int
    sources: list[str]
    settings: dict[str, Any]
    problems: Callable[[], tuple[list[Problem], int]]
    """What could not be read; complete once the records have been read."""
    left_out: list[Filter]


def check(
    job: Job,
    *,
    settings: dict[str, Any] | None = None,
    dataset: str = "",
    tokenizer: str = "",
    against: list[str] | None = None,
) -> dict[str, Any]:
    """Examine a dataset by name, or the sources that the `settings` of a build name; a `Check` as plain values.

    `tokenizer`: lengths in its tokens, too. `against`: evaluation datasets or starter sources. Raises UserError for
    names that there are not and for sources that cannot be read.
    """
    encoder = TextTokenizer.load(find_tokenizer(job.workspace, tokenizer).path) if tokenizer else None
    build = strict.parse(Build, settings or {"sources": []}, "settings")
    with tempfile.TemporaryDirectory(prefix="workbench-check-") as folder:
        examination = Examination(job, build, Path(folder), against or [], encoder, split=bool(dataset))
        try:
            patient = _dataset(job, dataset) if dataset else _sources(job, build, settings or {})
            for split, place, record in patient.records:
                examination.see(split, place, record)
            return msgspec.to_builtins(examination.report(patient))
        finally:
            examination.close()


class Examination:
    """All that is counted and watched for while the records pass."""

    def __init__(
        self, job: Job, build: Build, folder: Path, against: list[str], encoder: TextTokenizer | None, *, split: bool
    ) -> None:
        self._job, self._encoder = job, encoder
        self._exact, self._asked = Seen(folder / "exact"), Seen(folder / "prompts")
        self.split = ""
        self._records: dict[str, int] = {}
        self._characters = self._ascii = self._marks = self._crlf = 0
        self._lengths, self._tokens = array("I"), array("I")
        self._batch: list[str] = []
        self._batch_counts: list[int] = []
        self._batch_characters = 0
        duplicates, self._near = duplicate_watches(
            folder, self._exact, build.near_duplicate_threshold, build.near_duplicate_ngram
        )
        prompts = Prompts(self._asked)
        self._answers, self._labels = Answers(), Labels()
        self._watches: list[Watching] = [*plain_watches(), *duplicates, self._answers, self._labels]
        self._watches.append(prompts.shared(lambda: self.split) if split else prompts.repeated())
        if against:
            n = build.decontaminate_ngram
            found = Contamination(evaluation_records(against, job.workspace, job.check), n)
            self._watches.append(contamination_watch(found, against, n))

    def see(self, split: str, place: str, record: Record) -> None:
        """Look at the next record."""
        self._job.check()
        self.split = split
        self._records[split] = self._records.get(split, 0) + 1
        texts = texts_in(record)
        length = sum(map(len, texts))
        self._characters += length
        self._ascii += all(map(str.isascii, texts))
        self._marks += any(text.startswith("\ufeff") for text in texts)
        self._crlf += any("\r\n" in text for text in texts)
        if len(self._lengths) < SAMPLED:
            self._lengths.append(min(length, 2**32 - 1))
            self._encode(texts, length)
        for watch in self._watches:
            watch.see(place, record)

    def report(self, patient: Patient) -> Check:
        """What was seen."""
        self._flush()
        found = [watch.finding() for watch in self._watches]
        problems, problem_count = patient.problems()
        lengths = [("characters", self._lengths), ("tokens", self._tokens)]
        return Check(
            name=patient.name,
            kind=patient.kind,
            records=self._records,
            files=patient.files,
            bytes=patient.bytes,
            characters=self._characters,
            notes=list(self._notes(patient)),
            lengths=[lengths_of(unit, values) for unit, values in lengths if len(values)],
            findings=sorted((one for one in found if one is not None), key=_weight),
            problems=problems,
            problem_count=problem_count,
            sources=patient.sources,
            settings=patient.settings,
        )

    def close(self) -> None:
        """Let the indexes go."""
        for index in (self._exact, self._asked, self._near):
            index.close()

    def _encode(self, texts: list[str], length: int) -> None:
        if self._encoder is None:
            return
        self._batch += texts
        self._batch_counts.append(len(texts))
        self._batch_characters += length
        if self._batch_characters >= ENCODED:
            self._flush()

    def _flush(self) -> None:
        if self._encoder is None or not self._batch_counts:
            return
        sizes = iter(map(len, self._encoder.encode_batch(self._batch)))
        self._tokens.extend(sum(next(sizes) for _ in range(count)) for count in self._batch_counts)
        self._batch, self._batch_counts, self._batch_characters = [], [], 0

    def _notes(self, patient: Patient) -> Iterator[str]:
        records = sum(self._records.values())
        yield "All that was read is UTF-8."
        if records:
            yield f"{self._ascii / records:.0%} of the records are plain ASCII."
        if self._marks:
            yield f"{self._marks:,} begin with a byte-order mark, which a build drops."
        if self._crlf:
            yield f"{self._crlf:,} have lines that end in CRLF, which a build turns into a newline."
        if self._labels.counts:
            counts = self._labels.counts.most_common(10)
            rest = len(self._labels.counts) - len(counts)
            told = ", ".join(f"{label[:40]} {count:,}" for label, count in counts)
            yield f"Labels: {told}{f', and {rest:,} more' if rest > 0 else ''}."
        if self._near.not_compared:
            yield f"Near duplicates were looked for among the first {self._near.kept:,} different records."
        if records > len(self._lengths):
            yield f"Lengths are those of the first {len(self._lengths):,} records."
        for left in patient.left_out:
            yield f"{left.sentence} {left.removed:,}: {', '.join(left.examples[:3])}"


def lengths_of(unit: str, values: array[int]) -> Lengths:
    """Quantiles and a histogram whose bars grow by a constant factor, since lengths do."""
    lengths = np.frombuffer(values, np.uint32)
    quantiles = np.percentile(lengths, QUANTILES, method="nearest").astype(int).tolist()
    least, most = int(lengths.min()), int(lengths.max())
    edges = _edges(least, most)
    counts = np.histogram(lengths, edges)[0].tolist()
    bars = [Bar(low, high, count) for low, high, count in zip(edges, edges[1:], counts, strict=False)]
    names = [f"p{share}" for share in QUANTILES]
    return Lengths(unit, least, most, float(lengths.mean()), dict(zip(names, quantiles, strict=True)), bars)


def _edges(least: int, most: int) -> list[int]:
    """At most BARS + 1 edges at 1, 2 and 5 times powers of ten, or fewer of these; `most` is below the last."""
    for steps in ((1, 2, 5), (1, 3), (1,)):
        all_edges = [0, *(step * 10**power for power in range(11) for step in steps)]
        low = max(place for place, edge in enumerate(all_edges) if edge <= least)
        high = min(place for place, edge in enumerate(all_edges) if edge > most)
        if high - low <= BARS:
            return all_edges[low : high + 1]
    return all_edges[low : high + 1]


def _sources(job: Job, build: Build, settings: dict[str, Any]) -> Patient:
    corpus = corpus_of(build, build.cut or LONGEST_TEXT)
    corpus.survey(lambda done, total: job.progress(done, total, "looking"))

    def records() -> Iterator[tuple[str, str, Record]]:
        for file, number, record in corpus.placed(lambda done, total: job.progress(done, total, "checking")):
            yield "all", f"{file}:{number}", record

    return Patient(
        name=", ".join(build.sources),
        kind=corpus.kind,
        records=records(),
        files=len(corpus.found),
        bytes=corpus.size,
        sources=build.sources,
        settings=settings,
        problems=lambda: (corpus.problems, corpus.problem_count),
        left_out=corpus.skipped(),
    )


def _dataset(job: Job, name: str) -> Patient:
    found = find_dataset(job.workspace, name)
    info = found.info
    return Patient(
        name=name,
        kind=info.kind,
        records=_records(job, found),
        files=len(info.sources),
        bytes=sum(info.bytes.values()),
        sources=[source for source in info.settings.get("sources", []) if isinstance(source, str)],
        settings=_known(info.settings),
        problems=lambda: (info.problems, info.problem_count),
        left_out=[],
    )


def _records(job: Job, dataset: Dataset) -> Iterator[tuple[str, str, Record]]:
    """The records of a dataset, training last: what it shares with validation is then known."""
    done, total = 0, sum(dataset.info.records.values())
    for split in sorted(dataset.info.records, key="train".__eq__):
        for number, record in enumerate(read_records(dataset, split), 1):
            done += 1
            job.progress(done, total, "checking")
            yield split, f"{split} {number:,}", record


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that a build still has, without those that are the default."""
    defaults = {field.name: field.default for field in strict.fields(Build)}
    return {key: value for key, value in settings.items() if key in defaults and value != defaults[key]}


def _weight(finding: Finding) -> tuple[bool, int]:
    return not finding.fix, -finding.count
