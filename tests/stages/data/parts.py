"""Small real parts for tests of data: datasets on disk, and the real texts where there are some."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from stages.build import build_dataset
from stages.data.records import RecordWriter
from stages.data.tokenizer import save_tokenizer, train_tokenizer
from stages.store.datasets import Dataset, DatasetInfo
from stages.store.records import TextRecord
from stages.store.specs.build import Build
from stages.store.tokenizers import Tokenizer, TokenizerInfo

RHYMES = "".join(f"{n} green bottles, {n * 7 % 13} brown ones.\n" for n in range(300))


def real(name: str) -> Path:
    """A file of the real data; skips the test where there is none."""
    root = os.environ.get("WORKBENCH_TEST_DATA")
    if not root:
        pytest.skip("WORKBENCH_TEST_DATA is not set")
    return Path(root) / name


def build(folder: Path, *sources: Path | str, **settings: Any) -> Dataset:
    """Build a dataset in `folder` without a run."""
    folder.mkdir(parents=True)
    spec = Build(sources=[str(source) for source in sources], **settings)
    return Dataset(folder, build_dataset(folder, folder.name, spec, lambda phase, done, total: None))


def dataset_of(folder: Path, train: list[str], val: list[str]) -> Dataset:
    """A dataset that holds exactly these texts."""
    sizes, digest = {}, hashlib.sha256()
    for split, texts in (("train", train), ("val", val)):
        with RecordWriter(folder / "records", split) as writer:
            for text in texts:
                writer.write(TextRecord(text=text, source="here"))
        sizes[split] = writer
        digest.update(writer.digest().encode())
    info = DatasetInfo(
        name=folder.name,
        kind="text",
        digest=digest.hexdigest(),
        records={split: writer.records for split, writer in sizes.items()},
        bytes={split: writer.bytes for split, writer in sizes.items()},
    )
    return Dataset(folder, info)


def tokenizer_of(folder: Path, texts: list[str], *, kind: str = "bpe", vocab_size: int = 400) -> Tokenizer:
    """A tokenizer trained on these texts."""
    folder.mkdir(parents=True)
    trained = train_tokenizer(texts, kind, vocab_size, split_digits=True)
    save_tokenizer(trained, folder)
    digest = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    return Tokenizer(
        folder, TokenizerInfo(name=folder.name, type=kind, vocab_size=trained.get_vocab_size(), digest=digest)
    )
