"""Several answers to one turn of a chat: written anew, stepped through, ranked on the spot, stored as preferences."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from stages.store.labels import Label, open_labels
from stages.store.rundir import RunDir
from stages.store.specs.chat import Chat
from stages.store.workspace import Workspace
from tests.workbench.conftest import SIZES, screen_text, settled, wait_for
from tests.workbench.test_chat_screen import MakeApp, ask, chat_run, model, open_chat, run, transcript
from workbench.cli.root import run as command
from workbench.screens.chat import ChatScreen
from workbench.screens.rank_answers import RankAnswersScreen
from workbench.settings import LabelSettings, Settings
from workbench.widgets.transcript import Transcript

__all__ = ["chat_run", "run"]  # fixtures

ADA = LabelSettings(annotator="ada")


async def again(pilot: Pilot[Any], number: int) -> None:
    """Have the last turn answered once more, which makes the `number`th answer."""
    await pilot.press("r")
    await wait_for(pilot, lambda: f"answer {number} of {number}" in transcript(pilot))
    await settled(pilot)


async def rank(pilot: Pilot[Any], *best: str) -> list[str]:
    """Press k, put the answers that begin so first in this order, save; the texts in the order of the screen."""
    await pilot.press("k")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, RankAnswersScreen))
    await settled(pilot)
    screen = pilot.app.screen
    assert isinstance(screen, RankAnswersScreen)
    texts = [one.text for one in screen.shown]
    for start in best:
        await pilot.press(str(1 + next(place for place, text in enumerate(texts) if text.startswith(start))))
    await pilot.press("enter")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, ChatScreen))
    await settled(pilot)
    return texts


def in_force(workspace: Workspace) -> list[tuple[Label, list[str]]]:
    """Labels with the texts in the order in which they were shown."""
    with open_labels(workspace.labels) as labels:
        return [(label, [one.text for one in labels.completions(label.shown)]) for label in labels.labels()]


async def test_answers_to_a_turn_are_kept_and_the_chat_goes_on_from_the_one_shown(
    make_app: MakeApp, chat_run: RunDir
) -> None:
    async with make_app().run_test(size=(100, 30)) as pilot:
        pilot.app.open_chat("tiny@100")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ChatScreen) and "answers you" in model(pilot))
        await ask(pilot, "vary")
        await pilot.press("escape")
        await again(pilot, 2)
        assert "take 2 of step 100" in transcript(pilot) and "take 1" not in transcript(pilot)
        await pilot.press("left")
        assert "take 1 of step 100" in transcript(pilot) and "answer 1 of 2" in transcript(pilot)
        await pilot.press("h")  # there is none before the first
        assert "answer 1 of 2" in transcript(pilot)
        await pilot.press("l", "h")
        await ask(pilot, "what?")
        told = "user: vary | assistant: take 1 of step 100, seed None | user: what?"
        assert told in transcript(pilot)


async def test_a_ranking_on_the_spot_is_a_preference_with_all_that_made_it(
    make_app: MakeApp, chat_run: RunDir, workspace: Workspace
) -> None:
    settings = Settings(chat=Chat(system="be brief", temperature=0.5, seed=11), labels=ADA)
    async with make_app(settings).run_test(size=(100, 30)) as pilot:
        pilot.app.open_chat("tiny@100")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ChatScreen) and "answers you" in model(pilot))
        await ask(pilot, "vary")
        await pilot.press("escape")
        await again(pilot, 2)  # with another seed than the one that is set
        await again(pilot, 3)
        shown = await rank(pilot, "take 3", "take 1")
        assert "saved" in transcript(pilot) and "tiny@100" in transcript(pilot)
        assert "take 3 of step 100" in transcript(pilot)  # the best is the one that the chat goes on from
    ((label, texts),) = in_force(workspace)
    assert texts == shown  # the order of the screen is stored
    assert label.annotator == "ada" and label.ranks is not None
    assert {text[:6]: rank for text, rank in zip(texts, label.ranks, strict=True)} == {
        "take 3": 1,
        "take 1": 2,
        "take 2": 3,
    }
    rows = sqlite3.connect(workspace.labels).execute("SELECT text, checkpoint, sampling, ended FROM completions")
    for text, checkpoint, sampling, ended in rows:
        used = json.loads(sampling)
        assert (checkpoint, ended, used["temperature"], used["digest"]) == ("tiny@100", "end", 0.5, "d100")
        assert text == f"take {used['seed'] - 10} of step 100, seed {used['seed']}"
    with open_labels(workspace.labels) as labels:
        assert [(one.name, one.mode, one.prompts) for one in labels.sets()] == [("chat", "rank", 1)]
        asked = labels.prompt(label.prompt_id)
    assert [(one.role, one.content) for one in asked.messages] == [("system", "be brief"), ("user", "vary")]
    assert len(list((workspace.root / "labels-backups").iterdir())) >= 1


async def test_a_second_ranking_supersedes_the_first_and_goes_out_as_records(
    make_app: MakeApp, run: RunDir, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(workspace.root))
    async with make_app(Settings(labels=ADA)).run_test(size=(100, 30)) as pilot:
        await open_chat(pilot)
        await ask(pilot, "vary")
        await pilot.press("escape")
        await again(pilot, 2)
        await rank(pilot, "take 1")
        await rank(pilot, "take 2")
        assert len(in_force(workspace)) == 1
    assert command(["labels", "export", str(tmp_path / "out.jsonl"), "--label-set", "chat"]) == 0
    (record,) = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [text[:6] for text in record["completions"]] == ["take 2", "take 1"] and record["ranks"] == [1, 2]
    assert record["messages"] == [{"role": "user", "content": "vary"}]
    assert command(["data", "from-labels", "--name", "preferred", "--set", "split=none"]) == 0
    info = json.loads((workspace.datasets / "preferred" / "dataset.json").read_text())
    assert (info["kind"], sum(info["records"].values())) == ("preference", 1)


async def test_k_scrolls_while_there_is_one_answer_and_equal_answers_are_not_ranked(
    make_app: MakeApp, run: RunDir
) -> None:
    async with make_app().run_test(size=(80, 24), notifications=True) as pilot:
        await open_chat(pilot)
        await ask(pilot, "word " * 900)
        await pilot.press("escape")
        shown = pilot.app.screen.query_one(Transcript)
        await wait_for(pilot, lambda: 0 < shown.max_scroll_y == shown.scroll_offset.y)
        await settled(pilot)
        await wait_for(pilot, lambda: pilot.app.focused is shown)
        for key in ("k", "up"):
            before = shown.scroll_offset.y
            for _ in range(20):  # a press while the end is still being followed is undone by that
                await pilot.press(key)
                await settled(pilot)
                await pilot.pause(0.3)
                if shown.scroll_offset.y < before:
                    break
            assert shown.scroll_offset.y < before
        await again(pilot, 2)
        await pilot.press("k")
        await wait_for(pilot, lambda: "The answers are all the same" in screen_text(pilot.app))


async def test_leaving_the_ranking_stores_nothing_and_a_failure_keeps_the_order(
    make_app: MakeApp, run: RunDir, workspace: Workspace
) -> None:
    async with make_app(Settings(labels=ADA)).run_test(size=(100, 30)) as pilot:
        await open_chat(pilot)
        await ask(pilot, "vary")
        await pilot.press("escape")
        await again(pilot, 2)
        await pilot.press("k", "1", "escape")
        await settled(pilot)
        assert not workspace.labels.exists()
        with open_labels(workspace.labels) as labels:
            labels.add_set("chat", "rate", [])  # a set of that name which cannot take rankings
        await pilot.press("k", "2", "enter")
        await settled(pilot)
        assert isinstance(pilot.app.screen, RankAnswersScreen)
        assert pilot.app.screen.order.groups == [[1]] and "judged by rate" in screen_text(pilot.app)


async def test_a_failed_answer_leaves_the_others(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_chat(pilot)
        await ask(pilot, "vary")
        await pilot.press("escape")
        assert screen._client._process is not None
        screen._client._process.kill()
        await wait_for(pilot, lambda: "signal 9" in transcript(pilot))
        await pilot.press("r")
        await wait_for(pilot, lambda: "continues your text" in model(pilot))
        await pilot.press("r")
        await wait_for(pilot, lambda: "answer 2 of 2" in transcript(pilot))
        await pilot.press("h")
        assert "answer 1 of 2" in transcript(pilot)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_snapshots(
    size: tuple[int, int],
    make_app: MakeApp,
    run: RunDir,
    snapshot: Callable[[Pilot[Any], str], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.SystemRandom.shuffle", lambda self, values: None)
    async with make_app().run_test(size=size) as pilot:
        await open_chat(pilot)
        await ask(pilot, "vary")
        await pilot.press("escape")
        await again(pilot, 2)
        await again(pilot, 3)
        await pilot.press("h")
        await snapshot(pilot, f"chat-answers-{size[0]}x{size[1]}")
        await pilot.press("k")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RankAnswersScreen))
        await settled(pilot)
        await pilot.press("2", "equals_sign", "1")
        await snapshot(pilot, f"rank-answers-{size[0]}x{size[1]}")
