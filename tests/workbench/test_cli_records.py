"""`workbench data show --records`: records as text and as JSON, by number, search, filter and split."""

from __future__ import annotations

import json

import msgspec
import pytest

from stages.store.errors import UserError
from stages.store.records import ChatRecord, Message, TextRecord
from stages.store.workspace import Workspace
from workbench.cli.root import run
from workbench.talking.desk_client import ask_once


@pytest.fixture
def talks(workspace: Workspace) -> Workspace:
    """Three conversations, the second about the sky, with an escape sequence."""
    made = ask_once(workspace, "records.create", name="talks", kind="chat")
    for at, text in enumerate(("One.", "The \x1b[31msky.", "Three.")):
        record = ChatRecord(messages=[Message("user", f"{at + 1}?"), Message("assistant", text)], source="me")
        values = {"before": None, "after": msgspec.to_builtins(record), "digest": made["digest"]}
        made = ask_once(workspace, "records.edit", dataset="talks", split="train", at=at, **values)
    return workspace


def test_records_are_printed_whole_and_harmless(talks: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "show", "talks", "--records", "2", "--from", "2"]) == 0
    out = capsys.readouterr().out
    assert "── train 2 of 3\nuser\n2?\n\nassistant\nThe ␛[31msky.\n\nsource  me\n" in out
    assert "Three." in out and "One." not in out and "\x1b" not in out


def test_records_as_json(talks: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "show", "talks", "--search", "SKY", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["number"] == 2 and found["messages"][1]["content"] == "The \x1b[31msky."


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--records", "5", "--from", "4"], "The split train ends before record 4."),
        (["--search", "nowhere"], "There is no such record."),
        (["--search", "sky", "--from", "3"], "There is no such record."),
        (["--filter", "role:tool"], "There is no such record."),
        (["--records", "1", "--split", "val"], "The split val ends before record 1."),
    ],
)
def test_nothing_found_is_said(
    talks: Workspace, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert run(["data", "show", "talks", *options]) == 0
    assert capsys.readouterr().out.strip() == said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--records", "0"], "--records takes a number from 1"),
        (["--records", "1", "--from", "0"], "--from takes a number from 1 on"),
        (["--records", "1", "--split", "test"], "has no split 'test'"),
        (["--filter", "colour:red"], "cannot be filtered by 'colour'"),
    ],
)
def test_a_wrong_request_is_one_line(talks: Workspace, options: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        run(["data", "show", "talks", *options])
    assert said in caught.value.title and caught.value.exit_code == 2


def test_a_long_text_is_printed_to_its_end(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    made = ask_once(workspace, "records.create", name="long", kind="text")
    after = msgspec.to_builtins(TextRecord(text="word " * 60_000 + "end"))
    ask_once(
        workspace, "records.edit", dataset="long", digest=made["digest"], split="train", at=0, before=None, after=after
    )
    assert run(["data", "show", "long", "--records", "1"]) == 0
    assert "word end" in capsys.readouterr().out
