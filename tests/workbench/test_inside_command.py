"""`workbench inside` prints what the desk tells, whatever head the model has; hostile text is tame."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from tests.workbench.test_inside_screen import HOSTILE, attended, judged, labelled, masking, reading, scored
from workbench.cli import inside as module
from workbench.cli.root import workbench


def printed(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], *options: str) -> str:
    """What the command prints of this answer."""
    monkeypatch.setattr(module, "ask_once", lambda *_, **__: found)
    outcome = CliRunner().invoke(workbench, ["inside", "model", "a text", *options])
    assert outcome.exit_code == 0, outcome.output
    assert "--json" in options or not {char for char in outcome.output if char in "\x1b\x9b\u202e"}
    return outcome.output


def test_each_kind_of_model_has_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    header = printed(monkeypatch, scored("one two")).splitlines()[0].split()
    assert header == ["token", "p", "nats", "rank", "expected"]
    text = printed(monkeypatch, judged("one two"))
    assert text.splitlines()[0].split()[:3] == ["token", "score", "raw"] and "It holds one." in text
    text = printed(monkeypatch, labelled(f"one {HOSTILE}"))
    assert text.splitlines()[0].split() == ["token", "label"]
    assert "75.0%, billing 25.0%" in text.splitlines()[1] and "billing" not in text.splitlines()[2]
    assert "nats" not in text and "It has none." in text


def test_how_a_label_comes_about_has_a_column_and_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(monkeypatch, reading("one two three")).splitlines()
    assert text[0].split() == ["token", "label", "read", "here"]
    assert text[1].split()[-1] == "-4.288" and "75.0%" in text[3] and text[3].split()[-1] == "-0.288"
    assert text[4].startswith("read here: the log-probability of the label '␛[31mred")
    text = printed(monkeypatch, masking("one two three")).splitlines()
    assert text[0].split() == ["token", "label", "by", "it"]
    assert [row.split()[-1] for row in text[2:5]] == ["2.5", "0.5", "-1.5"]
    assert text[5].startswith("by it: nats by which masking the token lowers the log-probability of '␛[31mred")


def test_attention_and_json_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "looks at" in printed(monkeypatch, attended("one two", 0, 0), "--layer", "1")
    found = judged("one two")
    assert json.loads(printed(monkeypatch, found, "--json")) == found
