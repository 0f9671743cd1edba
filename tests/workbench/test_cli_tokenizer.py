"""`workbench tokenizer`: kinds, imports, and what `show` says of a text and a dataset."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from stages.store.tokenizers import INFO, find_tokenizer, list_tokenizers
from stages.store.workspace import Workspace
from tests.stages.data.parts import RHYMES, dataset_of, tokenizer_of
from workbench import __main__ as entry

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workspace: Workspace) -> Command:
    """Run `workbench tokenizer ARGUMENTS` in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["workbench", "tokenizer", *arguments])
        return (entry.main(), *capsys.readouterr())

    return run


@pytest.fixture
def bpe(workspace: Workspace) -> Workspace:
    """The tokenizer `bpe` and the dataset `rhymes` it was trained on."""
    dataset = dataset_of(workspace.datasets / "rhymes", [RHYMES], ["green bottles"])
    (dataset.path / "dataset.json").write_bytes(msgspec.json.encode(dataset.info))
    made = tokenizer_of(workspace.tokenizers / "bpe", [RHYMES])
    (made.path / INFO).write_bytes(msgspec.json.encode(made.info))
    return workspace


def test_an_import_is_listed_and_says_what_was_done(command: Command, bpe: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "theirs"
    source.mkdir()
    plan = (bpe.tokenizers / "bpe" / "tokenizer.json").read_text().replace("<|pad|>", "<|other|>")
    (source / "tokenizer.json").write_text(plan)
    code, out, err = command("import", str(source), "--name", "theirs")
    assert (code, err) == (0, "")
    assert "Imported the tokenizer theirs: bpe, 280 entries." in out and "<|pad|> was added with the id 279" in out
    assert find_tokenizer(bpe, "theirs").info.special["pad"] == 279
    assert "imported from" in command("show", "theirs")[1]
    code, _, err = command("import", str(source), "--name", "theirs")
    assert code == 2 and err.count("\n") == 1 and "already a tokenizer" in err
    assert command("import", str(source), "--name", "theirs", "--pad", "<|other|>", "--replace")[0] == 0
    assert find_tokenizer(bpe, "theirs").info.special["pad"] == 1


@pytest.mark.parametrize("name", ["nowhere.json", "notes.txt"])
def test_what_is_no_tokenizer_is_refused_in_one_line(command: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    code, _, err = command("import", str(tmp_path / name), "--name", "x")
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1


def test_show_gives_the_tokens_of_a_text(command: Command, bpe: Workspace) -> None:
    tokenizer_of(bpe.tokenizers / "plain", [], kind="byte")
    folder = str(bpe.tokenizers / "plain")
    code, out, _ = command("show", "bpe", "--text", " green ones", "--with", folder)
    assert code == 0 and "bpe: 2 tokens, 5.50 bytes a token" in out and " green│ ones" in out and "11 tokens" in out
    (row,) = json.loads(command("show", "bpe", "--text", " green ones", "--json")[1])
    assert row["pieces"] == [" green", " ones"] and len(row["ids"]) == row["tokens"] == 2


def test_show_tells_how_it_fits_a_dataset(command: Command, bpe: Workspace) -> None:
    code, out, _ = command("show", "bpe", "--data", "rhymes")
    assert code == 0 and "never occur" in out and "here" in out
    found = json.loads(command("show", "bpe", "--data", "rhymes", "--json")[1])
    assert found["bpe"]["dataset"]["bytes"] == len(RHYMES) + len("green bottles")
    code, _, err = command("show", "bpe", "--with", "bpe")
    assert code == 2 and "Give --text TEXT or --data NAME" in err


def test_every_kind_is_trained_from_the_command_line(command: Command, bpe: Workspace) -> None:
    for kind in ("wordpiece", "unigram"):
        options = ["--vocab-size", "300", "--set", "sentinels=5", "--set", "sample_share=0.5"]
        code, out, err = command("train", "--data", "rhymes", "--type", kind, "--name", kind, *options)
        assert code == 0, err
        info = find_tokenizer(bpe, kind).info
        assert info.type == kind and info.special["pad"] != info.special["eos"] and info.notes[0] in out
        assert "of the training text" in info.sample
    assert {found.name for found in list_tokenizers(bpe)} == {"bpe", "wordpiece", "unigram"}
