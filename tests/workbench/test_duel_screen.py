"""Two checkpoints side by side: blind until the vote is stored, and every vote a preference."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from stages.store.labels import open_labels
from stages.store.labels.elo import between, outcomes
from stages.store.labels.judged import judged
from stages.store.rundir import RunDir
from stages.store.statistics import share
from stages.store.workspace import Workspace
from tests.workbench.conftest import SIZES, screen_text, settled, wait_for
from tests.workbench.test_chat_screen import MakeApp, run
from workbench.cli.root import run as command
from workbench.judging.drawing import Drawing
from workbench.screens.checkpoints import CheckpointScreen
from workbench.screens.duel import DuelScreen
from workbench.screens.elo import EloScreen
from workbench.settings import LabelSettings, Settings
from workbench.talking.desk_client import DeskClient
from workbench.widgets.contenders import Contenders
from workbench.widgets.prompt import Prompt

__all__ = ["run"]  # a fixture

ADA = Settings(labels=LabelSettings(annotator="ada"))


async def open_duel(pilot: Pilot[Any]) -> DuelScreen:
    """A duel of the two checkpoints, ready for a prompt."""
    screen = DuelScreen("tiny@50", "tiny@100")
    await pilot.app.push_screen(screen)
    await wait_for(pilot, lambda: screen.duel is not None)
    await settled(pilot)
    return screen


async def asked(pilot: Pilot[Any], screen: DuelScreen, text: str = "vary") -> list[str]:
    """Send a prompt; the answers in the order of the screen, once both are there."""
    field = screen.query_one(Prompt)
    field.focus()
    field.insert(text)
    await pilot.press("enter")
    await wait_for(pilot, lambda: screen.round is not None)
    await settled(pilot)
    return [one.completion.text for one in screen.query_one(Contenders).candidates]


def saved_line(screen: DuelScreen) -> str:
    return f"{screen.query_one('#saved', Static).render()} {screen.query_one('#rate', Static).render()}"


async def voted(pilot: Pilot[Any], screen: DuelScreen, key: str) -> None:
    await pilot.press(key)
    await wait_for(pilot, lambda: "saved" in saved_line(screen) and screen.round is None)
    await settled(pilot)


async def test_nothing_tells_who_wrote_what_before_the_vote_and_all_does_after_it(
    make_app: MakeApp, run: RunDir, workspace: Workspace
) -> None:
    async with make_app(ADA).run_test(size=(120, 40)) as pilot:
        screen = await open_duel(pilot)
        texts = await asked(pilot, screen)
        assert {text.split(",")[0] for text in texts} == {"take 1 of step 50", "take 1 of step 100"}
        titles = [str(one.border_title) for one in screen.query_one(Contenders).candidates]
        assert titles == ["1", "2"] and not workspace.labels.exists()
        await voted(pilot, screen, "2")
        writers = ["tiny@50" if "step 50," in text else "tiny@100" for text in texts]
        titles = [str(one.border_title) for one in screen.query_one(Contenders).candidates]
        assert titles == [f"1 · {writers[0]}", f"2 · {writers[1]}"]
    with open_labels(workspace.labels) as labels:
        (one,) = judged(labels)
    assert [(done.text, done.checkpoint) for done in one.completions] == list(zip(texts, writers, strict=True))
    assert (one.set_name, one.label.kind, one.label.ranks, one.label.annotator) == ("duels", "pair", [2, 1], "ada")


async def test_votes_make_a_win_rate_an_elo_and_records(
    make_app: MakeApp,
    run: RunDir,
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(workspace.root))
    async with make_app(ADA).run_test(size=(120, 40)) as pilot:
        screen = await open_duel(pilot)
        for round_ in range(6):  # tiny@100 wins four, then there is a tie, then both are bad
            texts = await asked(pilot, screen)
            best = "1" if "step 100," in texts[0] else "2"
            await voted(pilot, screen, best if round_ < 4 else "equals_sign" if round_ == 4 else "x")
        assert f"tiny@50 preferred in {share(1, 6)} of 6" in saved_line(screen)
        await pilot.press("escape", "t")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, EloScreen))
        await wait_for(pilot, lambda: "tiny@100" in screen_text(pilot.app))
    with open_labels(workspace.labels) as labels:
        assert between(outcomes(judged(labels)), "tiny@100", "tiny@50") == share(5, 6)
    capsys.readouterr()
    assert command(["labels", "elo", "--json"]) == 0
    weak, strong = json.loads(capsys.readouterr().out)  # along the lineage: earlier steps first
    assert (weak["name"], strong["name"]) == ("tiny@50", "tiny@100")
    assert (strong["won"], strong["tied"], strong["lost"]) == (4, 2, 0)
    assert strong["elo"] > 1_000 > weak["elo"] and strong["low"] < strong["elo"] < strong["high"]
    assert command(["labels", "elo"]) == 0
    assert "tiny@100" in capsys.readouterr().out
    assert command(["labels", "export", str(tmp_path / "pairs.jsonl"), "--format", "trl"]) == 0
    pairs = [json.loads(text) for text in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == 4 and all("step 100" in pair["chosen"][0]["content"] for pair in pairs)


async def test_a_vote_is_taken_back_and_given_anew(make_app: MakeApp, run: RunDir, workspace: Workspace) -> None:
    async with make_app(ADA).run_test(size=(120, 40)) as pilot:
        screen = await open_duel(pilot)
        texts = await asked(pilot, screen)
        await voted(pilot, screen, "1")
        await pilot.press("escape", "u")
        await wait_for(pilot, lambda: screen.round is not None)
        await settled(pilot)
        assert [one.completion.text for one in screen.query_one(Contenders).candidates] == texts
        assert "taken back" in saved_line(screen) and "preferred" not in saved_line(screen)
        await voted(pilot, screen, "2")
    with open_labels(workspace.labels) as labels:
        assert [label.ranks for label in labels.labels()] == [[2, 1]]
        assert len(labels.labels(history=True)) == 3


async def test_swapped_texts_are_told_apart_by_who_wrote_them(run: RunDir, workspace: Workspace) -> None:
    """What one checkpoint wrote once and the other another time counts for whoever wrote it then."""
    from stages.store.chat import Done, Facts, Turn
    from stages.store.specs.chat import Chat
    from workbench.judging.on_the_spot import DUELS, answer_of, candidates_of, prompt_of, save_judgement

    done = Done(reason="end", tokens=1, seconds=1.0, tokens_per_s=1.0, seed=1)
    about = {"kind": "base", "parameters": 1, "context": 1, "vocab_size": 1, "device": "", "precision": ""}
    facts = {step: Facts(**about, name="tiny", step=step) for step in (50, 100)}  # type: ignore[arg-type]  # by name
    for at, texts in enumerate((("Paris.", "Lyon."), ("Lyon.", "Paris."))):
        answers = [answer_of(text, done, facts[step], Chat()) for text, step in zip(texts, (50, 100), strict=True)]
        shown = candidates_of(answers, "duel:x", 2 * at)
        save_judgement(workspace, "ada", DUELS, "pair", prompt_of([Turn("user", "?")], DUELS), shown, ranks=[1, 2])
    with open_labels(workspace.labels) as labels:
        assert between(outcomes(judged(labels)), "tiny@50", "tiny@100") == share(2, 2)


async def test_equal_answers_are_not_voted_on(make_app: MakeApp, run: RunDir, workspace: Workspace) -> None:
    async with make_app(ADA).run_test(size=(120, 40)) as pilot:
        screen = await open_duel(pilot)
        screen.query_one(Prompt).insert("same")
        await pilot.press("enter")
        await wait_for(pilot, lambda: "Both wrote the same" in screen_text(pilot.app))
        await pilot.press("1", "2", "x")
        await settled(pilot)
        assert not workspace.labels.exists()


async def test_prompts_are_drawn_from_a_dataset_each_once(
    make_app: MakeApp, run: RunDir, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"messages": [{"role": "user", "content": f"q{number}: vary"}]} for number in range(3)]
    drawn: list[int] = []

    async def ask_desk(self: DeskClient, verb: str, **args: Any) -> Any:
        start, count = args["start"], args["count"]
        drawn.append(start)
        return {"kind": "prompts", "records": records[start : start + count], "total": 3}

    monkeypatch.setattr(DeskClient, "ask", ask_desk)
    async with make_app(ADA).run_test(size=(120, 40)) as pilot:
        screen = await open_duel(pilot)
        screen.drawing = Drawing(screen.workbench.desk, "questions")
        await pilot.press("escape", "n")
        seen = set()
        for _ in range(3):  # a vote draws the next prompt
            await wait_for(pilot, lambda: screen.round is not None)
            await settled(pilot)
            assert screen.round is not None
            seen.add(screen.round.prompt.messages[0].content)
            await pilot.press("1")
            await wait_for(pilot, lambda: screen.duel is not None and len(screen.duel.votes) == len(seen))
    assert seen == {"q0: vary", "q1: vary", "q2: vary"}
    with open_labels(workspace.labels) as labels:
        assert len(labels.labels()) == 3


async def test_an_answer_that_cannot_be_had_is_a_sentence_and_the_next_works(make_app: MakeApp, run: RunDir) -> None:
    async with make_app(ADA).run_test(size=(120, 40)) as pilot:
        screen = await open_duel(pilot)
        screen.query_one(Prompt).insert("die")
        await pilot.press("enter")
        await wait_for(pilot, lambda: "out of luck" in screen_text(pilot.app))
        await asked(pilot, screen)
        assert screen.duel is not None
        processes = [client._process for client in screen.duel.clients]
    assert all(process is not None and process.returncode is not None for process in processes)


async def test_from_chat_v_asks_for_the_other_and_a_checkpoint_is_not_set_against_itself(
    make_app: MakeApp, run: RunDir
) -> None:
    async with make_app(ADA).run_test(size=(120, 40)) as pilot:
        from tests.workbench.test_chat_screen import open_chat

        await open_chat(pilot)
        await pilot.press("escape", "v")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, CheckpointScreen))
        await settled(pilot)
        await pilot.press("enter")  # the newest, which is the one of the chat
        await wait_for(pilot, lambda: "nothing to say against itself" in screen_text(pilot.app))
        await pilot.press("o")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, CheckpointScreen))
        await settled(pilot)
        await pilot.press("enter")
        await settled(pilot)
        await pilot.press("j", "enter")
        await wait_for(pilot, lambda: "tiny@100 against tiny@50" in screen_text(pilot.app))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_snapshots(
    size: tuple[int, int],
    make_app: MakeApp,
    run: RunDir,
    snapshot: Callable[[Pilot[Any], str], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.SystemRandom.shuffle", lambda self, values: None)
    async with make_app(ADA).run_test(size=size) as pilot:
        screen = await open_duel(pilot)
        await asked(pilot, screen)
        await snapshot(pilot, f"duel-{size[0]}x{size[1]}")
        await voted(pilot, screen, "1")
        screen._last = screen._last.__class__("saved 12:00:00: the first · 1 tiny@50, 2 tiny@100")
        screen._show_saved()
        await snapshot(pilot, f"duel-voted-{size[0]}x{size[1]}")
        await pilot.press("escape", "t")
        await wait_for(pilot, lambda: "tiny@100" in screen_text(pilot.app) and "95 %" in screen_text(pilot.app))
        await snapshot(pilot, f"elo-{size[0]}x{size[1]}")
