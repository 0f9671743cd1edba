"""What datasets cost: cleaning with and without near duplicates, and turning text into tokens.

    python -m benchmarks.data [--megabytes 60] [--large 0]

The corpus is the Python installation's own library, each further pass over it with some words exchanged, so that it
has exact duplicates, near duplicates and new text. With `--large`, a second build of so many megabytes, for its memory.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from tokenizers import Tokenizer as Bare

from stages.data.blocks import token_shards
from stages.data.records import read_texts
from stages.data.tokenizer import save_tokenizer, train_tokenizer
from stages.store.datasets import Dataset, DatasetInfo
from stages.store.tokenizers import Tokenizer, TokenizerInfo
from stages.store.workspace import installation_root

CLEANING = 5.0
"""MB/s of cleaning with exact and near duplicates on two cores: target of the project."""
ENCODING = 0.8
"""Of a bare encode_batch_fast over the same text: target of the project."""
MEMORY = 1000
"""MB that a build may take: target of the project."""
PASSES = 5
EXCHANGED = (0.0, 0.001, 0.3)
"""Shares of words exchanged in the second pass over a file, the third, and all later ones."""
WORD = re.compile(r"[A-Za-z]{4,}")

BUILD = """
import json, resource, sys, time
from pathlib import Path
from stages.build import build_dataset
from stages.store.specs.build import Build
folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
began, used = time.perf_counter(), time.process_time()
info = build_dataset(folder, folder.name, Build(**settings), lambda phase, done, total: None)
spent = time.perf_counter() - began, time.process_time() - used
print(json.dumps([*spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def generate(folder: Path, megabytes: int) -> int:
    """Write `corpus.jsonl` into `folder`, a file of the library in each line; the bytes of text in it."""
    size = 0
    with (folder / "corpus.jsonl").open("wb") as file:
        for text in _texts():
            file.write(msgspec.json.encode({"text": text}) + b"\n")
            size += len(text.encode())
            if size >= megabytes * 1e6:
                break
    return size


def _texts() -> Iterator[str]:
    chosen = random.Random(7)
    paths = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    originals = [path.read_text("utf-8", "ignore") for path in paths if "site-packages" not in path.parts]
    vocabulary = sorted({word for text in originals[:200] for word in WORD.findall(text)})
    yield from originals
    for turn in range(1_000):
        share = EXCHANGED[min(turn, len(EXCHANGED) - 1)]
        for text in originals:
            yield WORD.sub(lambda m: chosen.choice(vocabulary) if chosen.random() < share else m[0], text)  # noqa: B023


def build(folder: Path, sources: Path, **settings: object) -> tuple[float, float, float]:
    """Build a dataset in a process of its own: seconds, seconds of processor time, and its largest memory in MB."""
    folder.mkdir(parents=True)
    arguments = msgspec.json.encode({"sources": [str(sources)], **settings}).decode()
    command = [sys.executable, "-c", BUILD, str(folder), arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=installation_root())
    wall, processor, memory = msgspec.json.decode(done.stdout.splitlines()[-1], type=tuple[float, float, float])
    return wall, processor, memory


def cleaning(root: Path, megabytes: int) -> Dataset:
    """Print what builds cost; the dataset that was built without near duplicates."""
    (sources := root / "sources").mkdir(parents=True)
    size = generate(sources, megabytes) / 1e6
    ways = {
        "exact duplicates": {},
        "exact and near duplicates": {"near_duplicates": True},
        "and quality": {"near_duplicates": True, "quality": True},
    }
    for number, (name, settings) in enumerate(ways.items()):
        wall, processor, memory = build(root / f"built-{number}", sources, **settings)
        goal = f"(goal {CLEANING:g}, {MEMORY} MB)" if number == 1 else ""
        speed = f"{size / wall:5.1f} MB/s, {size / processor:5.1f} by processor time"
        print(f"build of {size:,.0f} MB, {name:<26} {speed}, {memory:4.0f} MB {goal}", flush=True)
    folder = root / "built-0"
    return Dataset(folder, msgspec.json.decode((folder / "dataset.json").read_bytes(), type=DatasetInfo))


def encoding(root: Path, dataset: Dataset) -> None:
    """Print the speed of token files beside a bare encode_batch_fast, turn by turn over the same text."""
    texts = list(read_texts(dataset, "train"))
    folder = root / "tokenizer"
    folder.mkdir()
    save_tokenizer(train_tokenizer(texts[::10], "bpe", 8_192, split_digits=True), folder)
    entry = Tokenizer(folder, TokenizerInfo(name="t", type="bpe", vocab_size=8_192, digest="0" * 64))
    bare = Bare.from_file(str(folder / "tokenizer.json"))
    bytes_ = sum(dataset.info.bytes.values())
    train = dataset.info.bytes["train"]
    ours, theirs = [], []
    for turn in range(PASSES):
        named = entry._replace(info=msgspec.structs.replace(entry.info, digest=f"{turn:064d}"))
        began = time.perf_counter()
        token_shards(dataset, named)
        ours.append(bytes_ / (time.perf_counter() - began) / 1e6)
        began = time.perf_counter()
        for start in range(0, len(texts), 1_000):
            bare.encode_batch_fast(texts[start : start + 1_000], add_special_tokens=False)
        theirs.append(train / (time.perf_counter() - began) / 1e6)
    ratios = sorted(one / other for one, other in zip(ours, theirs, strict=True))
    print(f"encoding of {bytes_ / 1e6:,.0f} MB: {max(ours):.1f} MB/s; a bare encode_batch_fast {max(theirs):.1f} MB/s")
    print(f"    ratio, median of {PASSES} turns: {ratios[PASSES // 2]:.2f} (goal {ENCODING:g})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=60)
    parser.add_argument("--large", type=int, default=0, help="also build so many megabytes, for the memory")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="workbench-bench-") as name:
        root = Path(name)
        dataset = cleaning(root / "small", arguments.megabytes)
        encoding(root, dataset)
        if arguments.large:
            cleaning(root / "large", arguments.large)


if __name__ == "__main__":
    main()
