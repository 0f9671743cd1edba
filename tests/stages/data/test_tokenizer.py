"""Tokenizers: exact round trips, text that stays text, the same result every time, and files that others open."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer

from stages.data.tokenizer import (
    END,
    PAD,
    SPECIAL,
    TextTokenizer,
    copy_tokenizer,
    cut_for_encoding,
    train_tokenizer,
)
from stages.store.errors import UserError
from stages.store.workspace import installation_root
from tests.stages.data.parts import RHYMES, real, tokenizer_of


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer.load(tokenizer_of(tmp_path_factory.mktemp("t") / "bpe", [RHYMES]).path)


@pytest.fixture(scope="module")
def by_bytes(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer.load(tokenizer_of(tmp_path_factory.mktemp("t") / "byte", [], kind="byte").path)


@given(st.text(max_size=200))
def test_any_text_comes_back_exactly(bpe: TextTokenizer, by_bytes: TextTokenizer, text: str) -> None:
    for tokenizer in (bpe, by_bytes):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
        assert not tokenizer.special_ids & set(ids)


def test_bytes_are_the_same_with_no_merges(by_bytes: TextTokenizer) -> None:
    assert by_bytes.vocab_size == 256 + len(SPECIAL)
    assert len(by_bytes.encode("héllo wörld 日本")) == len("héllo wörld 日本".encode())
    assert sorted(map(by_bytes.token_bytes, range(4, 260))) == [bytes([byte]) for byte in range(256)]


def test_padding_is_never_the_end_of_text(bpe: TextTokenizer, by_bytes: TextTokenizer) -> None:
    for tokenizer in (bpe, by_bytes):
        assert tokenizer.pad_id != tokenizer.eos_id
        assert tokenizer.token_bytes(tokenizer.eos_id) == END.encode()
        assert tokenizer.token_bytes(tokenizer.pad_id) == PAD.encode()


@pytest.mark.parametrize("name", SPECIAL)
def test_what_looks_like_a_special_token_in_text_is_text(bpe: TextTokenizer, name: str) -> None:
    text = f"before {name} after"
    for ids in (bpe.encode(text), bpe.encode_batch([text])[0]):
        assert not bpe.special_ids & set(ids)
        assert bpe.decode(ids) == text


def test_a_prompt_by_a_program_has_the_special_tokens_that_it_names(bpe: TextTokenizer) -> None:
    theirs = AutoTokenizer.from_pretrained(bpe.folder)
    for text in (f"{END}before{SPECIAL[2]} after\n", "nothing but text", END):
        assert bpe.encode_prompt(text) == theirs(text)["input_ids"]
    assert bpe.encode(END) != [bpe.eos_id], "and text stays text"


def test_a_begin_of_text_that_a_prompt_names_is_not_put_before_it_again(bpe: TextTokenizer, tmp_path: Path) -> None:
    copy_tokenizer(bpe, tmp_path)
    known = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    known.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, bpe.eos_id)])
    known.save(str(tmp_path / "tokenizer.json"))
    begins = TextTokenizer.load(tmp_path)
    assert begins.encode_prompt("gold") == begins.encode_prompt(f"{END}gold") == [bpe.eos_id, *bpe.encode("gold")]


def test_special_tokens_are_decoded_only_when_asked_for(bpe: TextTokenizer) -> None:
    ids = [*bpe.encode("end"), bpe.eos_id]
    assert bpe.decode(ids) == "end"
    assert bpe.decode(ids, skip_special=False) == "end" + END


def test_every_digit_is_a_token_of_its_own(bpe: TextTokenizer) -> None:
    pieces = [bpe.token_bytes(token) for token in bpe.encode("in 1984 and 2024x7")]
    digits = [piece for piece in pieces if any(chr(byte).isdigit() for byte in piece)]
    assert digits == [b"1", b"9", b"8", b"4", b"2", b"0", b"2", b"4", b"7"]


def test_digits_may_join_when_that_is_asked_for() -> None:
    trained = train_tokenizer(["1984 " * 50], "bpe", 300, split_digits=False)
    assert "1984" in trained.get_vocab()


def test_cutting_a_long_text_does_not_change_its_tokens(bpe: TextTokenizer) -> None:
    text = "  two  spaces\n\n\nand 12 345\tothers ...  \n x" * 3
    whole = bpe.encode(text)
    for size in range(1, 40):
        pieces = cut_for_encoding(text, size)
        assert "".join(pieces) == text
        assert [token for ids in bpe.encode_batch(pieces) for token in ids] == whole


@given(st.text(alphabet="ab1 \n\t\u3000é'", max_size=80), st.integers(1, 20))
def test_cutting_any_text_does_not_change_its_tokens(bpe: TextTokenizer, text: str, size: int) -> None:
    pieces = cut_for_encoding(text, size)
    assert "".join(pieces) == text
    assert [token for ids in bpe.encode_batch(pieces) for token in ids] == bpe.encode(text)


def test_real_texts_come_back_exactly_and_are_cut_without_a_trace(tmp_path: Path) -> None:
    names = ("wikitext2/wikitext2_valid.txt", "multilingual_books/botchan_en.txt")
    japanese = real("multilingual_books/wagahaiwa_nekodearu_ja.txt").read_bytes().decode()
    texts = [real(name).read_bytes().decode() for name in names] + [japanese]
    tokenizer = TextTokenizer.load(tokenizer_of(tmp_path / "books", [text[:200_000] for text in texts]).path)
    for text in texts:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer._tokenizer.encode(text).ids == ids


TRAIN = """
import sys
from stages.data.tokenizer import train_tokenizer
texts = [line for line in open(sys.argv[1], encoding="utf-8")]
sys.stdout.write(train_tokenizer(texts, "bpe", 1_000, split_digits=True).to_str())
"""


def test_the_same_text_gives_the_same_tokenizer_in_any_process(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(RHYMES + "sie sah die see und die see sah sie\n" * 20)
    outcomes = set()
    for seed, threads in (("1", "1"), ("2", "4"), ("3", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, str(path)],
            env=environment,
            cwd=installation_root(),
            capture_output=True,
            check=True,
        )
        outcomes.add(done.stdout)
    assert len(outcomes) == 1 and len(outcomes.pop()) > 3_000


@pytest.mark.parametrize("beside_a_model", [False, True])
def test_transformers_opens_the_folder_and_agrees(bpe: TextTokenizer, tmp_path: Path, beside_a_model: bool) -> None:
    copy_tokenizer(bpe, tmp_path)
    if beside_a_model:
        config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": bpe.vocab_size}
        (tmp_path / "config.json").write_text(json.dumps(config))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "12 green bottles,\n\n hanging  on the wall é日本"
    assert theirs(text).input_ids == bpe.encode(text)
    assert theirs.decode(bpe.encode(text)) == text
    assert (theirs.eos_token_id, theirs.pad_token_id, len(theirs)) == (bpe.eos_id, bpe.pad_id, bpe.vocab_size)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "not json"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}'),
        ("tokenizer_config.json", None),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", "[" * 100_000),
        ("tokenizer_config.json", '{"eos_token": "<|endoftext|>", "pad_token": "<absent>"}'),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(
    bpe: TextTokenizer, tmp_path: Path, name: str, content: str | None
) -> None:
    copy_tokenizer(bpe, tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        TextTokenizer.load(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_special_tokens_may_be_written_as_objects(bpe: TextTokenizer, tmp_path: Path) -> None:
    copy_tokenizer(bpe, tmp_path)
    config = {"eos_token": {"content": END, "lstrip": False}, "pad_token": {"content": PAD}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert TextTokenizer.load(tmp_path).eos_id == bpe.eos_id
