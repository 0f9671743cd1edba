"""Every screen of the app, and how those open that have no test of their own with a snapshot or with foreign text.

An opener puts `text` wherever its screen takes foreign text: names, notes, answers of the desk.
"""

from __future__ import annotations

import datetime
import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot
from textual.screen import Screen

import workbench.screens
from stages.store.bin import Thrown
from stages.store.checks import Example as CheckExample
from stages.store.checks import Finding
from stages.store.classifiers import RESULT, Example
from stages.store.evaluations import Answer, Row
from stages.store.groups import Group, Member, write_group
from stages.store.labels import Candidate, open_labels
from stages.store.labels import Prompt as LabelPrompt
from stages.store.records import Message
from stages.store.rewards import CARD
from stages.store.rundir import Parent
from stages.store.specs.chat import Chat
from stages.store.specs.retrieval import Retrieval
from stages.store.statistics import share
from tests.workbench.conftest import (
    CREATED,
    DATASET_DIGEST,
    TOKENIZER_DIGEST,
    add_checkpoint,
    add_dataset,
    add_run,
    add_tokenizer,
    settled,
    wait_for,
)
from tests.workbench.evaluations import answered, write_evaluation
from tests.workbench.payloads import in_file_name
from tests.workbench.test_classified_screen import FOUND
from tests.workbench.test_cockpit import append, policy_run, rollout, row
from tests.workbench.test_inside_screen import attended, scored
from tests.workbench.test_reward_screens import HELD_OUT, WRONG
from workbench.board.run_board import Entry
from workbench.doctor import Finding as Symptom
from workbench.doctor import Status
from workbench.machine import Gpu, GpuUser, Holder, Machine, Reading
from workbench.screens import bin as bin_screen
from workbench.screens import doctor as doctor_screen
from workbench.screens import machine as machine_screen
from workbench.screens.card import CardScreen
from workbench.screens.check import ExamplesScreen
from workbench.screens.classified import ExampleScreen
from workbench.screens.classify import ClassifyScreen
from workbench.screens.compare import CompareScreen
from workbench.screens.evaluation import AnswerScreen
from workbench.screens.fill import FillScreen
from workbench.screens.flagging import Flagging
from workbench.screens.importing import ImportScreen
from workbench.screens.inside import InsideScreen
from workbench.screens.lineage import LineageScreen
from workbench.screens.machine import MachineScreen
from workbench.screens.new_set import NewSetScreen
from workbench.screens.pick import Pick
from workbench.screens.question import Ask, Question
from workbench.screens.record_statistics import StatisticsScreen
from workbench.screens.reward import DisagreementScreen
from workbench.screens.sampling import SamplingScreen
from workbench.screens.serve import ServeScreen
from workbench.screens.settling import SettleScreen
from workbench.screens.source import SourceScreen
from workbench.screens.sweeping import ScaleScreen, sweep_form
from workbench.screens.sweeps import SweepsScreen
from workbench.screens.views import view_of
from workbench.screens.writing import Writing
from workbench.talking.desk_client import DeskClient
from workbench.talking.serving import Serving
from workbench.widgets.text_field import TextField

Opener = Callable[[Pilot[Any], str, pytest.MonkeyPatch], Awaitable[None]]

BASES = {
    "AskingScreen",
    "Dialog",
    "Filtering",
    "LaunchScreen",
    "Leavable",
    "PlaceScreen",
    "RecordEditing",
    "Sized",
    "WorkbenchScreen",
}
"""Classes that screens are made of."""


def every_screen() -> set[str]:
    """The names of all screens that can be shown."""
    found = set()
    for module in pkgutil.walk_packages(workbench.screens.__path__, "workbench.screens."):
        classes = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        found |= {name for name, cls in classes if issubclass(cls, Screen) and cls.__module__ == module.name}
    return {name for name in found - BASES if not name.startswith("_")}


def pushing(make: Callable[[Pilot[Any], str], Screen[Any]]) -> Opener:
    """The opener of a screen that needs nothing but its arguments."""

    async def opened(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
        await pilot.app.push_screen(make(pilot, text))

    return opened


def desk_says(patch: pytest.MonkeyPatch, *answers: Any) -> None:
    """A desk that answers every question with the first, then with the next of these; the last from then on."""
    left = list(answers)

    async def ask(self: DeskClient, verb: str, **args: Any) -> Any:
        return left.pop(0) if len(left) > 1 else left[0]

    patch.setattr(DeskClient, "ask", ask)


async def open_answer(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    one = Answer(prompt=text, text=text, wanted=text, right=False)
    measured = Row(checkpoint=text, step=1, shares={"exact": share(1, 2)}, answers=[one], note=text)
    await pilot.app.push_screen(AnswerScreen(answered([measured]), measured, one))


def disagreeing(pilot: Pilot[Any], text: str) -> None:
    """Two people who disagree about one prompt of the set `set`."""
    prompt = LabelPrompt(messages=[Message("user", text)], part="eval")
    candidates = [Candidate(run="r", k=k, text=f"{text} {k}", checkpoint=text) for k in range(2)]
    with open_labels(pilot.app.workspace.labels) as labels:
        chosen = labels.add_set("set", "rank", [(prompt, candidates)], people=2)
        for best in ("0", "1"):
            shown = labels.at(chosen.id, 0)
            assert shown is not None
            who, ranks = f"{text} {best}", [1 if one.text.endswith(best) else 2 for one in shown.completions]
            labels.save(shown.label("rank", who, ranks=ranks, seconds=3.0))


async def open_settling(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    disagreeing(pilot, text)
    await pilot.app.push_screen(SettleScreen("set"))


async def open_rank(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    disagreeing(pilot, text)
    pilot.app.go("rank")


async def open_machine(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    """A machine that is always as busy, seen once."""
    run = add_run(pilot.app.workspace, "pretrain", text, "queued")
    gpu = Gpu(text, "GPU-1", 41 * 10**9, 85 * 10**9, 0.97, 61, 402.0, 700.0)
    holders = [Holder(Entry(run, run.spec(), run.state(), "queued"), 1.5, 2 * 10**9, 3 * 10**9, 1)]
    users = [GpuUser(text, 3 * 10**9), GpuUser(text, 2 * 10**9, 4321)]
    look = Reading(0.5, 16, 18 * 10**9, 64 * 10**9, 10**12, 2 * 10**12, [gpu], holders, [users])
    patch.setattr(machine_screen, "KEPT", 1)
    patch.setattr(Machine, "look", lambda self: look)
    await pilot.app.push_screen(MachineScreen())


async def open_lineage(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    workspace, name = pilot.app.workspace, in_file_name(text)
    add_dataset(workspace, name)
    add_tokenizer(workspace, name, dataset=name)
    parents = {"dataset": Parent(name, DATASET_DIGEST), "tokenizer": Parent(name, TOKENIZER_DIGEST)}
    add_run(workspace, "pretrain", text, parents=parents)
    await pilot.app.push_screen(LineageScreen())


async def open_doctor(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    """A doctor who has found one of each kind."""
    states: tuple[Status, ...] = ("ok", "warning", "broken")
    found = [Symptom(text, f"{text} {state}", state, text, text if state != "ok" else "") for state in states]

    async def ask() -> dict[str, Any]:
        return {"error": text}

    patch.setattr(doctor_screen, "at_once", lambda workspace, terminal: found)
    patch.setattr(doctor_screen, "ask", ask)
    pilot.app.action_doctor()


async def open_serve(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    """An endpoint that has said where it is."""
    pilot.app.serving = serving = Serving(text, Path("/checkpoints") / "step-1")
    for said in (f"Serving {text} (chat).", "  address  http://127.0.0.1:8000/v1", f"  token    {text}"):
        serving.take(said)
    await pilot.app.push_screen(ServeScreen())


async def open_bin(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    when = datetime.datetime(2026, 2, 25, 6, 13, tzinfo=datetime.UTC)
    gone = pilot.app.workspace.root / "gone"
    thrown = [Thrown(gone / str(at), "datasets", name, when) for at, name in enumerate((text, "another"))]
    patch.setattr(bin_screen, "list_bin", lambda workspace: thrown)
    await pilot.app.push_screen(bin_screen.BinScreen(pilot.app.workspace))


async def open_new_set(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    add_dataset(pilot.app.workspace, in_file_name(text), kind="preference")
    await pilot.app.push_screen(NewSetScreen(lambda name: None))


async def open_classified(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    run = add_run(pilot.app.workspace, "classify", text)
    one = Example(texts=[text, text], wanted=[text], found=[text], probability=0.02, record=1)
    labels = [f"{text} {number}" for number in range(3)]
    found = msgspec.structs.replace(FOUND, checkpoint=text, dataset=text, split=text, labels=labels, worst=[one])
    (run.path / RESULT).write_bytes(msgspec.json.encode(found))
    await pilot.app.push_screen(view_of(run)(run))


async def open_example(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    one = Example(texts=[text, text], wanted=[text], found=[text, "x"], probability=0.02, record=1)
    await pilot.app.push_screen(ExampleScreen(one))


async def open_asking(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    desk_says(patch, {"labels": [{"label": text, "probability": 0.9}], "cut": True})
    await pilot.app.push_screen(ClassifyScreen("checkpoint", text))
    pilot.app.screen.query_one(TextField).text = text


async def open_filling(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    desk_says(patch, {"text": text, "blanks": [[{"text": text, "probability": 0.9}]]})
    await pilot.app.push_screen(FillScreen("checkpoint", text))


async def open_inside(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    desk_says(patch, scored(f"{text} {text}"), attended(text, 0, 0))
    await pilot.app.push_screen(InsideScreen("checkpoint", text))


async def open_reward(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    run = add_run(pilot.app.workspace, "reward", text)
    worst = msgspec.structs.replace(WRONG, messages=[Message("user", text)], better=text, worse=text, annotator=text)
    card = msgspec.structs.replace(HELD_OUT, checkpoint=text, dataset=text, label_sets=[text], worst=[worst])
    (run.path / CARD).write_bytes(msgspec.json.encode(card))
    await pilot.app.push_screen(view_of(run)(run))


async def open_disagreement(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    one = msgspec.structs.replace(WRONG, messages=[Message(text, text)], better=text, worse=text, annotator=text)
    await pilot.app.push_screen(DisagreementScreen(one))


async def open_cockpit(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    run = policy_run(pilot.app.workspace, row(10), row(20))
    append(run.samples, rollout(20, text, prompt=text, pieces=[text], kind="rollout"))
    await pilot.app.push_screen(view_of(run)(run))


async def open_sweeps(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    members = [Member(f"{text} {number}", {"preset": text}) for number in range(2)]
    group = Group(name="sizes", kind="sweep", stage="pretrain", settings={}, over={"preset": [text]}, members=members)
    write_group(pilot.app.workspace, group)
    add_run(pilot.app.workspace, "pretrain", members[0].name)
    await pilot.app.push_screen(SweepsScreen("sizes"))


def parents_named(pilot: Pilot[Any], text: str) -> None:
    """Dataset, tokenizer and a tuned checkpoint of this name."""
    workspace, name = pilot.app.workspace, in_file_name(text)
    add_dataset(workspace, name)
    add_dataset(workspace, f"{name} talks", kind="chat", digest="d2" * 32)
    add_tokenizer(workspace, name, dataset=name)
    add_checkpoint(add_run(workspace, "pretrain", text), 10)


async def open_compare(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    found = [add_run(pilot.app.workspace, "sft", text, settings={"lr": 1e-3, text: text, "seed": 1})]
    found += [add_run(pilot.app.workspace, "sft", "other", settings={"lr": 1e-4, "seed": 1})]
    for run, value in zip(found, (0.5, 1234567.0), strict=True):
        append(run.metrics, {"step": 1, "time": CREATED, "train/loss": value, text: 1.0})
    await pilot.app.push_screen(CompareScreen(found))


async def open_sweep_form(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    parents_named(pilot, text)
    await pilot.app.push_screen(sweep_form("pretrain", {"name": text, "preset": text}))


async def open_tuning_sweep(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    parents_named(pilot, text)
    await pilot.app.push_screen(sweep_form("sft", {"name": text}))


async def open_scale_form(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    parents_named(pilot, text)
    await pilot.app.push_screen(ScaleScreen())


async def open_few_shot_form(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    parents_named(pilot, text)
    pilot.app.start_run("in_context", {"task": text, "checkpoints": text})


async def open_few_shot(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    run = add_run(pilot.app.workspace, "in_context", text, created=CREATED)
    one = Answer(prompt=text, text=text, wanted=text, right=False)
    shares = {"0-shot": share(1, 4), f"0-shot/{text}": share(1, 2)}
    write_evaluation(run, answered([Row(checkpoint=text, step=1, shares=shares, answers=[one], note=text)]))
    await pilot.app.push_screen(view_of(run)(run))


async def open_statistics(pilot: Pilot[Any], text: str, patch: pytest.MonkeyPatch) -> None:
    desk_says(patch, {"records": 1, "characters": 1, "lengths": {}, "tables": {text: [[text, 1]]}, "kinds": {text: 1}})
    await pilot.app.push_screen(StatisticsScreen({"dataset": text, "split": text, "filter": text}))


OPENERS: dict[str, Opener] = {
    "AnswerScreen": open_answer,
    "Ask": pushing(lambda pilot, text: Ask(text, text, "", str)),
    "BinScreen": open_bin,
    "CardScreen": pushing(lambda pilot, text: CardScreen(text, f"# {text}\n\n{text}: 1\n", Path("/cards") / "one")),
    "ClassifiedScreen": open_classified,
    "ClassifyScreen": open_asking,
    "CockpitScreen": open_cockpit,
    "CompareScreen": open_compare,
    "DisagreementScreen": open_disagreement,
    "DoctorScreen": open_doctor,
    "ExampleScreen": open_example,
    "ExamplesScreen": pushing(
        lambda pilot, text: ExamplesScreen(Finding(text, text, 1, [CheckExample(text, text)], {"max_line": text}, text))
    ),
    "FewShotScreen": open_few_shot,
    "FillScreen": open_filling,
    "Flagging": pushing(lambda pilot, text: Flagging(0)),
    "ImportScreen": pushing(lambda pilot, text: ImportScreen({"name": text, "source": text})),
    "InContextScreen": open_few_shot_form,
    "InsideScreen": open_inside,
    "LineageScreen": open_lineage,
    "MachineScreen": open_machine,
    "NewSetScreen": open_new_set,
    "Pick": pushing(lambda pilot, text: Pick(text, [text, "another"])),
    "Question": pushing(lambda pilot, text: Question(text, text, yes=text)),
    "RankScreen": open_rank,
    "RewardScreen": open_reward,
    "SamplingScreen": pushing(lambda pilot, text: SamplingScreen(Chat())),
    "ScaleScreen": open_scale_form,
    "ServeScreen": open_serve,
    "SettleScreen": open_settling,
    "SourceScreen": pushing(lambda pilot, text: SourceScreen(pilot.app.workspace, Retrieval(source=text))),
    "StatisticsScreen": open_statistics,
    "SweepStartScreen": open_sweep_form,
    "SweepTuneScreen": open_tuning_sweep,
    "SweepsScreen": open_sweeps,
    "Writing": pushing(lambda pilot, text: Writing(text, text)),
}
"""By the name of the screen."""


async def opened(pilot: Pilot[Any], name: str, text: str, patch: pytest.MonkeyPatch) -> None:
    """Open a screen by its name, and wait until it stands."""
    await settled(pilot)
    await OPENERS[name](pilot, text, patch)
    await wait_for(pilot, lambda: type(pilot.app.screen).__name__ == name)
    await settled(pilot)
