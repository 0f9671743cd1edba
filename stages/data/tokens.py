"""What a tokenizer makes of texts, for people to look at, and taking one in. Verbs of the desk."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stages.data.records import read_records
from stages.data.tokenizer import FILE, TextTokenizer
from stages.data.tokenizer_import import import_tokenizer
from stages.desk import Job
from stages.store.building import building
from stages.store.datasets import Dataset, find_dataset
from stages.store.errors import UserError
from stages.store.files import path_of
from stages.store.records import texts_in
from stages.store.tokenizers import find_tokenizer

LONGEST_TEXT = 1_000_000
"""Characters of all texts of one question."""
BATCH = 500_000
"""Characters encoded at once."""
LONGEST = 20
"""Long tokens that are named."""
NEVER = 40
"""Never-used tokens that are named."""
SOURCES = 20
"""Sources that are named; the rest are one row."""
KEPT = 3
"""Tokenizers kept open."""

Token = tuple[int, str, bool, int]
"""Id, the text it shows, whether it is special, and its length in bytes."""

_kept: OrderedDict[tuple[str, int, int], TextTokenizer] = OrderedDict()
_keeping = threading.Lock()


def of(job: Job, *, tokenizer: str, texts: list[str]) -> list[list[Token]]:
    """The tokens of each text. `tokenizer` is a name, or a folder with a tokenizer.json such as a checkpoint's.

    Their texts, joined, show the text; bytes of a character that is spread over tokens are shown as ‹e3›.
    """
    if sum(map(len, texts)) > LONGEST_TEXT:
        raise UserError(f"The text has more than {LONGEST_TEXT:,} characters.", "Choose a shorter one.")
    found = open_tokenizer(job, tokenizer)
    shown = []
    for text in texts:
        job.check()
        shown.append(tokens_of(found, text))
    return shown


def facts(job: Job, *, tokenizer: str, dataset: str = "", megabytes: int = 0) -> dict[str, Any]:
    """Sizes and the longest tokens; over a dataset also fertility by source and the tokens that never occur.

    megabytes: text to look at, from the beginning, training first; 0 looks at all of it.
    {vocab_size, special: [[id, name]…], longest: [[id, text, bytes]…], dataset?: {name, kind, read, bytes, documents,
    words, tokens, sources: [{source, documents, words, bytes, tokens}…], never: {count, tokens: [[id, text]…]}}}
    """
    found = open_tokenizer(job, tokenizer)
    lengths = sorted((-len(data), number) for number, data in _all_bytes(found))
    special = [[number, found.name_of(number)] for number in sorted(found.special_ids)]
    answer: dict[str, Any] = {
        "vocab_size": found.vocab_size,
        "special": special,
        "longest": [[number, visible(found.token_bytes(number)), -size] for size, number in lengths[:LONGEST]],
    }
    if dataset:
        answer["dataset"] = _over(job, found, find_dataset(job.workspace, dataset), megabytes * 1_000_000)
    return answer


def take_in(job: Job, *, source: str, name: str, end: str = "", pad: str = "", replace: bool = False) -> dict[str, Any]:
    """Import the tokenizer at `source`, a file or a folder, under `name`; its card."""
    with building(job.workspace.tokenizers, name, "tokenizer", replace=replace) as folder:
        info = import_tokenizer(Path(source), folder, name=name, end=end, pad=pad, check=job.check)
    found: dict[str, Any] = msgspec.to_builtins(info)
    return found


def open_tokenizer(job: Job, tokenizer: str) -> TextTokenizer:
    """A tokenizer by its name or its folder, kept open for the next question."""
    if os.sep in tokenizer or tokenizer.startswith("~"):
        folder = path_of(tokenizer)
    else:
        folder = find_tokenizer(job.workspace, tokenizer).path
    try:
        status = (folder / FILE).stat()
    except OSError:
        hint = "Give a tokenizer's name or a checkpoint's folder."
        raise UserError(f"There is no {FILE} in {folder}.", hint) from None
    key = (str(folder), status.st_mtime_ns, status.st_ino)
    with _keeping:
        found = _kept.pop(key, None) or TextTokenizer.load(folder)
        _kept[key] = found
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return found


def tokens_of(tokenizer: TextTokenizer, text: str) -> list[Token]:
    """A text's tokens, each with the part of the text that it shows."""
    special = tokenizer.special_ids
    if tokenizer.by_bytes:
        bytes_of = [(token, tokenizer.token_bytes(token)) for token in tokenizer.encode(text)]
        return [(token, visible(data), token in special, len(data)) for token, data in bytes_of]
    found: list[Token] = []
    shown = 0
    for token, start, end in tokenizer.spans(text):
        if end > shown:
            piece = text[shown:end]  # what stands before it, such as a space, is shown with it
            found.append((token, piece, token in special, len(text[start:end].encode())))
        elif tokenizer.name_of(token).startswith("<0x"):
            found.append((token, visible(tokenizer.token_bytes(token)), False, 1))  # a further byte of a character
        else:
            found.append((token, "", token in special, 0))
        shown = max(shown, end)
    if shown < len(text) and found:
        token, piece, is_special, size = found[-1]
        found[-1] = (token, piece + text[shown:], is_special, size)
    return found


def visible(data: bytes) -> str:
    """Bytes as text; those that are no UTF-8 as ‹e3›."""
    decoded = data.decode(errors="surrogateescape")
    return "".join(char if char < "\udc80" or char > "\udcff" else f"‹{ord(char) - 0xDC00:02x}›" for char in decoded)


def _all_bytes(tokenizer: TextTokenizer) -> Iterator[tuple[int, bytes]]:
    for number in range(tokenizer.vocab_size):
        if number not in tokenizer.special_ids and tokenizer.name_of(number):
            yield number, tokenizer.token_bytes(number)


def _over(job: Job, tokenizer: TextTokenizer, dataset: Dataset, limit: int) -> dict[str, Any]:
    """Count a dataset's tokens."""
    everything = sum(dataset.info.bytes.values())
    total = min(everything, limit) if limit else everything
    used = np.zeros(tokenizer.vocab_size, np.int64)
    rows: dict[str, dict[str, int]] = {}
    read = 0
    for sources, texts in _batches(dataset):
        encoded = tokenizer.encode_batch(texts)
        for source, text, ids in zip(sources, texts, encoded, strict=True):
            row = rows.setdefault(source, dict.fromkeys(("documents", "words", "bytes", "tokens"), 0))
            size = len(text.encode())
            read += size
            for key, count in (("documents", 1), ("words", len(text.split())), ("bytes", size), ("tokens", len(ids))):
                row[key] += count
        used += np.bincount(np.array(list(chain.from_iterable(encoded)), np.int64), minlength=len(used))
        job.progress(min(read, total), total, "encoding")
        if read >= total:
            break
    whole = {key: sum(row[key] for row in rows.values()) for key in ("documents", "words", "bytes", "tokens")}
    shown = sorted(rows.items(), key=lambda pair: (-pair[1]["bytes"], pair[0]))
    named = [{"source": source, **row} for source, row in shown[:SOURCES]]
    if rest := [row for _, row in shown[SOURCES:]]:
        named.append({"source": f"{len(rest):,} more", **{key: sum(row[key] for row in rest) for key in whole}})
    return {
        "name": dataset.name,
        "kind": dataset.info.kind,
        "of_bytes": everything,
        **whole,
        "sources": named,
        "never": _never(tokenizer, used),
    }


def _never(tokenizer: TextTokenizer, used: NDArray[np.int64]) -> dict[str, Any]:
    """Tokens that did not occur, special ones left out: how many, and some of them, evenly over the vocabulary."""
    unused = [int(n) for n in np.flatnonzero(used == 0) if n not in tokenizer.special_ids and tokenizer.name_of(int(n))]
    step = max(1, -(-len(unused) // NEVER))
    return {"count": len(unused), "tokens": [[n, visible(tokenizer.token_bytes(n))] for n in unused[::step]]}


def _batches(dataset: Dataset) -> Iterator[tuple[Sequence[str], list[str]]]:
    """Texts of all records with their sources, about BATCH characters at a time."""
    sources: list[str] = []
    texts: list[str] = []
    characters = 0
    for split in dataset.info.records:
        for record in read_records(dataset, split):
            for text in texts_in(record):
                sources.append(record.source)
                texts.append(text)
                characters += len(text)
            if characters >= BATCH:
                yield sources, texts
                sources, texts, characters = [], [], 0
    if texts:
        yield sources, texts
