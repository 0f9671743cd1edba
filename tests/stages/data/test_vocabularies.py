"""Each kind of tokenizer: what it promises of round trips, the same result every time, and text that stays text."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from stages.data.tokenizer import TextTokenizer, save_tokenizer, train_tokenizer
from stages.data.vocabularies import BERT_SPECIAL, SPECIAL, Words
from stages.store.workspace import installation_root
from tests.stages.data.parts import RHYMES

TEXT = (
    RHYMES
    + Path(argparse.__file__).read_text("utf-8")[:60_000]
    + "The sea shell's café, éclair 日本語! Ünïcode and the sea.\n" * 40
)


def made(folder: Path, kind: str, **options: object) -> TextTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    options = {"split_digits": True, **options}
    trained = train_tokenizer(TEXT.split("\n"), kind, int(str(options.pop("vocab_size", 400))), **options)  # type: ignore[arg-type]
    save_tokenizer(trained, folder)
    return TextTokenizer.load(folder)


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return made(tmp_path_factory.mktemp("t"), "unigram", vocab_size=800, sentinels=10)


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return made(tmp_path_factory.mktemp("t"), "wordpiece")


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=100))
def test_unigram_brings_any_text_back_exactly(unigram: TextTokenizer, text: str) -> None:
    ids = unigram.encode(text)
    assert unigram.decode(ids) == text
    assert b"".join(map(unigram.token_bytes, ids)) == text.encode()


def test_unigram_learns_more_than_bytes(unigram: TextTokenizer) -> None:
    assert len(unigram.encode("the argument parser")) < 10
    assert unigram.special_ids > {unigram.eos_id, unigram.pad_id} and unigram.eos_id != unigram.pad_id


def test_sentinels_are_the_last_entries_and_the_first_has_the_highest_id(unigram: TextTokenizer) -> None:
    assert unigram.id_of("<extra_id_0>") == unigram.vocab_size - 1
    assert unigram.id_of("<extra_id_9>") == unigram.vocab_size - 10
    assert not unigram.special_ids & set(unigram.encode("a <extra_id_0> b"))


def test_wordpiece_is_berts(wordpiece: TextTokenizer, tmp_path: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(wordpiece.folder)
    text = "The SEA  shell's café, 12!"
    assert theirs(text, add_special_tokens=False).input_ids == wordpiece.encode(text)
    framed = theirs.convert_ids_to_tokens(theirs(text).input_ids)
    assert (framed[0], framed[-1], theirs.mask_token) == ("[CLS]", "[SEP]", "[MASK]")
    assert (theirs.pad_token_id, theirs.sep_token_id) == (wordpiece.pad_id, wordpiece.eos_id)
    assert [theirs.convert_tokens_to_ids(name) for name in BERT_SPECIAL] == list(range(len(BERT_SPECIAL)))
    assert wordpiece.decode(wordpiece.encode(text)) == "the sea shell ' s cafe, 1 2!"


def test_wordpiece_keeps_case_and_accents_when_told_to(tmp_path: Path) -> None:
    kept = made(tmp_path, "wordpiece", words=Words(lowercase=False, strip_accents=False))
    assert kept.decode(kept.encode("The café")) == "The café"


def test_a_word_with_an_unknown_character_is_unknown(wordpiece: TextTokenizer) -> None:
    ids = wordpiece.encode("the \u1234 sea")
    assert ids[1] == wordpiece.id_of("[UNK]") and wordpiece.encode_batch(["the \u1234 sea"]) == [ids]


def test_a_special_token_written_as_a_word_stays_text(tmp_path: Path) -> None:
    by_spaces = made(tmp_path, "wordpiece", words=Words(punctuation=False, lowercase=False))
    for text in ("a [SEP] b", "[CLS]", "[PAD][SEP]"):
        ids = by_spaces.encode(text)
        assert not (by_spaces.special_ids - {by_spaces.id_of("[UNK]")}) & set(ids)
        assert by_spaces.encode_batch([text]) == [ids]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "byte"])
def test_what_looks_like_a_special_token_is_text(tmp_path: Path, kind: str) -> None:
    tokenizer = made(tmp_path, kind)
    for name in SPECIAL:
        ids = tokenizer.encode(f"a {name}b")
        assert not tokenizer.special_ids & set(ids) and tokenizer.decode(ids) == f"a {name}b"


TRAIN = """
import sys
from stages.data.tokenizer import train_tokenizer
texts = [line for line in open(sys.argv[1], encoding="utf-8")]
sys.stdout.write(train_tokenizer(texts, "wordpiece", 600, split_digits=True).to_str())
"""


def test_wordpiece_is_the_same_in_any_process(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    command = [sys.executable, "-c", TRAIN, str(path)]
    outcomes = {
        subprocess.run(
            command,
            env={**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed},
            cwd=installation_root(),
            capture_output=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(outcomes) == 1 and len(outcomes.pop()) > 3_000
