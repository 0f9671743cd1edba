"""The desk's answers about tokenizers: pieces that join to the text, and figures that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.data.tokenizer import TextTokenizer
from stages.data.tokens import facts, of, take_in, tokens_of, visible
from stages.desk import Cancelled, Job
from stages.store.errors import UserError
from stages.store.tokenizers import INFO, find_tokenizer
from stages.store.workspace import Workspace
from tests.stages.data.parts import RHYMES, dataset_of, tokenizer_of


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer.load(tokenizer_of(tmp_path_factory.mktemp("t") / "bpe", [RHYMES]).path)


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("t") / "wp"
    return TextTokenizer.load(tokenizer_of(folder, [RHYMES], kind="wordpiece").path)


@pytest.fixture
def home(tmp_path: Path) -> Job:
    workspace = Workspace(tmp_path / "ws").ensure()
    tokenizer_of(workspace.tokenizers / "t", [RHYMES])
    return Job(workspace)


def in_bytes(shown: str) -> bytes:
    """What `visible` showed, as bytes again; for texts without its brackets."""
    data, at = b"", 0
    while at < len(shown):
        if shown[at] == "‹":
            data, at = data + bytes.fromhex(shown[at + 1 : at + 3]), at + 4
        else:
            data, at = data + shown[at].encode(), at + 1
    return data


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_characters="‹›", exclude_categories=["Cs"]), max_size=60))
def test_pieces_of_byte_level_tokens_join_to_the_text(bpe: TextTokenizer, text: str) -> None:
    tokens = tokens_of(bpe, text)
    assert in_bytes("".join(token[1] for token in tokens)) == text.encode()
    assert [token[0] for token in tokens] == bpe.encode(text)
    assert sum(token[3] for token in tokens) == len(text.encode())


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=60))
def test_pieces_of_wordpiece_join_to_the_text(wordpiece: TextTokenizer, text: str) -> None:
    tokens = tokens_of(wordpiece, text)
    assert "".join(token[1] for token in tokens) == (text if tokens else "")
    assert [token[0] for token in tokens] == wordpiece.encode(text)


def test_bytes_that_are_no_character_are_shown_by_number() -> None:
    assert visible(b"a\xe3\x81b") == "a‹e3›‹81›b" and visible("é".encode()) == "é"


def test_tokens_by_name_and_by_folder_are_the_same(home: Job) -> None:
    folder = str(home.workspace.tokenizers / "t")
    info = msgspec.structs.replace(tokenizer_of(home.workspace.tokenizers / "u", [RHYMES]).info, name="u")
    (home.workspace.tokenizers / "u" / INFO).write_bytes(msgspec.json.encode(info))
    texts = [" green bottles", ""]
    (tokens, nothing) = of(home, tokenizer="u", texts=texts)
    assert of(home, tokenizer=folder, texts=texts) == [tokens, nothing]
    assert tokens[0][1] == " green" and nothing == []
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        of(home, tokenizer="/nowhere/at/all", texts=[])


def test_a_tokenizer_that_was_replaced_is_opened_anew(home: Job) -> None:
    folder = home.workspace.tokenizers / "t"
    before = of(home, tokenizer=str(folder), texts=["green"])
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    tokenizer_of(folder, [], kind="byte")
    assert len(of(home, tokenizer=str(folder), texts=["green"])[0]) == 5 > len(before[0])


def test_facts_over_a_dataset_are_those_counted_by_hand(home: Job) -> None:
    folder = home.workspace.tokenizers / "t"
    dataset = dataset_of(home.workspace.datasets / "d", ["green bottles", "brown ones"], ["green ones"])
    (dataset.path / "dataset.json").write_bytes(msgspec.json.encode(dataset.info))
    tokenizer = TextTokenizer.load(folder)
    texts = ["green bottles", "brown ones", "green ones"]
    ids = [token for text in texts for token in tokenizer.encode(text)]
    found = facts(home, tokenizer=str(folder), dataset="d")
    row = found["dataset"]["sources"][0]
    assert row == {"source": "here", "documents": 3, "words": 6, "bytes": 33, "tokens": len(ids)}
    ordinary = tokenizer.vocab_size - len(tokenizer.special_ids)
    assert found["dataset"]["never"]["count"] == ordinary - len(set(ids))
    assert not {number for number, _ in found["dataset"]["never"]["tokens"]} & set(ids)
    assert found["longest"][0][2] == max(len(tokenizer.token_bytes(n)) for n in range(4, tokenizer.vocab_size))
    assert "dataset" not in facts(home, tokenizer=str(folder))


def test_counting_can_be_cancelled(home: Job) -> None:
    dataset = dataset_of(home.workspace.datasets / "d", [RHYMES], [])
    (dataset.path / "dataset.json").write_bytes(msgspec.json.encode(dataset.info))
    home.cancelled.set()
    with pytest.raises(Cancelled):
        facts(home, tokenizer=str(home.workspace.tokenizers / "t"), dataset="d")


def test_what_is_taken_in_is_listed_and_a_refusal_leaves_nothing(home: Job, tmp_path: Path) -> None:
    source = home.workspace.tokenizers / "t"
    assert take_in(home, source=str(source), name="copy")["name"] == "copy"
    assert find_tokenizer(home.workspace, "copy").info.source == str(source)
    with pytest.raises(UserError, match="already a tokenizer"):
        take_in(home, source=str(source), name="copy")
    with pytest.raises(UserError):
        take_in(home, source=str(tmp_path), name="none")
    assert {path.name for path in home.workspace.tokenizers.iterdir() if path.is_dir()} == {"t", "copy"}
