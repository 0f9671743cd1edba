"""Building a dataset: read the sources, clean every document, drop duplicates, split, write canonical records.

It streams: what is held in memory does not grow with the sources, except for about 80 bytes of digest a document.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec

from stages.data.cleaning import Cleaner
from stages.data.readers import LONGEST_TEXT
from stages.data.records import RecordWriter, read_shards
from stages.data.sources import Corpus
from stages.data.split import Split, by_document, cut_tail
from stages.run import Run
from stages.store.building import building
from stages.store.datasets import DatasetInfo, Kind, Problem
from stages.store.errors import UserError
from stages.store.files import check_space, write_atomic
from stages.store.records import Record, TextRecord
from stages.store.sources import is_spooled
from stages.store.specs.build import Build
from stages.store.workspace import Workspace

SPLITS = ("train", "val")

Progress = Callable[[str, int, int], None]
"""Called with the phase, the bytes done and the bytes in all. It may raise, to cancel."""


def run(run: Run) -> dict[str, Any]:
    """Build the dataset that has the run's name; what is in it."""
    settings = run.settings(Build)

    def progress(phase: str, done: int, total: int) -> None:
        run.progress(done, total, unit="bytes", phase=phase)

    try:
        with building(run.workspace.datasets, run.spec.name, "dataset", replace=settings.replace) as folder:
            workspace = run.workspace
            info = build_dataset(folder, run.spec.name, settings, progress, run_id=run.dir.id, workspace=workspace)
    finally:
        for path in filter(is_spooled, map(Path, settings.sources)):
            path.unlink(missing_ok=True)
    print(*report(info), sep="\n", flush=True)
    return {"dataset": info.name, "kind": info.kind, "records": info.records}


def build_dataset(
    folder: Path,
    name: str,
    settings: Build,
    progress: Progress,
    *,
    run_id: str = "",
    workspace: Workspace | None = None,
) -> DatasetInfo:
    """Fill `folder` with records and dataset.json. UserError when no record is left for training or validation.

    `workspace` is where datasets that the settings name are looked for.
    """
    split = Split.parse(settings.split)
    always_whole = split.how == "tail" or settings.cut == 0
    cut = LONGEST_TEXT if always_whole else min(settings.cut, LONGEST_TEXT)
    corpus = corpus_of(settings, cut)
    corpus.survey(lambda done, total: progress("checking", done, total))
    if split.how == "tail" and corpus.kind != "text":
        raise UserError(
            f"The split tail takes the end of a text, and these are records of kind {corpus.kind}.",
            "Choose the split documents:0.1.",
        )
    check_space(folder, corpus.size * (2 if split.how == "tail" else 1))

    with closing(Cleaner(settings, folder, workspace)) as cleaner:
        reader = _Counted(corpus.documents(lambda done, total: progress("reading", done, total)), cleaner)
        if split.how == "tail":
            writers = _write_tail(folder, reader, split, progress)
        elif split.how == "documents":
            writers = _write(folder, corpus.kind, by_document(reader, split.share, settings.seed))
        else:
            writers = _write(folder, corpus.kind, (("train", record) for record in reader))
        filters = cleaner.filters()
    _refuse_empty(corpus, reader, writers, split)

    info = DatasetInfo(
        name=name,
        kind=corpus.kind,
        digest=_digest(corpus.kind, settings, writers),
        records={side: writer.records for side, writer in writers.items()},
        characters={side: writer.characters for side, writer in writers.items()},
        bytes={side: writer.bytes for side, writer in writers.items()},
        sources=corpus.sources,
        filters=corpus.skipped() + filters,
        read=reader.read,
        problems=corpus.problems,
        problem_count=corpus.problem_count,
        split=settings.split,
        settings=msgspec.to_builtins(settings),
        run=run_id,
        created=time.time(),
    )
    write_atomic(folder / "dataset.json", msgspec.json.format(msgspec.json.encode(info), indent=1))
    return info


def corpus_of(settings: Build, cut: int = LONGEST_TEXT) -> Corpus:
    """The sources that a build's settings name, before they are looked at."""
    mapping = dict(pair.split("=", 1) for pair in settings.mapping)
    kind = None if settings.kind == "auto" else settings.kind
    form = None if settings.format == "auto" else settings.format
    return Corpus(settings.sources, cut, kind=kind, mapping=mapping, form=form)


def report(info: DatasetInfo) -> Iterator[str]:
    """What was built, line by line, for the log."""
    yield f"{info.name}, {info.kind}: {info.records['train']:,} for training, {info.records['val']:,} for validation"
    for line in info.filters:
        if line.removed or line.changed:
            yield f"{line.name}: {line.removed:,} removed, {line.changed:,} changed. {line.sentence}"
            yield from (f"    {example}" for example in line.examples)
    if idle := [line.name for line in info.filters if not (line.removed or line.changed)]:
        yield f"nothing to clean by: {', '.join(idle)}"
    yield f"problems: {info.problem_count:,}"
    yield from (f"    {_told(problem)}" for problem in info.problems)


class _Counted:
    """Documents as they come out of cleaning; `read` counts those that went in."""

    def __init__(self, documents: Iterator[Record], cleaner: Cleaner) -> None:
        self._documents, self._cleaner = documents, cleaner
        self.read = 0

    def __iter__(self) -> Iterator[Record]:
        for record in self._documents:
            self.read += 1
            cleaned = self._cleaner.clean(record)
            if cleaned is not None:
                yield cleaned


def _write(folder: Path, kind: Kind, sided: Iterable[tuple[str, Record]]) -> dict[str, RecordWriter]:
    """Write each record to its side; the writers know what they wrote."""
    with ExitStack() as stack:
        writers = {side: stack.enter_context(RecordWriter(folder / "records", side, kind)) for side in SPLITS}
        for side, record in sided:
            writers[side].write(record)
    return writers


def _write_tail(folder: Path, records: _Counted, split: Split, progress: Progress) -> dict[str, RecordWriter]:
    """Where the tail begins is known only at the end: write all once, then again by side."""
    spool = folder / ".spool"
    with RecordWriter(spool, "all") as whole:
        for record in records:
            whole.write(record)
    done = 0

    def again() -> Iterator[TextRecord]:
        nonlocal done
        for record in read_shards(sorted(spool.iterdir())):
            assert isinstance(record, TextRecord)
            yield record
            done += len(record.text)
            progress("splitting", done, whole.characters)

    writers = _write(folder, "text", cut_tail(again(), whole.characters, split.share))
    shutil.rmtree(spool)
    return writers


def _told(problem: Problem) -> str:
    place = ", ".join(filter(None, [problem.file, f"line {problem.line}" if problem.line else "", problem.field]))
    return f"{place}: {problem.message}"


def _digest(kind: Kind, settings: Build, writers: dict[str, RecordWriter]) -> str:
    parts = [kind, settings.split, *(writers[side].digest() for side in SPLITS)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _refuse_empty(corpus: Corpus, reader: _Counted, writers: dict[str, RecordWriter], split: Split) -> None:
    """Raise UserError when training or validation would have nothing to read."""
    noun = "document" if corpus.kind == "text" else "record"
    kept = sum(writer.records for writer in writers.values())
    bad = next((_told(problem) for problem in corpus.problems), "")
    if kept == 0:
        nothing = (
            "There is no text in the sources." if corpus.kind == "text" else "There are no records in the sources."
        )
        what = f"Cleaning left none of {reader.read:,} {noun}s." if reader.read else nothing
        raise UserError(what, bad)
    if writers["train"].records == 0:
        raise UserError(f"Every {noun} fell into the validation part.", "Choose a smaller share.")
    if writers["val"].records == 0 and split.how != "none":
        otherwise = "tail:0.1, which takes the end of the text" if corpus.kind == "text" else "none"
        if bad:
            raise UserError(
                bad if bad.endswith(".") else f"{bad}.",
                f"Mend it: the {kept:,} {noun}{'s' if kept > 1 else ''} left cannot be split by documents. "
                f"Else choose the split {otherwise}.",
            )
        raise UserError(
            f"There are no validation {noun}s: {kept:,} {noun}{'s' if kept > 1 else ''} cannot be split by documents"
            f"{', for all begin alike' if kept > 1 else ''}.",
            f"Choose the split {otherwise}, or add a {noun}{' that begins otherwise' if kept > 1 else ''}.",
        )
