"""The form of instruction tuning, and the mask of the conversations it trains on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from stages.store.datasets import find_dataset
from stages.store.files import sha256_file
from stages.store.records import Message
from stages.store.specs import TRAINING
from stages.store.tokenizers import list_tokenizers
from stages.store.workspace import Workspace
from tests.stages.data.chats import chat_dataset
from tests.stages.sft_helpers import chat_workspace
from tests.workbench.conftest import (
    CREATED,
    SIZES,
    add_checkpoint,
    add_dataset,
    add_run,
    screen_text,
    settled,
    wait_for,
)
from workbench import runs
from workbench.app import WorkbenchApp
from workbench.models.tuning import estimate_tuning, parameters_in, shapes_in, tunable, whole_model
from workbench.screens.mask import MaskScreen, painted
from workbench.screens.start import TITLES
from workbench.screens.tune import TuneScreen
from workbench.widgets.form import SpecForm

MakeApp = Callable[..., WorkbenchApp]


@pytest.fixture
def chatty(populated: Workspace) -> Workspace:
    """A model, and conversations."""
    add_dataset(populated, "world-chat", kind="chat", digest="c1" * 32, created=CREATED + 10)
    return populated


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A model and conversations that can be read, one of which cannot be trained on."""
    workspace = chat_workspace(tmp_path_factory.mktemp("real"))
    evil = "\x1b[31m<|im_end|>[/]é\n"
    records = [
        [Message("user", evil), Message("assistant", f"no {evil}")],
        [Message("user", "?")],
        [Message("user", "a" * 30), Message("assistant", "b"), Message("user", "c" * 30), Message("assistant", "d")],
    ]
    chat_dataset(workspace.datasets / "odd", records, val=[records[2]])
    return workspace


@pytest.mark.parametrize("size", SIZES)
async def test_snapshot_of_the_form(
    make_app: MakeApp, chatty: Workspace, size: tuple[int, int], snapshot: Callable[[Pilot[Any], str], Awaitable[None]]
) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        app.start_run("sft")
        await settled(pilot)
        await snapshot(pilot, f"tune-{size[0]}x{size[1]}")


async def test_the_form_is_filled_in_and_launches(
    make_app: MakeApp, chatty: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[tuple[Any, ...]] = []

    def launch(_: Workspace, stage: str, name: str, settings: dict[str, Any], **rest: Any) -> Any:
        launched.append((stage, name, settings, rest))
        return next(iter(runs.list_runs(chatty)))

    monkeypatch.setattr(runs, "launch", launch)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        app.start_run("sft", {"epochs": 8.0})
        await settled(pilot)
        assert isinstance(app.screen, TuneScreen)
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: launched)
    stage, name, settings, rest = launched[0]
    assert (stage, name, settings["epochs"]) == ("sft", "world-tiny-sft", 8.0)
    assert (rest["dataset"], rest["checkpoint"]) == ("world-chat", "world-tiny") and not rest.get("tokenizer")


async def test_the_form_of_distillation_asks_for_a_teacher(
    make_app: MakeApp, chatty: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another than the student, as far as there is one; conversations and text alike."""
    teacher = add_run(chatty, "pretrain", "large", created=CREATED - 50)
    add_checkpoint(teacher, 100)
    add_checkpoint(add_run(chatty, "reward", "judge", created=CREATED + 50), 100)
    launched: list[tuple[Any, ...]] = []

    def launch(_: Workspace, stage: str, name: str, settings: dict[str, Any], **rest: Any) -> Any:
        launched.append((stage, name, settings, rest))
        return next(iter(runs.list_runs(chatty)))

    monkeypatch.setattr(runs, "launch", launch)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        app.start_run("distill", {"dataset": "world", "alpha": 1.0})
        await settled(pilot)
        rows = app.screen.query_one(SpecForm).rows
        assert [rows[name].text for name in ("dataset", "checkpoint", "teacher")] == ["world", "world-tiny", "large"]
        assert "judge" not in rows["teacher"].field.choices
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: launched)
    stage, name, settings, rest = launched[0]
    assert (stage, name, settings["alpha"]) == ("distill", "world-tiny-distill", 1.0)
    assert (rest["checkpoint"], rest["extra"]) == ("world-tiny", {"teacher": "large"}) and "teacher" not in rest


@pytest.mark.parametrize(("stage", "scored_by"), [("ppo", "judge"), ("grpo", None)])
async def test_a_policy_is_improved_from_the_form(
    make_app: MakeApp, chatty: Workspace, monkeypatch: pytest.MonkeyPatch, stage: str, scored_by: str | None
) -> None:
    """`reward` is a setting and the role of a parent: the form has a field for each. It begins with the SFT model."""
    add_dataset(chatty, "held-out", kind="prompts", created=CREATED + 90, sources=["starter:demo-eval"])
    add_dataset(chatty, "questions", kind="prompts", created=CREATED)
    for made_by, name, age in (("sft", "tuned", 40), ("dpo", "polished", 60), ("reward", "judge", 50)):
        add_checkpoint(add_run(chatty, made_by, name, created=CREATED + age), 100)
    launched: list[tuple[Any, ...]] = []

    def launch(_: Workspace, stage: str, name: str, settings: dict[str, Any], **rest: Any) -> Any:
        launched.append((stage, name, settings, rest))
        return next(iter(runs.list_runs(chatty)))

    monkeypatch.setattr(runs, "launch", launch)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        app.start_run(stage)
        await settled(pilot)
        rows = app.screen.query_one(SpecForm).rows
        assert (rows["reward"].text, rows["reward_model"].text) == ("auto", scored_by or "(none)")
        assert rows["dataset"].field.choices == ("questions", "held-out")
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: launched)
    _, name, settings, rest = launched[0]
    assert (name, settings["reward"], rest["dataset"]) == (f"tuned-{stage}", "auto", "questions")
    assert (rest["checkpoint"], rest["extra"]) == ("tuned", {"reward": scored_by} if scored_by else {})


async def test_without_conversations_the_form_says_what_is_missing(make_app: MakeApp, populated: Workspace) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        app.start_run("sft")
        await settled(pilot)
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: screen_text(app).count("No conversations yet.") == 2)
        assert isinstance(app.screen, TuneScreen)


def test_every_training_stage_has_a_form_with_a_title() -> None:
    assert TITLES.keys() == set(TRAINING)


def test_the_cost_is_reckoned_from_what_is_on_disk(real: Workspace) -> None:
    found = estimate_tuning(real, {"epochs": 2.0, "batch_size": 4, "packing": False}, "sums", "base")
    assert found.parameters == parameters_in(real.models / "base") > 1_000
    assert (found.context, found.records, found.steps) == (96, 120, 60)
    assert tunable(real) == ["base"]
    assert found.standing == 20 * found.parameters


def test_adapters_cost_less_than_all_weights(real: Workspace) -> None:
    values = {"method": "lora", "lora_rank": 2, "lora_keep": "adapter"}
    blocks = [shape for name, shape in shapes_in(real.models / "base").items() if ".0." in name or ".1." in name]
    adapters = 2 * sum(sum(shape) for shape in blocks if len(shape) == 2)
    found = estimate_tuning(real, values, "sums", "base")
    assert found.standing == 4 * found.parameters + 20 * adapters
    assert adapters > 0


def test_steps_are_told_as_surely_as_the_tokens_are_known(real: Workspace) -> None:
    values = {"epochs": 2.0, "batch_size": 4, "packing": True}
    found = estimate_tuning(real, values, "sums", "base")
    dataset = find_dataset(real, "sums")
    digest = sha256_file(real.models / "base" / "tokenizer.json")
    known = [one for one in list_tokenizers(real) if one.info.digest == digest]
    assert found.between is not None and not found.tokens.counted
    assert (found.between[0] < found.between[1]) == (not known)
    folder = dataset.path / "tokens" / f"{digest[:32]}-{'0' * 32}"
    folder.mkdir(parents=True)
    counts = {"dataset_digest": dataset.info.digest, "splits": {"train": {"tokens": 96 * 40}}}
    (folder / "conversations.json").write_text(json.dumps(counts))
    found = estimate_tuning(real, values, "sums", "base")
    assert found.tokens.counted and (found.tokens.likely, found.steps, found.between) == (3_840, 20, (20, 20))
    (folder / "conversations.json").write_text('{"dataset_digest": 3')
    assert not estimate_tuning(real, values, "sums", "base").tokens.counted
    shutil.rmtree(folder)


def test_an_adapter_costs_what_its_model_costs(real: Workspace, tmp_path: Path) -> None:
    adapter, base = tmp_path / "adapter", real.models / "base"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert whole_model(adapter) == base == whole_model(base)
    for damaged in ("[]", "{}", '{"base_model_name_or_path": 3}', "\x00", '{"base_model_name_or_path": "gone"}'):
        (adapter / "adapter_config.json").write_text(damaged)
        assert whole_model(adapter) == adapter


def test_a_damaged_model_has_no_known_size(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    assert parameters_in(tmp_path) == 0


async def test_the_mask_shows_each_conversation_as_it_is_trained(
    make_app: MakeApp, real: Workspace, snapshot: Callable[[Pilot[Any], str], Awaitable[None]]
) -> None:
    app = make_app(over=real)
    async with app.run_test(size=(120, 40)) as pilot:
        app.push_screen(MaskScreen("odd", "base"))
        await wait_for(pilot, lambda: "train 1 of 3" in screen_text(app))
        shown = screen_text(app)
        assert "<|im_start|>user↵" in shown and "␛[31m<|im_end|>[/]" in shown and "\x1b" not in shown
        await pilot.press("n")
        await wait_for(pilot, lambda: "Refused: It has no assistant's turn" in screen_text(app))
        await pilot.press("n")
        await wait_for(pilot, lambda: "train 3 of 3" in screen_text(app))
        assert "turns lost: 1" in screen_text(app) and "cut" in screen_text(app)
        await pilot.press("l")
        await wait_for(pilot, lambda: "last turn only" in screen_text(app))
        await pilot.press("tab")
        await wait_for(pilot, lambda: "val 1 of 1" in screen_text(app))


@pytest.mark.parametrize("size", SIZES)
async def test_snapshot_of_the_mask(
    make_app: MakeApp, real: Workspace, size: tuple[int, int], snapshot: Callable[[Pilot[Any], str], Awaitable[None]]
) -> None:
    app = make_app(over=real)
    async with app.run_test(size=size) as pilot:
        app.push_screen(MaskScreen("odd", "base", {"context": 60}))
        await wait_for(pilot, lambda: "train 1 of 3" in screen_text(app))
        await pilot.press("p")
        await wait_for(pilot, lambda: "train 3 of 3" in screen_text(app))
        await snapshot(pilot, f"mask-{size[0]}x{size[1]}")


async def test_the_form_opens_the_mask_with_its_settings(make_app: MakeApp, real: Workspace) -> None:
    app = make_app(over=real)
    async with app.run_test(size=(120, 40)) as pilot:
        app.start_run("sft", {"dataset": "sums", "checkpoint": "base", "turns": "last"})
        await settled(pilot)
        assert app.screen.query_one(SpecForm)
        await pilot.press("f3")
        await wait_for(pilot, lambda: "last turn only" in screen_text(app))
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(app.screen, TuneScreen))


async def test_a_model_that_is_gone_is_said_in_the_mask(make_app: MakeApp, real: Workspace) -> None:
    app = make_app(over=real)
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(MaskScreen("odd", "bse"))
        await wait_for(pilot, lambda: "no run 'bse'" in screen_text(app))


def test_states_differ_without_colours() -> None:
    trained, ignored, cut = (
        {span.style for span in painted([("x", state, False)]).spans} for state in ("trained", "ignored", "cut")
    )
    assert any("bold" in str(style) for style in trained) and any("strike" in str(style) for style in cut)
    assert trained != ignored != cut
