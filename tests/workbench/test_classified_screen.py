"""Models that label, in the app and by command: the matrix, the worst examples, asking with typed texts."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot
from textual.widgets import ContentSwitcher

from stages.store.classifiers import RESULT, Classified, Example, PerClass
from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.statistics import share
from stages.store.workspace import Workspace
from tests.workbench.conftest import (
    CREATED,
    DATASET_DIGEST,
    SIZES,
    add_checkpoint,
    add_dataset,
    add_metrics,
    add_run,
    screen_text,
    settled,
    wait_for,
)
from workbench.app import WorkbenchApp
from workbench.cli.root import run as command
from workbench.screens.classified import ClassifiedScreen, ExampleScreen, Matrix, matrix
from workbench.screens.classify import ClassifyScreen
from workbench.screens.tune import TuneScreen
from workbench.talking.classified import answered, asked, confusions, facts
from workbench.talking.desk_client import DeskClient
from workbench.widgets.text_field import TextField

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[None], str], Awaitable[None]]

LABELS = ["contradiction", "entailment", "neutral"]
WRONG = Example(
    texts=["Kate is older than Hugo.", "Hugo is \x1b[31mold\x1b[0m."],
    wanted=["neutral"],
    found=["entailment"],
    probability=0.021,
    record=41,
)
RIGHT = Example(
    texts=["Sam is sad.", "Sam is sad."], wanted=["entailment"], found=["entailment"], probability=0.5, record=3
)
FOUND = Classified(
    checkpoint="entails@900",
    step=900,
    dataset="labels",
    dataset_digest=DATASET_DIGEST,
    split="val",
    task="pair",
    labels=LABELS,
    records=138,
    accuracy=share(125, 138),
    macro_f1=0.904,
    loss=0.2519,
    classes=[PerClass(label=label, precision=0.9, recall=0.91, f1=0.905, count=46) for label in LABELS],
    confusion=[[40, 2, 1], [1, 43, 2], [4, 3, 42]],
    worst=[WRONG, RIGHT],
)
WORDS = msgspec.structs.replace(
    FOUND,
    task="tokens",
    entity_f1=0.875,
    entities=[PerClass(label=name, precision=1, recall=0.8, f1=0.875, count=9) for name in ("person", "place")],
    worst=[
        Example(
            texts=["Anna", "went", "to", "Fossland"],
            wanted=["B-person", "O", "O", "B-place"],
            found=["O", "O", "O", "B-person"],
            probability=0.2,
            record=7,
        )
    ],
)


def add_labeller(workspace: Workspace, found: Classified = FOUND, stage: str = "classify") -> RunDir:
    run = add_run(workspace, stage, "entails", created=CREATED + 100, step=900, total=900, last_checkpoint="step-900")
    add_metrics(run, 90)
    add_checkpoint(run, 900)
    (run.path / RESULT).write_bytes(msgspec.json.encode(found))
    return run


async def open_labeller(pilot: Pilot[None], run: RunDir) -> ClassifiedScreen:
    pilot.app.open_run(run)  # type: ignore[attr-defined]  # a WorkbenchApp
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, ClassifiedScreen) and pilot.app.screen.found)
    await wait_for(pilot, lambda: "macro-F1" in screen_text(pilot.app))
    await settled(pilot)
    assert isinstance(pilot.app.screen, ClassifiedScreen)
    return pilot.app.screen


@pytest.mark.parametrize("size", SIZES)
async def test_it_looks_like_this(
    populated: Workspace, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    run = add_labeller(populated)
    async with make_app().run_test(size=size) as pilot:
        await open_labeller(pilot, run)
        await snapshot(pilot, f"classified-{size[0]}x{size[1]}")


async def test_pictures_take_turns_and_an_example_opens(populated: Workspace, make_app: MakeApp) -> None:
    run = add_labeller(populated)
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_labeller(pilot, run)
        pictures = screen.query_one("#pictures", ContentSwitcher)
        assert pictures.current == "matrix"
        await pilot.press("t")
        await wait_for(pilot, lambda: pictures.current == "curves" and "loss" in screen_text(pilot.app))
        screen.query_one("#worst").focus()
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ExampleScreen))
        await settled(pilot)
        shown = screen_text(pilot.app)
        assert "neutral, not entailment: 2.1 % by the model" in shown and "record 42" in shown
        assert "␛[31mold" in shown and "\x1b" not in shown
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ClassifiedScreen))


async def test_words_are_listed_with_what_was_said_of_them(populated: Workspace, make_app: MakeApp) -> None:
    run = add_labeller(populated, WORDS, "assess")
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_labeller(pilot, run)
        assert "87.5 % (person 87.5, place 87.5)" in screen_text(pilot.app)
        screen.query_one("#worst").focus()
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ExampleScreen))
        await settled(pilot)
        lines = [line.strip("│ ") for line in screen_text(pilot.app).splitlines()]
        assert any(line.startswith("Fossland") and "B-place  not B-person" in line for line in lines)


async def test_a_large_matrix_scrolls_both_ways(populated: Workspace, make_app: MakeApp) -> None:
    many = [f"label {n}" for n in range(77)]
    counts = [[10 if row == column else 0 for column in range(77)] for row in range(77)]
    run = add_labeller(populated, msgspec.structs.replace(FOUND, labels=many, confusion=counts, classes=[]))
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_labeller(pilot, run)
        shown = screen.query_one(Matrix)
        shown.focus()
        await pilot.press("l", "j")
        await wait_for(pilot, lambda: shown.scroll_offset.x > 0 and shown.scroll_offset.y > 0)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the desk is asked; it answers as a model of pairs might."""
    questions: list[dict[str, Any]] = []

    async def ask(self: DeskClient, verb: str, **args: Any) -> Any:
        questions.append({"verb": verb, **args})
        if len(args["texts"]) != 2:
            raise UserError("This model labels two texts, and 1 is given.", "Put each text into quotes.")
        shares = {"neutral": 0.912, "\x1b[31mentailment": 0.08}
        rows = [{"label": label, "probability": share} for label, share in shares.items()]
        return {"task": "pair", "labels": rows, "cut": False}

    monkeypatch.setattr(DeskClient, "ask", ask)
    return questions


@pytest.mark.parametrize("size", SIZES)
async def test_asking_looks_like_this(
    populated: Workspace, make_app: MakeApp, snapshot: Snapshot, told: list[dict[str, Any]], size: tuple[int, int]
) -> None:
    run = add_labeller(populated)
    async with make_app().run_test(size=size) as pilot:
        await open_labeller(pilot, run)
        await pilot.press("c")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ClassifyScreen))
        field = pilot.app.screen.query_one(TextField)
        field.text = "Kate is old."
        await wait_for(pilot, lambda: "labels two texts" in screen_text(pilot.app))
        field.text = "Kate is old.\nHugo is old."
        await wait_for(pilot, lambda: "91.2%" in screen_text(pilot.app))
        await settled(pilot)
        assert told[-1]["verb"] == "classify.of" and told[-1]["texts"] == ["Kate is old.", "Hugo is old."]
        assert "␛[31mentailment" in screen_text(pilot.app)
        await snapshot(pilot, f"classify-{size[0]}x{size[1]}")
        await pilot.press("escape", "escape")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ClassifiedScreen))


async def test_the_form_offers_labelled_data_and_encoders(populated: Workspace, make_app: MakeApp) -> None:
    add_dataset(populated, "questions", kind="labelled", digest="d3" * 32)
    encoder = add_run(populated, "bert", "bert", created=CREATED + 90, last_checkpoint="step-2000")
    add_checkpoint(encoder, 2_000)
    async with make_app().run_test(size=(120, 40)) as pilot:
        pilot.app.start_run("classify")  # type: ignore[attr-defined]  # a WorkbenchApp
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, TuneScreen))
        await wait_for(pilot, lambda: "questions" in screen_text(pilot.app))
        screen = pilot.app.screen
        assert isinstance(screen, TuneScreen)
        assert screen.given["dataset"] == "questions" and screen.given["checkpoint"] == "bert"


def test_the_figures_in_words() -> None:
    assert facts(FOUND)["accuracy"] == "90.6 % (84.5–94.4) of 138 records"
    assert facts(FOUND)["right → said"].startswith("neutral → contradiction ×4, neutral → entailment ×3")
    assert "entity F1" not in facts(FOUND) and "of 138 words" in facts(WORDS)["accuracy"]
    assert [one.times for one in confusions(FOUND)] == [4, 3, 2, 2, 1, 1]
    assert answered(WRONG) == "neutral → entailment" and answered(RIGHT) == "entailment"
    assert answered(WORDS.worst[0]) == "Anna: B-person → O, and 1 more"
    assert asked(RIGHT) == "Sam is sad. | Sam is sad."
    rows = matrix(FOUND).plain.splitlines()
    assert rows[0].split() == ["1", "2", "3"] and rows[3].split() == ["3", "neutral", "4", "3", "42"]


def test_the_command_shows_what_was_found(
    populated: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(populated.root))
    add_labeller(populated)
    command(["classified", "entails"])
    shown = capsys.readouterr().out
    assert "90.6 % (84.5–94.4)" in shown and "\x1b" not in shown and "3 neutral" in shown
    assert "neutral → entailment  Kate is older than Hugo. | Hugo is ␛[31mold" in shown
    command(["classified", "entails", "--json"])
    assert json.loads(capsys.readouterr().out)["confusion"][2] == [4, 3, 42]
    with pytest.raises(UserError, match="has not judged its labels"):
        command(["classified", "world-tiny"])
    with pytest.raises(UserError, match="--set goes with --data"):
        command(["classified", "entails", "--set", "split=val"])
