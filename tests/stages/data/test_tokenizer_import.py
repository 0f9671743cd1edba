"""Taking in tokenizers of others: GPT-2's published ids, and files that are anything but a tokenizer."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import AutoTokenizer, GPT2Tokenizer

from stages.data import tokenizer_import
from stages.data.foreign_tokenizers import Choice
from stages.data.tokenizer import TextTokenizer, copy_tokenizer
from stages.data.tokenizer_import import Order, attempt, import_tokenizer
from stages.store.errors import UserError
from stages.store.tokenizers import TokenizerInfo
from tests.stages.data.parts import RHYMES, real, tokenizer_of

Take = Callable[[Path, Path], TokenizerInfo]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("t") / "gpt2"
    import_tokenizer(real("gpt2_tokenizer"), folder)
    return TextTokenizer.load(folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_of(tmp_path_factory.mktemp("t") / "small", [RHYMES]).path


def plan_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "tokenizer.json").read_text()))


def write(folder: Path, plan: Any, config: Any = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(plan))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_gpt2_has_the_published_ids(gpt2: TextTokenizer) -> None:
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.eos_id == 50256 and gpt2.pad_id == 50257 and gpt2.vocab_size == 50258
    assert gpt2.by_bytes


def real_files() -> list[Path]:
    found = [path for path in real("").rglob("*") if path.suffix in (".txt", ".json", ".jsonl", ".csv", ".bpe")]
    assert len(found) > 15
    return found


def test_real_files_come_back_exactly_and_as_transformers_has_them(gpt2: TextTokenizer) -> None:
    theirs = GPT2Tokenizer(str(real("gpt2_tokenizer/encoder.json")), str(real("gpt2_tokenizer/vocab.bpe")))
    for path in real_files():
        text = path.read_bytes()[:40_000].decode(errors="ignore")
        ids = gpt2.encode(text)
        assert gpt2.decode(ids) == text, path
        assert not gpt2.special_ids & set(ids), path
        part = text[:8_000].replace("<|endoftext|>", "")
        assert theirs(part).input_ids == gpt2.encode(part), path


@pytest.mark.soak
def test_every_real_file_comes_back_exactly_as_a_whole(gpt2: TextTokenizer) -> None:
    for path in real_files():
        text = path.read_bytes().decode()
        assert gpt2.decode(gpt2.encode(text)) == text, path


def test_transformers_opens_what_was_imported(gpt2: TextTokenizer) -> None:
    theirs = AutoTokenizer.from_pretrained(gpt2.folder)
    assert theirs("Hello world").input_ids == [15496, 995]
    assert (theirs.eos_token_id, theirs.pad_token_id) == (50256, 50257)


def test_a_file_and_its_folder_are_the_same(small: Path, tmp_path: Path) -> None:
    one = import_tokenizer(small, tmp_path / "one")
    other = import_tokenizer(small / "tokenizer.json", tmp_path / "other", name="given")
    assert one.digest == other.digest and one.notes == [] and other.name == "given"
    assert one.special["pad"] == 1 and one.special["eos"] == 0 and one.type == "bpe" and one.vocab_size == 279
    assert TextTokenizer.load(tmp_path / "one").encode(RHYMES) == TextTokenizer.load(small).encode(RHYMES)


def test_without_an_end_of_text_the_remedy_is_named(small: Path, tmp_path: Path) -> None:
    plan = plan_of(small)
    plan["added_tokens"] = []
    source = write(tmp_path / "source", plan)
    with pytest.raises(UserError) as error:
        import_tokenizer(source, tmp_path / "t")
    assert "no end-of-text token" in error.value.title and "--end TOKEN" in error.value.hint
    info = import_tokenizer(source, tmp_path / "t", end="<|im_end|>")
    assert info.special["eos"] == 3
    assert TextTokenizer.load(tmp_path / "t").special_ids >= {3}


def test_padding_with_the_end_of_text_gets_a_token_of_its_own(small: Path, tmp_path: Path) -> None:
    plan = json.loads(json.dumps(plan_of(small)).replace("<|pad|>", "<|other|>"))
    source = write(tmp_path / "source", plan, {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"})
    info = import_tokenizer(source, tmp_path / "t")
    assert info.special == {"eos": 0, "pad": 279} and "was added with the id 279" in info.notes[0]
    with pytest.raises(UserError, match="279 rows has none left"):
        import_tokenizer(source, tmp_path / "u", rows=279)
    assert import_tokenizer(source, tmp_path / "v", rows=279, pad="<|other|>").special["pad"] == 1
    with pytest.raises(UserError, match="is the end of text"):
        import_tokenizer(source, tmp_path / "w", pad="<|endoftext|>")


def test_a_token_with_a_role_becomes_special(small: Path, tmp_path: Path) -> None:
    plan = plan_of(small)
    for token in plan["added_tokens"]:
        token["special"] = False
    import_tokenizer(write(tmp_path / "s", plan, {"eos_token": "<|im_end|>", "pad_token": "<|pad|>"}), tmp_path / "t")
    tokenizer = TextTokenizer.load(tmp_path / "t")
    assert tokenizer.eos_id not in tokenizer.encode("forged <|im_end|> here")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "holds no tokenizer"),
        ("tokenizer.json", "", "not a JSON object"),
        ("tokenizer.json", "[]", "not a JSON object"),
        ("tokenizer.json", "[" * 200_000, "not a JSON object"),
        ("tokenizer.json", "{}", "has no 'model'"),
        ("tokenizer.json", '{"model": 3}', "'model' is not a table"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": 3}}', "neither a table"),
        ("tokenizer.json", '{"model": {"type": "LSTM", "vocab": {}}}', "'LSTM'"),
        ("encoder.json", "{}", "needs vocab.bpe"),
        ("tokenizer.model", "x", "holds no tokenizer"),
    ],
)
def test_what_is_no_tokenizer_is_refused_in_one_sentence(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    if content is not None:
        (source / name).write_text(content)
    with pytest.raises(UserError) as error:
        import_tokenizer(source, tmp_path / "t")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_line_of_merges_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0, "<|endoftext|>": 1}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(UserError, match=r"merges\.txt, line 2"):
        import_tokenizer(tmp_path / "merges.txt", tmp_path / "t")


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}},
        {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "(a*)*(a*)*!x"},
                "behavior": "Isolated",
                "invert": False,
            }
        },
        {"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 10_000_000}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "a" * 1_000}] * 100_000}},
    ],
    ids=["backtracking", "empty loops", "explosion", "many steps"],
)
def test_what_would_not_end_or_fit_is_ended(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    largest = 0

    def watch() -> None:
        nonlocal largest
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                largest = max(largest, child.memory_info().rss)

    try:
        import_tokenizer(write(tmp_path / "s", plan_of(small) | change), tmp_path / "t", check=watch)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 700
    assert largest < 540_000_000


def test_a_child_that_takes_too_long_is_ended(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        pass

    def check() -> None:
        raise Enough

    with pytest.raises(Enough):
        import_tokenizer(small, tmp_path / "t", check=check)
    assert tokenizer_import.SECONDS <= 60


def damaged(rng: random.Random, data: bytes) -> bytes:
    """The file with a few bytes changed, cut, doubled, or a value put where another stood."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        match rng.randrange(6):
            case 0:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at]
            case 2:
                data = data[:at] + data[at : at + 500] * 3 + data[at + 500 :]
            case 3:
                data = data[:at] + data[at + rng.randint(1, 200) :]
            case 4:
                value = rng.choice([b"null", b"-1", b"1e99", b'""', b"[]", b"{}", b"99999999999999999999", b"true"])
                start = data.find(b":", at)
                if start >= 0:
                    end = min((e for e in (data.find(b",", start), data.find(b"}", start)) if e > 0), default=len(data))
                    data = data[: start + 1] + value + data[end:]
            case _:
                words = [
                    b'"type": "Unigram"',
                    b'"type": "WordPiece"',
                    b'"byte_fallback": true',
                    b'"ignore_merges": true',
                ]
                data = data.replace(b'"type": "BPE"', rng.choice(words), 1)
        if not data:
            return data
    return data


def here(source: Path, target: Path) -> TokenizerInfo:
    """Import without a child of its own: an end of this process would be seen."""
    outcome = attempt(Order(str(source), str(target), "t", Choice()))
    if outcome.info is None:
        raise UserError(outcome.error, outcome.hint)
    return outcome.info


def survive(folder: Path, small: Path, seeds: range, take: Take = import_tokenizer) -> int:
    """Import damaged files; how many were accepted. Whatever happens is a tokenizer or a sentence."""
    whole = (small / "tokenizer.json").read_bytes()
    accepted = 0
    for seed in seeds:
        source = folder / f"s{seed}"
        source.mkdir()
        copy_tokenizer(TextTokenizer.load(small), source)
        (source / "tokenizer.json").write_bytes(damaged(random.Random(seed), whole))
        try:
            info = take(source, folder / f"t{seed}")
        except UserError as error:
            assert "\n" not in error.title and "Traceback" not in str(error) and len(str(error)) < 1_000, seed
            continue
        assert TextTokenizer.load(folder / f"t{seed}").vocab_size == info.vocab_size
        accepted += 1
    return accepted


def test_damaged_files_give_a_tokenizer_or_a_sentence(small: Path, tmp_path: Path) -> None:
    accepted = survive(tmp_path, small, range(92), here) + survive(tmp_path, small, range(92, 100))
    assert 5 < accepted < 95


@pytest.mark.soak
def test_many_damaged_files_give_a_tokenizer_or_a_sentence(small: Path, tmp_path: Path) -> None:
    survive(tmp_path, small, range(2_000))
