"""Reward models in the app and by command: the report card, its plots, and the disagreements to read."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from textual.pilot import Pilot
from textual.widgets import ContentSwitcher

from stages.store.labels import open_labels
from stages.store.records import Message
from stages.store.rewards import CARD, Bin, Disagreement, ReportCard, Scale
from stages.store.rundir import RunDir
from stages.store.statistics import share
from stages.store.workspace import Workspace
from tests.stages.store.labels.conftest import tasks
from tests.workbench.conftest import CREATED, DATASET_DIGEST, SIZES, add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.cli.root import run as command
from workbench.judging.report_card import ceiling, facts
from workbench.plots.report_picture import reliability, score_against_length
from workbench.screens.reward import DisagreementScreen, RewardScreen

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[None], str], Awaitable[None]]

WRONG = Disagreement(
    messages=[Message("user", "What is 2 plus 2?")],
    better="2 plus 2 is 4.",
    worse="It is \x1b[31m5\x1b[0m, I think.",
    better_score=-0.4,
    worse_score=1.1,
    probability=0.18,
    annotator="ada",
)
HELD_OUT = ReportCard(
    checkpoint="likes@225",
    step=225,
    dataset="world-likes",
    dataset_digest=DATASET_DIGEST,
    split="val",
    prompts=400,
    completions=1_600,
    accuracy=share(1_710, 1_800),
    ece=0.021,
    bins=[Bin(pairs=300, confidence=0.6, accuracy=0.5625), Bin(pairs=1_500, confidence=0.97, accuracy=0.99)],
    scale=Scale(mean=0.2, std=2.5, samples=1_600),
    deciles=[-2.0, -1.5, -1.0, -0.5, 0.0, 0.1, 0.4, 0.8, 1.2, 1.4, 1.9],
    length_correlation=0.12,
    length_within=-0.2,
    longer_scores_higher=share(700, 1_400),
    longer_preferred=share(690, 1_400),
    points=[(4, -1.0), (9, 0.5), (9, 1.0), (20, -0.3)],
    worst=[WRONG],
    label_sets=["mine"],
)


def add_card(workspace: Workspace, card: ReportCard = HELD_OUT, stage: str = "reward") -> RunDir:
    run = add_run(workspace, stage, "likes", created=CREATED + 100, step=225, total=225)
    (run.path / CARD).write_bytes(msgspec.json.encode(card))
    return run


async def open_card(pilot: Pilot[None], run: RunDir) -> RewardScreen:
    pilot.app.open_run(run)  # type: ignore[attr-defined]  # a WorkbenchApp
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, RewardScreen) and pilot.app.screen.card)
    await settled(pilot)
    assert isinstance(pilot.app.screen, RewardScreen)
    return pilot.app.screen


@pytest.mark.parametrize("size", SIZES)
async def test_a_report_card_looks_like_this(
    populated: Workspace, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    run = add_card(populated)
    async with make_app().run_test(size=size) as pilot:
        await open_card(pilot, run)
        await snapshot(pilot, f"reward-{size[0]}x{size[1]}")


async def test_the_plots_take_turns_and_a_disagreement_opens(populated: Workspace, make_app: MakeApp) -> None:
    run = add_card(populated, stage="report")
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_card(pilot, run)
        await wait_for(pilot, lambda: "% right, by % sure" in screen_text(pilot.app))
        await pilot.press("t")
        await wait_for(pilot, lambda: "score, by tokens" in screen_text(pilot.app))
        screen.query_one("#disagreements").focus()
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, DisagreementScreen))
        await settled(pilot)
        shown = screen_text(pilot.app)
        assert "preferred by ada, score -0.40" in shown and "82 % sure, score +1.10" in shown and "\x1b" not in shown
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RewardScreen))
        assert pilot.app.screen.query_one(ContentSwitcher).current == "report"


def agree(workspace: Workspace, first: list[int], second: list[int]) -> None:
    """Two people judge the same prompt."""
    with open_labels(workspace.labels) as labels:
        chosen = labels.add_set("mine", "rank", tasks(1), people=2)
        shown = labels.next(chosen.id, "ada")
        assert shown is not None
        labels.save(shown.label("rank", "ada", ranks=first))
        labels.save(shown.label("rank", "bea", ranks=second))


def test_accuracy_stands_beside_the_agreement_of_the_annotators(populated: Workspace) -> None:
    assert facts(HELD_OUT, ceiling(populated, HELD_OUT))["annotators"].startswith("unknown how far they agree")
    agree(populated, [1, 2, 3, 4], [1, 2, 4, 3])
    agreed = ceiling(populated, HELD_OUT)
    assert agreed.others is not None and (agreed.others.hits, agreed.others.of) == (5, 6)
    other = msgspec.structs.replace(HELD_OUT, label_sets=["somebody's"])
    assert ceiling(populated, other).others is None


def test_the_pictures_show_the_figures() -> None:
    diagonal, line, marks = reliability(HELD_OUT).curves
    assert diagonal.points == [(50.0, 50.0), (100.0, 100.0)]
    assert line.points == marks.points == [(60.0, 56.25), (97.0, 99.0)]
    assert score_against_length(HELD_OUT).curves[0].points == [(4.0, -1.0), (9.0, 0.5), (9.0, 1.0), (20.0, -0.3)]
    assert not reliability(msgspec.structs.replace(HELD_OUT, bins=[])).curves


def test_the_command_shows_the_card(
    populated: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(populated.root))
    add_card(populated)
    command(["reward", "report", "likes"])
    shown = capsys.readouterr().out
    assert "95.0 % (93.9–95.9) of 1,800 pairs" in shown and "\x1b" not in shown
    assert "What is 2 plus 2?: ada prefers '2 plus 2 is 4.' (-0.40)" in shown
    command(["reward", "report", "likes", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"][:2] == [1_710, 1_800] and found["agreement"] == {"annotators": None, "themselves": None}
