"""Sources of answers: passages of a folder or a dataset that fit a question. Verbs of the desk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from stages.data.records import read_records
from stages.desk import Job
from stages.store.datasets import Dataset, find_dataset
from stages.store.records import texts_in
from stages.store.retrieval import Document, Extent, Index, files_in, index_path


def look(job: Job, source: str) -> dict[str, Any]:
    """What a source holds, brought up to date: {source, kind, documents, passages, skipped}."""
    with _index(job, source) as (_, extent, kind):
        return {"source": source, "kind": kind, **extent._asdict()}


def find(job: Job, source: str, question: str, count: int = 3) -> dict[str, Any]:
    """The passages that fit a question best: {passages: [{document, line, text, score}], documents, skipped}.

    The source is brought up to date first.
    """
    with _index(job, source) as (index, extent, _):
        found = [passage._asdict() for passage in index.search(question, count)]
        return {"passages": found, "documents": extent.documents, "skipped": extent.skipped}


@contextlib.contextmanager
def _index(job: Job, source: str) -> Iterator[tuple[Index, Extent, str]]:
    """The index of a source, an absolute path or a dataset's name, as it is now; and its kind."""
    if Path(source).is_absolute():
        key, kind, whole, documents = source, "folder", "", files_in(Path(source))
    else:
        dataset = find_dataset(job.workspace, source)
        key, kind, whole = f"dataset:{dataset.name}", "dataset", dataset.info.digest
        documents = records_in(dataset)
    index = Index(index_path(job.workspace, key))
    try:
        yield index, index.update(documents, job.check, whole=whole), kind
    finally:
        index.close()


def records_in(dataset: Dataset) -> Iterator[Document]:
    """Every record of a dataset as a document. None is read anew while the dataset is the same."""
    for split in dataset.info.records:
        for number, record in enumerate(read_records(dataset, split), 1):
            text = "\n".join(texts_in(record))
            yield Document(f"{dataset.name}, {split} {number:,}", dataset.info.digest, partial(str, text))
