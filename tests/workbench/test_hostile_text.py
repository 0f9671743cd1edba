"""Hostile text through every screen that shows foreign text: nothing of it reaches the terminal as anything but text.

A place is a line of PLACES: `prepare` puts the payloads where they come from, `visit` goes where they show. All that
the app would write to its terminal meanwhile is kept and searched.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from stages.store.workspace import Workspace
from tests.workbench.conftest import add_checkpoint, add_run, settled, wait_for
from tests.workbench.hostile import (
    ACTS,
    OWN_SEQUENCE,
    PAYLOADS,
    READABLE,
    SHORT,
    Place,
    WatchedApp,
    nothing,
)
from tests.workbench.hostile_runs import (
    ELSEWHERE,
    prepare_checkpoints,
    prepare_data,
    prepare_elsewhere,
    prepare_forms,
    prepare_marked,
    prepare_run,
    prepare_runs,
    visit_chat,
    visit_checkpoints,
    visit_data,
    visit_elsewhere,
    visit_forms,
    visit_home,
    visit_look,
    visit_marked,
    visit_questions,
    visit_run,
    visit_runs,
    visit_toasts,
)
from tests.workbench.hostile_work import (
    prepare_evaluation,
    prepare_judging,
    prepare_records,
    visit_answers,
    visit_check,
    visit_duel,
    visit_evaluation,
    visit_judging,
    visit_mask,
    visit_records,
    visit_sample_form,
    visit_tokens,
)
from tests.workbench.screens import OPENERS, every_screen, opened
from workbench.talking import chat_client

HARMLESS = {"Flagging", "FreezeScreen", "HelpScreen", "JumpScreen", "ModelsScreen", "SamplingScreen"}
"""Screens that show our own words and figures, and names that were checked: nothing foreign."""
TEXT = "p000\x1b[53m\x9b2J\x07\u202e[/][red]{x}\u200b\r\t漢"
"""A payload of every kind, short enough for a name."""
PARTS = 3
"""Tests among which the other screens are shared out."""

PLACES = [
    Place("home", nothing, visit_home, screens=("HomeScreen",)),
    Place("data", prepare_data, visit_data, READABLE[:351], size=(160, 300), screens=("DataScreen",)),
    Place("runs", prepare_runs, visit_runs, screens=("RunsScreen",)),
    Place("marked runs", prepare_marked, visit_marked, [*READABLE[::40], *READABLE[1::60]], screens=("RunsScreen",)),
    Place("run", prepare_run, visit_run, screens=("RunScreen",)),
    Place(
        "evaluation",
        prepare_evaluation,
        visit_evaluation,
        [*READABLE[:33], *READABLE[::9]],
        size=(200, 100),
        screens=("AnswerScreen", "EvaluateScreen", "EvaluationScreen"),
    ),
    Place("chat", nothing, visit_chat, PAYLOADS, screens=("ChatScreen",)),
    Place("checkpoints", prepare_checkpoints, visit_checkpoints, screens=("CheckpointScreen",)),
    Place("toasts", nothing, visit_toasts, PAYLOADS, size=(160, 300), screens=("HomeScreen",)),
    Place("mask", nothing, visit_mask, READABLE[::7], size=(160, 300), screens=("MaskScreen",)),
    Place("check", nothing, visit_check, SHORT[::8], size=(160, 300), screens=("CheckScreen", "ExamplesScreen")),
    Place("tokens", nothing, visit_tokens, READABLE[::7], size=(160, 120), screens=("TokensScreen",)),
    Place("questions", nothing, visit_questions, SHORT[::3], size=(160, 300), screens=("Ask", "Question")),
    Place("look", nothing, visit_look, SHORT, size=(160, 100), screens=("BuildScreen",)),
    Place("judging", prepare_judging, visit_judging, READABLE[::2], size=(200, 60), screens=("JudgeScreen",)),
    Place("records", prepare_records, visit_records, screens=("RecordForm", "RecordScreen", "RecordsScreen")),
    Place("answers", nothing, visit_answers, READABLE[::9], size=(200, 60), screens=("RankAnswersScreen",)),
    Place("duel", nothing, visit_duel, READABLE[::9], size=(160, 60), screens=("DuelScreen", "EloScreen")),
    Place("sample form", nothing, visit_sample_form, SHORT[::16], size=(160, 60), screens=("SampleScreen",)),
    Place(
        "bin, lineage, machine",
        prepare_elsewhere,
        visit_elsewhere,
        ELSEWHERE,
        size=(160, 100),
        screens=("BinScreen", "LineageScreen", "MachineScreen"),
    ),
    Place(
        "forms",
        prepare_forms,
        visit_forms,
        PAYLOADS[:80:8],
        size=(200, 120),
        screens=("StartScreen", "TuneScreen", "TokenizerScreen"),
    ),
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
async def test_hostile_text_is_shown_and_does_nothing(
    place: Place, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place.name == "chat":
        talk_without_a_model(workspace, monkeypatch)
    place.prepare(workspace)
    app = WatchedApp(workspace)
    async with app.run_test(size=place.size, notifications=True) as pilot:
        app.watch_driver()
        await settled(pilot)
        await place.visit(pilot)
    assert not app.acting, f"{len(app.acting)} of {app.frames} frames, the first: {app.acting[0]}"
    missing = {text[:4] for text in place.expected} - app.seen
    assert not missing, f"never shown: {sorted(missing)}"
    assert all(app.seen_on.get(name) for name in place.screens), f"markers were on {sorted(app.seen_on)} only"


@pytest.mark.parametrize("part", range(PARTS))
async def test_hostile_text_does_nothing_on_the_other_screens(part: int, workspace: Workspace) -> None:
    app = WatchedApp(workspace)
    async with app.run_test(size=(160, 60)) as pilot:
        app.watch_driver()
        for name in sorted(OPENERS.keys() - HARMLESS)[part::PARTS]:
            with pytest.MonkeyPatch.context() as patch:
                await opened(pilot, name, TEXT, patch)
                await wait_for(pilot, lambda name=name: app.seen_on.get(name))
            while len(app.screen_stack) > 1:
                app.pop_screen()
            await pilot.app.switch_mode("home")
            empty(workspace)
    assert not app.acting, f"{len(app.acting)} of {app.frames} frames, the first: {app.acting[0]}"


def empty(workspace: Workspace) -> None:
    """Take away what the next screen makes anew. Runs stay: a screen may still be looking at one."""
    for folder in (workspace.datasets, workspace.tokenizers, workspace.groups):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    workspace.labels.unlink(missing_ok=True)


def test_no_screen_is_forgotten() -> None:
    visited = {name for place in PLACES for name in place.screens}
    assert every_screen() == visited | OPENERS.keys() | HARMLESS


def talk_without_a_model(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run `talker` whose chat process says back what it hears."""
    run = add_run(workspace, "pretrain", "talker")
    add_checkpoint(run, 10)
    script = Path(__file__).parent / "fake_chat.py"
    monkeypatch.setattr(
        chat_client, "_command", lambda folder, device, idle: [sys.executable, "-S", str(script), str(folder)]
    )


def test_there_are_500_payloads_and_the_search_finds_what_it_should() -> None:
    """The negative control: raw payloads are found, and what the app sends itself is not."""
    assert len(PAYLOADS) >= 500 and len({text[:4] for text in PAYLOADS}) == len(PAYLOADS)
    for raw in (
        "\x1b[53m",
        "\x1b[5;53;1m",
        "\x1b[1337;1337H",
        "\x9b2J",
        "\x1b]8;;x\x1b\\",
        "\x07",
        "\u202e",
        "\x1b[2J",
    ):
        assert ACTS.search(OWN_SEQUENCE.sub("", raw)), ascii(raw)
    assert not ACTS.search(
        OWN_SEQUENCE.sub("", "\x1b[1;38;2;1;2;53mtext\x1b[0m\x1b[12;40Hmore\n".replace(";53m", ";54m"))
    )
