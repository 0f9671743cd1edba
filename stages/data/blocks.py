"""From documents to blocks of tokens: token files made once on demand, and blocks in the order of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stages.data.order import order_at
from stages.data.records import read_texts
from stages.data.shards import SPLITS, Advance, filling, little_endian, made_once, mapped, smallest
from stages.data.tokenizer import FILE as TOKENIZER
from stages.data.tokenizer import TextTokenizer
from stages.store.datasets import Dataset
from stages.store.errors import UNREADABLE, WorkFailed
from stages.store.files import sha256_file, write_atomic
from stages.store.tokenizers import Tokenizer, TokenizerInfo

BATCH_CHARACTERS = 1_000_000
"""Text encoded at once, on all cores; an encoding takes about a hundred times the memory of its text."""


class SplitTokens(msgspec.Struct, frozen=True):
    """One token file: <split>.bin."""

    tokens: int
    bytes: int
    """UTF-8 bytes of the text they stand for."""
    sha256: str


class TokensInfo(msgspec.Struct, frozen=True, kw_only=True):
    """tokens.json beside the token files."""

    dataset_digest: str
    tokenizer_digest: str
    dtype: str
    """uint16 or uint32, little-endian."""
    splits: dict[str, SplitTokens]
    schema: int = 1


class TokenSet(NamedTuple):
    """A dataset in tokens. The arrays are mapped from disk, one-dimensional, uint16 or uint32."""

    train: NDArray[np.unsignedinteger]
    val: NDArray[np.unsignedinteger]
    train_bytes: int
    val_bytes: int


def tokenizer_in(folder: Path) -> Tokenizer:
    """The tokenizer that a model's folder holds, described as the catalogue describes its own."""
    size, digest = TextTokenizer.load(folder).vocab_size, sha256_file(folder / TOKENIZER)
    return Tokenizer(folder, TokenizerInfo(name=folder.name, type="", vocab_size=size, digest=digest))


def token_shards(dataset: Dataset, tokenizer: Tokenizer, progress: Advance | None = None) -> TokenSet:
    """The dataset in tokens of `tokenizer`, every document ended by the end-of-text token; made on the first call.

    `progress` is told the bytes of text done and in all.
    """
    advance = progress or (lambda done, total: None)
    folder = dataset.path / "tokens" / tokenizer.info.digest
    return made_once(
        folder,
        lambda: _open(folder, dataset),
        lambda: _make(folder, dataset, tokenizer, advance),
        lambda: advance(0, _text_bytes(dataset)),
    )


class Blocks:
    """Blocks of context + 1 tokens, beginning every `context` tokens, in training order.

    Each epoch sees every block once, in an order of its own that follows from (seed, epoch) alone; so the position,
    the number of blocks seen so far, is all that a resumed run must know.
    """

    def __init__(self, tokens: NDArray[np.unsignedinteger], context: int, seed: int) -> None:
        self._tokens, self._context, self._seed = tokens, context, seed
        self._offsets = np.arange(context + 1)
        self._count = max(0, (len(tokens) - 1) // context)

    def __len__(self) -> int:
        return self._count

    def batch(self, position: int, count: int) -> NDArray[np.int64]:
        """Blocks `position` to `position + count` of the endless training order: (count, context + 1)."""
        return self.gather(self.order(position, count))

    def in_order(self, start: int, count: int) -> NDArray[np.int64]:
        """Blocks as they stand in the text: (count, context + 1), fewer rows at the end."""
        return self.gather(np.arange(start, min(start + count, self._count)))

    def order(self, position: int, count: int) -> NDArray[np.int64]:
        """Which blocks stand at these positions of the training order: (count,)."""
        return order_at(position, count, self._count, self._seed)

    def gather(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        """The blocks of these numbers: (blocks, context + 1)."""
        return self._tokens[blocks[:, None] * self._context + self._offsets].astype(np.int64)


def _make(folder: Path, dataset: Dataset, entry: Tokenizer, advance: Advance) -> None:
    """Encode every split into a temporary folder, then publish it as `folder`."""
    tokenizer = TextTokenizer.load(entry.path)
    dtype = smallest(tokenizer.vocab_size)
    with filling(folder, _text_bytes(dataset) * np.dtype(dtype).itemsize) as temporary:  # a token is a byte or more
        splits, done = {}, 0
        for split in SPLITS:
            splits[split] = _encode(temporary, dataset, split, tokenizer, dtype, advance, done)
            done += splits[split].bytes
        info = TokensInfo(
            dataset_digest=dataset.info.digest, tokenizer_digest=entry.info.digest, dtype=dtype, splits=splits
        )
        write_atomic(temporary / "tokens.json", msgspec.json.format(msgspec.json.encode(info), indent=1))


def _encode(
    folder: Path, dataset: Dataset, split: str, tokenizer: TextTokenizer, dtype: str, advance: Advance, before: int
) -> SplitTokens:
    """Write <split>.bin, streaming. `before` is the number of bytes that earlier splits had."""
    tokens = size = 0
    path = folder / f"{split}.bin"
    kind = little_endian(dtype)
    with path.open("wb") as file:
        for pieces, ends in _batches(read_texts(dataset, split), tokenizer):
            for ids, end in zip(tokenizer.encode_batch(pieces), ends, strict=True):
                ids += [tokenizer.eos_id] if end else []
                file.write(np.array(ids, dtype=kind).data)  # tofile would not say why a disk refuses
                tokens += len(ids)
            size += sum(len(piece.encode()) for piece in pieces)
            advance(before + size, _text_bytes(dataset))
    if path.stat().st_size != tokens * kind.itemsize:
        raise WorkFailed(f"{path} is shorter than what was written to it.", "The disk may be full.")
    return SplitTokens(tokens, size, sha256_file(path))


def _batches(texts: Iterator[str], tokenizer: TextTokenizer) -> Iterator[tuple[list[str], list[bool]]]:
    """Pieces of documents, about BATCH_CHARACTERS at a time, and whether a document ends with each."""
    pieces: list[str] = []
    ends: list[bool] = []
    characters = 0
    for text in texts:
        parts = tokenizer.cut(text)
        for number, piece in enumerate(parts, 1):
            pieces.append(piece)
            ends.append(number == len(parts))
            characters += len(piece)
            if characters >= BATCH_CHARACTERS:
                yield pieces, ends
                pieces, ends, characters = [], [], 0
    if pieces:
        yield pieces, ends


def _open(folder: Path, dataset: Dataset) -> TokenSet | None:
    """Map the token files; None when they are missing, incomplete, or those of an earlier dataset of this name."""
    try:
        info = msgspec.json.decode((folder / "tokens.json").read_bytes(), type=TokensInfo)
    except UNREADABLE:
        return None
    if info.dataset_digest != dataset.info.digest or info.dtype not in ("uint16", "uint32"):
        return None
    arrays = [mapped(folder / f"{split}.bin", info.splits[split].tokens, info.dtype) for split in SPLITS]
    if any(array is None for array in arrays):
        return None
    train, val = (array for array in arrays if array is not None)
    return TokenSet(train, val, info.splits["train"].bytes, info.splits["val"].bytes)


def _text_bytes(dataset: Dataset) -> int:
    return sum(dataset.info.bytes.values())
