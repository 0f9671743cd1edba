"""Packing: token files that are whole or absent, and an order that shows every block once an epoch."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.data import blocks
from stages.data.blocks import Blocks, token_shards
from stages.data.order import permute
from stages.data.tokenizer import TextTokenizer, cut_for_encoding
from stages.store.datasets import Dataset
from stages.store.errors import WorkFailed
from stages.store.tokenizers import Tokenizer
from stages.store.workspace import installation_root
from tests.stages.data.parts import RHYMES, dataset_of, real, tokenizer_of

LINES = RHYMES.splitlines(keepends=True)


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Dataset, Tokenizer]:
    return dataset_of(tmp_path / "data", LINES[:250], LINES[250:]), tokenizer_of(tmp_path / "bpe", LINES)


@settings(deadline=None)
@given(st.integers(1, 3_000), st.integers(0, 2**31 - 1), st.integers(0, 1_000))
def test_an_epoch_holds_every_block_once(size: int, seed: int, epoch: int) -> None:
    sent = permute(np.arange(size, dtype=np.uint64), size, seed, epoch)
    assert np.array_equal(np.sort(sent), np.arange(size))


def test_the_order_follows_from_seed_and_epoch_and_looks_random() -> None:
    size = 10_000
    indices = np.arange(size, dtype=np.uint64)
    orders = [permute(indices, size, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert np.array_equal(orders[0], permute(indices, size, 0, 0))
    for n, order in enumerate(orders):
        for other in [np.arange(size), *orders[:n]]:
            assert np.sum(order == other) < 10
            assert abs(np.corrcoef(order, other)[0, 1]) < 0.05
        steps = np.diff(order)
        assert np.sum(np.abs(steps) == 1) < 20 and abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.05


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 200), st.integers(1, 7), st.integers(0, 500), st.integers(1, 90))
def test_a_batch_is_its_blocks_one_by_one_across_epochs(tokens: int, context: int, position: int, count: int) -> None:
    blocks = Blocks(np.arange(tokens, dtype=np.uint16), context, seed=3)
    if len(blocks) == 0:
        return
    batch = blocks.batch(position, count)
    assert batch.shape == (count, context + 1) and batch.dtype == np.int64
    singles = [blocks.batch(position + n, 1) for n in range(count)]
    assert np.array_equal(batch, np.concatenate(singles))
    assert np.all(np.diff(batch, axis=1) == 1) and np.all(batch[:, 0] % context == 0)
    once = blocks.batch(5 * len(blocks), len(blocks))[:, 0]
    assert sorted(once) == [n * context for n in range(len(blocks))]


def test_every_token_but_the_rest_is_predicted_once_an_epoch() -> None:
    blocks = Blocks(np.arange(103, dtype=np.uint16), 10, seed=0)
    assert len(blocks) == 10
    assert sorted(blocks.batch(0, 10)[:, 1:].flat) == list(range(1, 101))
    assert len(Blocks(np.arange(101, dtype=np.uint16), 10, seed=0)) == 10
    assert len(Blocks(np.arange(100, dtype=np.uint16), 10, seed=0)) == 9
    assert len(Blocks(np.arange(10, dtype=np.uint16), 10, seed=0)) == 0
    assert len(Blocks(np.arange(0, dtype=np.uint16), 10, seed=0)) == 0


def test_validation_reads_in_order_and_ends_short() -> None:
    blocks = Blocks(np.arange(50, dtype=np.uint16), 7, seed=0)
    assert [row[0] for row in blocks.in_order(4, 10)] == [28, 35, 42]
    assert blocks.in_order(7, 4).shape == (0, 8)


def test_the_order_of_a_trillion_blocks_takes_no_memory() -> None:
    size = 10**12
    sent = permute(np.arange(5, dtype=np.uint64) + np.uint64(size - 5), size, 0, 0)
    assert len(set(sent.tolist())) == 5 and sent.min() >= 0 and sent.max() < size


def test_documents_are_joined_by_the_end_of_text(parts: tuple[Dataset, Tokenizer]) -> None:
    dataset, entry = parts
    tokenizer = TextTokenizer.load(entry.path)
    tokens = token_shards(dataset, entry)
    for split, texts in ((tokens.train, LINES[:250]), (tokens.val, LINES[250:])):
        expected = [token for text in texts for token in [*tokenizer.encode(text), tokenizer.eos_id]]
        assert split.tolist() == expected and split.dtype == np.uint16
    assert (tokens.train_bytes, tokens.val_bytes) == (dataset.info.bytes["train"], dataset.info.bytes["val"])


def test_long_documents_are_encoded_in_pieces_to_the_same_tokens(
    parts: tuple[Dataset, Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, entry = parts
    whole = token_shards(dataset_of(tmp_path / "one", [RHYMES, RHYMES], [RHYMES]), entry)
    monkeypatch.setattr(blocks, "BATCH_CHARACTERS", 300)
    monkeypatch.setattr(TextTokenizer, "cut", lambda self, text: cut_for_encoding(text, 100))
    pieces = token_shards(dataset_of(tmp_path / "two", [RHYMES, RHYMES], [RHYMES]), entry)
    assert pieces.train.tolist() == whole.train.tolist() and pieces.val.tolist() == whole.val.tolist()


def test_files_are_made_once_and_made_again_when_incomplete_or_of_another_dataset(
    parts: tuple[Dataset, Tokenizer],
) -> None:
    dataset, entry = parts
    calls: list[int] = []
    before = token_shards(dataset, entry, lambda done, total: calls.append(done)).train.tolist()
    assert calls[-1] == sum(dataset.info.bytes.values())
    calls.clear()
    token_shards(dataset, entry, lambda done, total: calls.append(done))
    assert calls == []
    path = dataset.path / "tokens" / entry.info.digest / "train.bin"
    path.write_bytes(path.read_bytes()[:-2])
    assert token_shards(dataset, entry, lambda done, total: calls.append(done)).train.tolist() == before
    assert calls
    calls.clear()
    renamed = dataset._replace(info=msgspec.structs.replace(dataset.info, digest="another"))
    token_shards(renamed, entry, lambda done, total: calls.append(done))
    assert calls


def test_a_dataset_without_validation_gives_an_empty_split(tmp_path: Path, parts: tuple[Dataset, Tokenizer]) -> None:
    tokens = token_shards(dataset_of(tmp_path / "no-val", LINES, []), parts[1])
    assert len(tokens.val) == 0 and tokens.val_bytes == 0 and len(tokens.train) > 0


def test_large_vocabularies_take_four_bytes(
    parts: tuple[Dataset, Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, entry = parts
    small = token_shards(dataset, entry)
    monkeypatch.setattr(TextTokenizer, "vocab_size", 2**16 + 1)
    large = token_shards(dataset_of(tmp_path / "large", LINES[:250], LINES[250:]), entry)
    assert large.train.dtype == np.uint32 and large.train.tolist() == small.train.tolist()


def test_cancelling_leaves_nothing(parts: tuple[Dataset, Tokenizer]) -> None:
    dataset, entry = parts

    class Cancelled(Exception):
        pass

    def cancel(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        token_shards(dataset, entry, cancel)
    assert [path.name for path in (dataset.path / "tokens").iterdir() if path.is_dir()] == []
    assert len(token_shards(dataset, entry).train) > 0


@pytest.mark.parametrize("limit", [100, 2_000])
def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_nothing(
    parts: tuple[Dataset, Tokenizer], limit: int
) -> None:
    dataset, entry = parts
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(WorkFailed, match="allows no larger file") as caught:
            token_shards(dataset, entry)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(dataset.path) in caught.value.title
    assert [path.name for path in (dataset.path / "tokens").iterdir() if path.is_dir()] == []
    assert len(token_shards(dataset, entry).train) > 0


MAKE = """
import sys
from pathlib import Path
import msgspec
from stages.data.blocks import token_shards
from stages.store.datasets import Dataset, DatasetInfo
from stages.store.tokenizers import Tokenizer, TokenizerInfo
data, tokenizer, info, entry, slow = sys.argv[1:]
dataset = Dataset(Path(data), msgspec.json.decode(info, type=DatasetInfo))
def advance(done, total):
    print(done, flush=True)
    if slow == "wait":
        sys.stdin.readline()
tokens = token_shards(
    dataset, Tokenizer(Path(tokenizer), msgspec.json.decode(entry, type=TokenizerInfo)), advance
)
print("tokens", len(tokens.train), int(tokens.train.sum()), flush=True)
"""


def maker(parts: tuple[Dataset, Tokenizer], *, slow: bool) -> subprocess.Popen[str]:
    dataset, entry = parts
    encoded = [msgspec.json.encode(value).decode() for value in (dataset.info, entry.info)]
    return subprocess.Popen(
        [sys.executable, "-c", MAKE, str(dataset.path), str(entry.path), *encoded, "wait" if slow else "go"],
        cwd=installation_root(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_second_process_waits_for_the_first_and_a_killed_one_leaves_no_trace(
    parts: tuple[Dataset, Tokenizer],
) -> None:
    dataset, entry = parts
    first = maker(parts, slow=True)
    assert first.stdout is not None and first.stdout.readline().strip().isdigit()
    second = maker(parts, slow=False)
    assert second.stdout is not None and second.stdout.readline().strip() == "0"  # it waits, and says so
    assert len(list((dataset.path / "tokens").glob(".tmp-*"))) == 1
    first.send_signal(signal.SIGKILL)
    first.wait()
    out, _ = second.communicate(timeout=60)
    tokens = token_shards(dataset, entry)
    assert out.splitlines()[-1] == f"tokens {len(tokens.train)} {int(tokens.train.sum())}"
    assert list((dataset.path / "tokens").glob(".tmp-*")) == []


def test_tiny_shakespeare_in_bytes_is_one_text_and_its_end(tmp_path: Path) -> None:
    text = real("tinyshakespeare/input.txt").read_text()
    dataset = dataset_of(tmp_path / "data", [text[:1_003_854]], [text[1_003_854:]])
    entry = tokenizer_of(tmp_path / "byte", [], kind="byte")
    began = time.monotonic()
    tokens = token_shards(dataset, entry)
    assert (len(tokens.train), len(tokens.val)) == (1_003_855, 111_541)
    assert TextTokenizer.load(entry.path).decode(tokens.val.tolist()) == text[1_003_854:]
    assert time.monotonic() - began < 60, "encoding a megabyte must take seconds"
    assert (dataset.path / "tokens" / entry.info.digest / "val.bin").stat().st_size == 2 * 111_541
