"""Hostile text where one judges, examines data, looks at tokens and evaluates."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from stages.store.chat import Done
from stages.store.checks import Check, Example, Finding
from stages.store.datasets import Problem
from stages.store.evaluations import Answer, Row
from stages.store.labels import Candidate, open_labels
from stages.store.labels import Prompt as LabelPrompt
from stages.store.records import Message
from stages.store.rundir import RunDir
from stages.store.statistics import share
from stages.store.workspace import Workspace
from tests.workbench.conftest import settled, wait_for
from tests.workbench.evaluations import add_evaluation, answered
from tests.workbench.hostile import (
    PAYLOADS,
    READABLE,
    SHORT,
    WatchedApp,
    chunks,
    on_screen,
    page_through,
)
from workbench.judging.drawing import Drawing
from workbench.judging.duel import Duel, Round
from workbench.judging.on_the_spot import Answer as ChatAnswer
from workbench.screens.check import CheckScreen, ExamplesScreen, Scrolling
from workbench.screens.duel import DuelScreen
from workbench.screens.elo import EloScreen, Table
from workbench.screens.home import HomeScreen
from workbench.screens.judge import JudgeScreen
from workbench.screens.mask import MaskScreen, painted
from workbench.screens.rank import RankScreen
from workbench.screens.rank_answers import RankAnswersScreen, Ranked
from workbench.screens.record import RecordScreen
from workbench.screens.record_form import RecordForm
from workbench.screens.records import RecordsScreen
from workbench.screens.tokens import TokensScreen
from workbench.talking.desk_client import DeskClient
from workbench.widgets.picklist import PickList
from workbench.widgets.record_view import RecordView
from workbench.widgets.text_field import TextField
from workbench.widgets.token_strip import TokenStrip


def prepare_judging(workspace: Workspace) -> None:
    """Prompts and candidates that are payloads: nine of them beside each other."""
    tasks = []
    for number, chunk in enumerate(chunks(READABLE[::2], 10)):
        candidates = [Candidate(run="r", k=k, text=text, checkpoint=text) for k, text in enumerate(chunk[1:])]
        tasks.append((LabelPrompt(messages=[Message("user", chunk[0])], part="eval", source=str(number)), candidates))
    with open_labels(workspace.labels) as labels:
        labels.add_set("hostile", "rank", tasks)


async def visit_judging(pilot: Pilot[Any]) -> None:
    """Every prompt with its candidates, some as Markdown, each judged so that the line of the last tells of it."""
    await pilot.press("K")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, RankScreen))
    await settled(pilot)
    await pilot.press("enter")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, JudgeScreen) and pilot.app.screen.session is not None)
    for number, chunk in enumerate(chunks(READABLE[::2], 10)):
        await wait_for(pilot, on_screen(pilot, chunk))
        if number % 8 == 0:
            await pilot.press("m")
            await settled(pilot)
            await pilot.press("m")
        await pilot.press("x")


async def visit_answers(pilot: Pilot[Any]) -> None:
    """Answers to a turn of a chat, and what is said of them once they are ranked."""
    for chunk in chunks(READABLE[::9], 10):
        candidates = [Candidate(run="r", k=k, text=text, checkpoint=text) for k, text in enumerate(chunk[1:])]
        prompt = LabelPrompt(messages=[Message("user", chunk[0])], part="eval")
        ranked: list[Ranked] = []
        await pilot.app.push_screen(RankAnswersScreen(prompt, candidates, ranked.append))
        await wait_for(pilot, on_screen(pilot, chunk))
        await pilot.press("x")
        await wait_for(pilot, lambda found=ranked: found)
        pilot.app.notify(str(ranked[0]))


async def visit_duel(pilot: Pilot[Any]) -> None:
    """Prompts and answers, names of checkpoints once a vote is stored, a dataset's name, and the table of Elo."""
    app = pilot.app
    assert isinstance(app, WatchedApp)
    screen = DuelScreen(SHORT[0], SHORT[1])
    await app.push_screen(screen)
    await settled(pilot)
    done = Done(reason="end", tokens=1, seconds=1.0, tokens_per_s=1.0, seed=1)
    for chunk in chunks(READABLE[::9], 3):
        duel = Duel(app.workspace, "ada", chunk[1:3])
        duel.names = [chunk[0], chunk[-1]]
        answers = [ChatAnswer(text=text, checkpoint=text, sampling={}, done=done) for text in (chunk[0], chunk[-1])]
        screen.duel, screen.drawing = duel, Drawing(app.desk, chunk[0])
        screen._describe()
        screen._show_saved()
        prompt = LabelPrompt(messages=[Message("user", chunk[len(chunk) // 2])], part="eval")
        screen.drawing = None
        await screen._show(Round(prompt, answers))
        await wait_for(pilot, on_screen(pilot, chunk))
        await pilot.press("1")
        await wait_for(pilot, lambda one=duel: one.votes)
        await settled(pilot)
    await app.push_screen(EloScreen(app.workspace))
    await settled(pilot)
    await page_through(pilot, Table)


async def visit_sample_form(pilot: Pilot[Any]) -> None:
    """The form of sampling: typed prompts, and what it comes to."""
    for chunk in chunks(SHORT[::16], 4):
        app = pilot.app
        app.start_run("sample", {"prompts": chunk, "checkpoints": chunk[0], "dataset": "typed below"})
        await wait_for(pilot, on_screen(pilot, chunk[:4]))
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, HomeScreen))


async def visit_check(pilot: Pilot[Any]) -> None:
    """The doctor's report: names of sources, notes, problems, findings with their examples, fixes and advice."""
    app, texts = pilot.app, SHORT[::8]
    finding = Finding(texts[0], texts[1], 1, [Example(text, text) for text in texts], {"max_line": texts[2]}, texts[3])
    problems = [Problem(text, 1, text, text) for text in texts]
    for start in range(0, len(problems), 10):
        report = Check(
            name=texts[0],
            kind="text",
            records={"all": 1},
            files=1,
            bytes=1,
            characters=1,
            notes=texts,
            lengths=[],
            findings=[finding],
            problems=problems[start:],
            problem_count=len(problems),
            sources=texts,
        )
        screen = CheckScreen(settings={"sources": texts})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DeskClient, "ask", answering(report))
            await app.push_screen(screen)
            await settled(pilot)
        app.pop_screen()
    await app.push_screen(ExamplesScreen(finding))
    await wait_for(pilot, on_screen(pilot, texts))


def answering(report: Check) -> Callable[..., Awaitable[Any]]:
    """A desk that has this report for whatever it is asked."""

    async def ask(self: DeskClient, verb: str, **args: Any) -> Any:
        return msgspec.to_builtins(report)

    return ask


async def visit_mask(pilot: Pilot[Any]) -> None:
    """Tokens, the source and the refusal of a conversation."""
    screen = MaskScreen("odd", "base")
    pilot.app.push_screen(screen)
    await settled(pilot)
    for chunk in chunks(PAYLOADS, 6):
        text = "".join(chunk)
        facts = {"trained": 1, "ignored": 2, "cut": 3, "turns_cut": 1, "source": text, "why": text}
        screen.query_one("#mask-head", Static).update(screen._head(facts))
        pieces = [(piece, state, True) for piece in chunk for state in ("trained", "ignored", "cut")]
        screen.query_one("#mask-tokens", Static).update(painted(pieces))
        await pilot.pause()


async def visit_tokens(pilot: Pilot[Any]) -> None:
    """Tokens, names of tokenizers and datasets, sources, long and unused tokens, the text itself."""
    screen = TokensScreen()
    pilot.app.push_screen(screen)
    await settled(pilot)
    for chunk in chunks(READABLE[::7], 20):
        name = chunk[0]
        screen.names, screen.dataset = [name, ""], name
        row = {"source": name, "documents": 1, "words": 1, "bytes": 1, "tokens": 1}
        never = {"count": 1, "tokens": [[1, text] for text in chunk]}
        facts = {"name": name, "of_bytes": 2, "sources": [row, row], "never": never, **row}
        longest = [[1, text, 1] for text in chunk]
        screen._facts = {name: {"vocab_size": 9, "special": [], "longest": longest, "dataset": facts}}
        screen._show_facts()
        screen.query_one(TextField).text = "".join(chunk)
        strip = screen.query_one("#first", TokenStrip)
        strip.show_ids(True)
        strip.show([[1, text, False] for text in chunk])
        screen._show_trail()
        await pilot.pause()


def prepare_records(workspace: Workspace) -> None:
    """Conversations that hold a payload in every field, and one that holds them all."""
    texts, script = workspace.root / "texts.json", Path(__file__).with_name("write_records.py")
    texts.write_bytes(msgspec.json.encode(READABLE))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, script, workspace.datasets / "talks", texts], env=environment, check=True)


async def visit_records(pilot: Pilot[Any]) -> None:
    """The list, the last record in full, the form of one, a search and a filter."""
    screen = RecordsScreen("talks")
    await pilot.app.push_screen(screen)
    listing = screen.listing
    for at in range(0, len(READABLE), 80):
        listing.cursor = at + 79
        await wait_for(pilot, on_screen(pilot, READABLE[at : at + 80]))
    screen.text = screen.filter = READABLE[26]
    screen._show_head()
    screen.note(READABLE[26])
    screen.filter = ""
    await pilot.press("end", "enter")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, RecordScreen) and pilot.app.screen.record is not None)
    await page_through(pilot, RecordView)
    await pilot.press("escape", "home", "i")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, RecordForm))
    await settled(pilot)


def prepare_evaluation(workspace: Workspace) -> None:
    """Checkpoints, groups, notes and answers that are payloads."""
    names, groups = READABLE[:5], READABLE[5:30]
    shares = {f"{text} exact": share(1, 2) for text in groups}
    answers = [Answer(prompt=text, text=text, wanted=text, right=False) for text in READABLE[::9]]
    rows = [
        Row(checkpoint=f"{text}@{step}", step=step, shares=shares, answers=answers, note=text)
        for text in names
        for step in (1, 2)
    ]
    found = msgspec.structs.replace(answered(rows), dataset=READABLE[30], split=READABLE[31])
    add_evaluation(workspace, found, READABLE[32])


async def visit_evaluation(pilot: Pilot[Any]) -> None:
    """Every column of the table, the plot, the list of answers, some in full, and a form that quotes a mistake."""
    app = pilot.app
    assert isinstance(app, WatchedApp)
    app.open_run(next(RunDir(path) for path in app.workspace.runs.iterdir()))
    await wait_for(pilot, on_screen(pilot, READABLE[:33]))
    await pilot.press("j", *("l" * 9), "tab")
    await page_through(pilot, PickList)
    for answer in ("enter", "escape", "j", "enter"):
        await pilot.press(answer)
        await settled(pilot)
    await page_through(pilot, Scrolling)
    await pilot.press("escape")
    for text in SHORT[::100]:
        app.start_run("evaluate", {"checkpoints": text, "dataset": text})
        await settled(pilot)
        await pilot.press("enter", "escape")
        await settled(pilot)
