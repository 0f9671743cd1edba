"""A child process that the system refuses is a sentence, whoever asked for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.store.errors import WorkFailed
from workbench.talking import chat_client
from workbench.talking.chat_client import ChatClient


async def test_a_chat_that_cannot_be_started_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_client, "_command", lambda *_: [str(tmp_path / "nothing-here")])
    with pytest.raises(WorkFailed, match="chat process cannot be started"):
        await ChatClient().open(tmp_path)
