"""A look at sources before anything is built: what they hold, how sure that is, and what their records become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from stages.build import corpus_of
from stages.data.readers import LONGEST_TEXT
from stages.data.shapes import Fields, Unfit
from stages.data.sources import Corpus, Found
from stages.store import strict
from stages.store.errors import UserError
from stages.store.specs.build import Build

SAMPLES, GROUPS, FILES = 3, 8, 3
"""Records that are shown, ways of writing, and files named for each."""
LONGEST = 2_000
"""Characters of a sampled text that are shown."""


class Job(Protocol):
    """What the desk lends to a verb."""

    def progress(self, done: int, total: int, phase: str = "") -> None:
        """Tell how far the work is."""


def look(job: Job, *, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a build with these settings would read, as plain values. Raises UserError as the build would.

    kind; groups of files that are written alike: shape, kind, certainty (a share), fields that make the record and
    fields that go to its meta; the first records; what is left out; and what could not be read among the first.
    """
    spec = strict.parse(Build, settings, "settings")
    corpus = corpus_of(spec, spec.cut or LONGEST_TEXT)
    corpus.survey(lambda done, total: job.progress(done, total, "looking"), quick=True)
    records = _samples(corpus, job)
    if not corpus.found:
        raise UserError(
            "There is nothing in the sources that can be read.",
            next((f"{problem.file}: {problem.message}" for problem in corpus.problems), ""),
        )
    return {
        "kind": corpus.kind,
        "files": len(corpus.found),
        "groups": _groups(corpus),
        "records": records,
        "left_out": msgspec.to_builtins(corpus.skipped()),
        "problems": msgspec.to_builtins(corpus.problems[:SAMPLES]),
    }


def _groups(corpus: Corpus) -> list[dict[str, Any]]:
    """The files by how they are written, in order."""
    groups: dict[tuple[str, tuple[str, ...], tuple[str, ...]], dict[str, Any]] = {}
    for found in corpus.found:
        used, rest = _fields(found, corpus)
        shape = found.detection.shape.name if found.detection else _without_shape(found)
        group = groups.setdefault(
            (shape, tuple(used), tuple(rest)),
            {
                "shape": shape,
                "form": found.item.form,
                "certainty": 1.0,
                "used": used,
                "meta": rest,
                "count": 0,
                "files": [],
            },
        )
        group["count"] += 1
        group["files"] += [found.source.path] if len(group["files"]) < FILES else []
        group["certainty"] = min(group["certainty"], found.detection.certainty if found.detection else 1.0)
    return list(groups.values())[:GROUPS]


def _without_shape(found: Found) -> str:
    return "starter data" if found.item.form == "starter" else "text" if found.item.form == "text" else "no records"


def _fields(found: Found, corpus: Corpus) -> tuple[list[str], list[str]]:
    """Which of the file's own fields make its records, and which go to their meta."""
    if found.detection is None or not found.first:
        return [], []
    fields = Fields(found.first[0])
    try:
        found.detection.shape.read(fields)
    except Unfit:
        pass
    theirs = corpus.mapping
    used = [f"{theirs[name]} as {name}" if name in theirs else name for name in fields.taken()]
    return used, list(fields.rest())[:20]


def _samples(corpus: Corpus, job: Job) -> list[dict[str, Any]]:
    """The first records of the first files, long texts cut."""
    records: list[dict[str, Any]] = []
    for found in corpus.found:
        if len(records) >= SAMPLES:
            break
        wanted = SAMPLES - len(records)
        sample = corpus.sample(found, wanted, lambda done, total: job.progress(0, 0, "looking"))
        records += [_cut(msgspec.to_builtins(record)) for record in sample]
    return records


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= LONGEST else value[:LONGEST] + "…"
    if isinstance(value, dict):
        return {name: _cut(part) for name, part in value.items()}
    return [_cut(part) for part in value] if isinstance(value, list) else value
