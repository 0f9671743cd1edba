"""A desk verb: the records of files that are no dataset, for what the app takes in itself, such as labels."""

from __future__ import annotations

from typing import Any

import msgspec

from stages.data.sources import Corpus
from stages.desk import Job
from stages.store.errors import UserError

MOST = 50_000
"""Records that are handed over at once, at most; more is for a dataset."""


def records_of(job: Job, sources: list[str], kind: str) -> dict[str, Any]:
    """Every record of `kind` in the sources: {records, problems}. UserError when there are none, or too many."""
    corpus = Corpus(sources, 0, kind=kind)  # type: ignore[arg-type]  # the caller names one of the kinds
    corpus.survey(lambda done, total: job.progress(done, total, "checking"))
    records = []
    for record in corpus.documents(lambda done, total: job.progress(done, total, "reading")):
        records.append(msgspec.to_builtins(record))
        if len(records) > MOST:
            raise UserError(f"There are more than {MOST:,} records.", "Build a dataset of them first.")
    if not records:
        told = [f"{problem.file}, line {problem.line}: {problem.message}" for problem in corpus.problems[:1]]
        raise UserError(f"There are no records of kind {kind}.", *told)
    problems = [msgspec.to_builtins(problem) for problem in corpus.problems]
    return {"records": records, "problems": problems, "problem_count": corpus.problem_count}
