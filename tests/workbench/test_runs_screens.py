"""Runs, a run and the start form: what they show, how they follow a worker, and what keys ask of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.geometry import Region
from textual.pilot import Pilot
from textual.strip import Strip
from textual.widgets import ContentSwitcher, Static

from stages.store.rundir import RunDir, RunError, RunState
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, SIZES, add_metrics, add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.board.outcome import about_samples
from workbench.board.run_board import Entry
from workbench.screens.compare import CompareScreen
from workbench.screens.pick import Pick
from workbench.screens.question import Ask, Question
from workbench.screens.run import RunScreen
from workbench.screens.runs import RunsScreen
from workbench.screens.start import StartScreen
from workbench.screens.tune import TuneScreen
from workbench.widgets.form import SpecForm
from workbench.widgets.log_tail import LogTail
from workbench.widgets.loss_plot import LossPlot
from workbench.widgets.run_list import RunList

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[None], str], Awaitable[None]]


def find(workspace: Workspace, name: str) -> RunDir:
    return next(run for run in (RunDir(path) for path in workspace.runs.iterdir()) if run.spec().name == name)


def append(path: Path, *rows: object) -> None:
    with path.open("ab") as file:
        file.writelines(msgspec.json.encode(row) + b"\n" for row in rows)


def requests(run: RunDir) -> list[str]:
    return [path.name.partition("-")[2] for path in sorted(run.control.glob("*.json"))]


async def open_runs(pilot: Pilot[None]) -> RunsScreen:
    pilot.app.go("runs")  # type: ignore[attr-defined]  # a WorkbenchApp
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen) and pilot.app.screen.query("RunList"))
    await settled(pilot)
    assert isinstance(pilot.app.screen, RunsScreen)
    return pilot.app.screen


async def open_form(pilot: Pilot[None]) -> None:
    """From Runs, the form of the first kind of run: pre-training."""
    await pilot.press("n")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, Pick))
    await pilot.press("enter")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, StartScreen))


async def open_run(pilot: Pilot[None], run: RunDir) -> RunScreen:
    pilot.app.open_run(run)  # type: ignore[attr-defined]  # a WorkbenchApp
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunScreen) and pilot.app.screen.run_in_view())
    await settled(pilot)
    assert isinstance(pilot.app.screen, RunScreen)
    return pilot.app.screen


@pytest.fixture
def at_work(populated: Workspace) -> RunDir:
    """A run whose lock this process holds, as its worker would."""
    run = add_run(
        populated, "pretrain", "at-work", "running", created=CREATED + 60, step=500, last_checkpoint="step-250"
    )
    add_metrics(run, 50)
    descriptor = run.acquire()
    assert descriptor is not None
    return run


@pytest.mark.parametrize("size", SIZES)
async def test_runs_look_like_this(
    populated: Workspace, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    async with make_app().run_test(size=size) as pilot:
        await open_runs(pilot)
        await wait_for(pilot, lambda: "◆" in screen_text(pilot.app))
        await snapshot(pilot, f"runs-{size[0]}x{size[1]}")


@pytest.mark.parametrize("size", SIZES)
async def test_no_runs_look_like_this(make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]) -> None:
    async with make_app().run_test(size=size) as pilot:
        await open_runs(pilot)
        await snapshot(pilot, f"runs-empty-{size[0]}x{size[1]}")


@pytest.mark.parametrize("size", SIZES)
async def test_a_run_looks_like_this(
    populated: Workspace, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    run = find(populated, "world-tiny")
    append(
        run.samples,
        {"step": 1000, "prompt": "The sky ", "text": "is blue."},
        {"step": 2000, "prompt": "Two ", "text": "and two."},
    )
    async with make_app().run_test(size=size) as pilot:
        await open_run(pilot, run)
        await snapshot(pilot, f"run-{size[0]}x{size[1]}")


@pytest.mark.parametrize("size", SIZES)
async def test_a_failed_run_shows_its_error_and_what_to_do(
    populated: Workspace, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    run = find(populated, "too-hot")
    run.log.write_text("step 211\nstep 212: the loss is not finite\n")
    async with make_app().run_test(size=size) as pilot:
        await open_run(pilot, run)
        await snapshot(pilot, f"run-failed-{size[0]}x{size[1]}")
        shown = screen_text(pilot.app)
        assert "The loss is not finite at step 212." in shown
        assert "Lower lr, or raise warmup." in shown
        assert "step 212: the loss is not finite" in shown


async def test_n_asks_for_the_kind_of_run(populated: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await open_runs(pilot)
        await pilot.press("n")
        await wait_for(pilot, lambda: "(PPO)" in screen_text(pilot.app))
        await pilot.press("end", "enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, TuneScreen))
        await settled(pilot)
        assert "Improve a model by rewards (PPO)" in screen_text(pilot.app)


async def test_the_key_of_the_place_leads_from_a_run_to_the_list(populated: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_run(pilot, find(populated, "world-tiny"))
        await pilot.press("H", "R")
        await settled(pilot)
        assert isinstance(pilot.app.screen, RunScreen)
        await pilot.press("R")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunsScreen))


async def test_marked_runs_stand_side_by_side_in_a_table(workspace: Workspace, make_app: MakeApp) -> None:
    for number, (name, lr) in enumerate((("slow", 1e-4), ("fast", 1e-3), ("odd", 1e-2))):
        run = add_run(workspace, "sft", name, created=CREATED + number, settings={"lr": lr, "epochs": 2.0})
        append(run.metrics, {"step": 1, "time": CREATED, "train/loss": 0.5 + number})
    async with make_app().run_test(size=(80, 24)) as pilot:
        await open_runs(pilot)
        await pilot.press("t")
        await settled(pilot)
        assert not isinstance(pilot.app.screen, CompareScreen), "one run is nothing to compare"
        await pilot.press("j", "space", "j", "t")
        await wait_for(pilot, lambda: "last values" in screen_text(pilot.app))
        shown = " ".join(screen_text(pilot.app).split("side by side")[1].split("╰")[0].split())
        assert "fast slow" in shown and "lr 0.001 0.0001" in shown and "train/loss 1.5 0.5" in shown
        assert "epochs" not in shown and "odd" not in shown


async def test_runs_without_room_in_the_table_are_counted_and_shown_by_going_right(
    workspace: Workspace, make_app: MakeApp
) -> None:
    found = [add_run(workspace, "sft", f"run-{number}", settings={"lr": 10.0**-number}) for number in range(7)]
    async with make_app().run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.app.push_screen(CompareScreen(found))
        await wait_for(pilot, lambda: "+3 more" in screen_text(pilot.app))
        assert "runs 1-4 of 7" in screen_text(pilot.app)
        await pilot.press("l", "right", "l", "l")
        await settled(pilot)
        shown = screen_text(pilot.app).split("side by side")[1].split("last values")[0]
        assert "runs 4-7 of 7" in screen_text(pilot.app) and "run-6" in shown and "run-2" not in shown
        await pilot.press("h")
        await settled(pilot)
        assert "run-2" in screen_text(pilot.app).split("side by side")[1]


async def test_a_plot_with_nothing_on_it_is_not_saved(workspace: Workspace, make_app: MakeApp) -> None:
    run = add_run(workspace, "build", "notes")
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_run(pilot, run)
        await pilot.press("P")
        await wait_for(pilot, lambda: any("nothing on the plot" in note.message for note in pilot.app._notifications))
        assert not (workspace.root / "plots").exists()


async def test_a_click_on_the_name_of_a_pane_shows_it(populated: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_run(pilot, find(populated, "world-tiny"))
        await settled(pilot)
        row = next(text for text in screen_text(pilot.app).splitlines() if "samples · log" in text)
        y = screen_text(pilot.app).splitlines().index(row)
        for pane in ("log", "settings", "samples"):
            await pilot.click(offset=(row.index(pane) + 1, y))
            await pilot.pause()
            assert pilot.app.screen.query_one(ContentSwitcher).current == pane


async def test_long_lines_of_the_log_go_on_in_the_next_row(workspace: Workspace, make_app: MakeApp) -> None:
    run = add_run(workspace, "build", "notes")
    words = " ".join(f"word-{number}" for number in range(60))
    run.log.write_text(f"{words}\na short one\nends without")
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_run(pilot, run)
        await wait_for(pilot, lambda: "word-59" in screen_text(pilot.app))
        log = pilot.app.screen.query_one(LogTail)
        assert " ".join("".join(row.split()) for row in log.lines).count("word-") == 60
        rows = len(log.lines)
        with run.log.open("a") as more:
            more.write(f" a newline {words}\n")
        await wait_for(pilot, lambda: len(log.lines) > rows)
        assert all(len(row) <= log.scrollable_content_region.width for row in log.lines)
        rows = len(log.lines)
        await pilot.resize_terminal(200, 50)
        await wait_for(pilot, lambda: len(log.lines) < rows)
        assert sum(row.count("word-") for row in log.lines) == 120


async def test_a_reward_model_is_not_asked_to_write(
    populated: Workspace, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = add_run(populated, "reward", "judge", created=CREATED + 90, last_checkpoint="step-10")
    started: list[Any] = []
    monkeypatch.setattr(WorkbenchApp, "start_run", lambda app, stage, values=None: started.append((stage, values)))
    monkeypatch.setattr(WorkbenchApp, "open_chat", lambda app, name: started.append(name))
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        screen.query_one(RunList).select(run.id)
        await settled(pilot)
        bar = screen_text(pilot.app).splitlines()[-1]
        assert "Open" in bar and not any(word in bar for word in ("Chat", "Evaluate", "Sample"))
        await pilot.press("c", "e", "a")
        await settled(pilot)
        assert not started
        told = [note.message for note in pilot.app._notifications]
        assert len([text for text in told if text.startswith("judge is a reward model: it scores")]) == 3


@pytest.mark.parametrize("size", SIZES)
async def test_the_start_form_looks_like_this(
    populated: Workspace, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    async with make_app().run_test(size=size) as pilot:
        await open_runs(pilot)
        await open_form(pilot)
        await settled(pilot)
        await snapshot(pilot, f"start-{size[0]}x{size[1]}")


async def test_f2_lists_the_shapes_that_the_stage_can_train_and_takes_one(
    populated: Workspace, make_app: MakeApp
) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await open_runs(pilot)
        await open_form(pilot)
        await pilot.press("f2")
        await wait_for(pilot, lambda: isinstance(app.screen, Pick))
        await settled(pilot)
        assert "gpt2-small" in screen_text(app) and "bert" not in screen_text(app)
        await pilot.press("down", "enter")
        await wait_for(pilot, lambda: isinstance(app.screen, StartScreen))
        assert app.screen.query_one(SpecForm).rows["preset"].text == "tiny-llama"


async def test_the_form_warns_of_a_text_that_is_seen_too_often(populated: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        pilot.app.start_run("pretrain", {"steps": 20_000})  # type: ignore[attr-defined]  # a WorkbenchApp
        await settled(pilot)
        assert "It sees the text 169 times" in screen_text(pilot.app)
        pilot.app.screen.query_one(SpecForm).rows["steps"].text = "4000"
        await wait_for(pilot, lambda: "33.7 × the text" in screen_text(pilot.app))
        assert "It sees the text" not in screen_text(pilot.app)


MADE: list[tuple[str, dict[str, Any], str]] = [
    ("build", {"dataset": "sea", "records": {"train": 9_000, "val": 12}}, "built the dataset sea: 9,012 records"),
    ("tokenizer", {"vocab_size": 358, "bytes_per_token": 2.5}, "trained a tokenizer of 358 tokens, 2.50 bytes each"),
    ("importing", {"model": "smol", "parameters": 1_000, "dtype": "bfloat16"}, "imported the model smol: 1,000 parame"),
    ("sample", {"prompts": 5, "completions": 20}, "wrote 20 completions to 5 prompts"),
    (
        "sample",
        {"prompts": 5, "completions": 20, "alike": 2},
        "wrote 20 completions to 5 prompts, 2 of them answered alike",
    ),
    ("build", {"records": "damaged"}, "this run logged no curve"),
]


@pytest.mark.parametrize(("stage", "result", "told"), MADE)
async def test_a_run_without_a_curve_says_what_it_made(
    workspace: Workspace, make_app: MakeApp, stage: str, result: dict[str, Any], told: str
) -> None:
    run = add_run(workspace, stage, "made", result=result)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_run(pilot, run)
        await wait_for(pilot, lambda: told in screen_text(pilot.app))


async def test_a_lost_run_is_called_lost_and_r_starts_a_worker_on_it(
    populated: Workspace, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr("workbench.runs.start", lambda run, *, cpu_width: started.append(run.spec().name))
    run = find(populated, "cut-off")
    run.log.write_text("step 699\nKilled\n")
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_run(pilot, run)
        shown = screen_text(pilot.app)
        assert "lost" in shown
        assert "r resumes it" in shown
        assert "Killed" in shown
        await pilot.press("r")
        await wait_for(pilot, lambda: started == ["cut-off"])
        assert screen.run_in_view()


async def test_where_a_live_run_stands_is_told_in_one_line_however_narrow(at_work: RunDir, make_app: MakeApp) -> None:
    figures: dict[str, Any] = {"step": 120_400, "total": 360_000, "rate": 41.2, "eta": 9_790.0, "device": "cpu"}
    at_work.write_state(RunState(status="running", unit="steps", **figures))
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_run(pilot, at_work)
        await wait_for(pilot, lambda: "2:43:10 to go" in screen_text(pilot.app))
        assert screen.query_one("#run-state").size.height == 1
        at_work.write_state(RunState(status="running", unit="steps", **figures | {"eta": None, "rate": None}))
        await wait_for(pilot, lambda: "33%   pretrain · cpu" in screen_text(pilot.app))
        assert screen.query_one("#run-state").size.height == 1


async def test_a_run_is_followed_and_a_rewind_is_shown_right(at_work: RunDir, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_run(pilot, at_work)
        append(at_work.metrics, {"step": 510, "train/loss": 1.2345})
        append(at_work.samples, {"step": 510, "prompt": "A dog ", "text": "barks."})
        with at_work.log.open("a") as log:
            log.write("a line of the log\n")
        at_work.write_state(RunState(status="running", step=510, total=2_000, rate=41.0, eta=36.0))
        await wait_for(pilot, lambda: "1.234" in screen_text(pilot.app))
        await wait_for(pilot, lambda: "A dog barks." in screen_text(pilot.app))
        await wait_for(pilot, lambda: "510/2,000 steps" in screen_text(pilot.app))
        await pilot.press("v")
        await wait_for(pilot, lambda: "a line of the log" in screen_text(pilot.app))
        append(at_work.metrics, {"rewind_to": 250}, {"step": 260, "train/loss": 7.5})
        append(at_work.samples, {"rewind_to": 250})
        await wait_for(pilot, lambda: "7.5" in screen_text(pilot.app))
        watch = screen._watch
        assert watch is not None
        assert max(bucket.last for bucket in watch.curves.buckets("train/loss")) == 260
        await wait_for(pilot, lambda: not watch.samples)


def test_samples_say_why_they_ask_what_they_ask(workspace: Workspace) -> None:
    def about(stage: str, **settings: Any) -> str:
        run = add_run(workspace, stage, "one", settings=settings)
        return about_samples(Entry(run, run.spec(), run.state(), run.status()))

    assert about("sft", probes=True).startswith("The twenty probe prompts")
    assert about("dpo", probes=True, sample_prompts=["Hello"]).startswith("What you ask and the twenty probe prompts")
    assert about("sft", probes=False) == about("pretrain") == about("evaluate", probes=True) == ""


async def test_a_sample_in_which_nothing_is_to_be_seen_says_so(at_work: RunDir, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_run(pilot, at_work)
        append(at_work.samples, {"step": 510, "prompt": "Say nothing.", "text": ""})
        append(at_work.samples, {"step": 510, "prompt": "Say little.", "text": " \n"})
        append(at_work.samples, {"step": 510, "kind": "fixed", "prompt": "Are you there?", "text": "Yes."})
        await wait_for(pilot, lambda: "Say nothing.  (nothing)" in screen_text(pilot.app))
        await wait_for(pilot, lambda: "Say little.  (blanks only)" in screen_text(pilot.app))
        await wait_for(pilot, lambda: "Are you there?" in screen_text(pilot.app))
        assert "Are you there?Yes." not in screen_text(pilot.app)


async def test_metrics_log_axis_and_smoothing_follow_their_keys(populated: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_run(pilot, find(populated, "world-tiny"))
        assert screen.group is not None
        assert screen.group.title == "loss"
        await pilot.press("right_square_bracket")
        assert screen.group.title == "bits_per_byte"
        await pilot.press("left_square_bracket", "left_square_bracket")
        assert screen.group.title == "tokens_per_s"
        await pilot.press("right_square_bracket", "y", "plus", "plus")
        await pilot.pause()
        assert "log · smoothed 0.9" in screen_text(pilot.app)
        await pilot.press("y", "minus", "minus", "minus")
        await pilot.pause()
        assert "smoothed" not in screen_text(pilot.app)


async def test_controls_reach_the_worker(at_work: RunDir, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_run(pilot, at_work)
        await pilot.press("p")
        await wait_for(pilot, lambda: requests(at_work) == ["pause.json"])
        await pilot.press("w")
        await wait_for(pilot, lambda: "checkpoint.json" in requests(at_work))
        await pilot.press("s")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, Question))
        await pilot.press("n")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        assert "stop.json" not in requests(at_work)
        await pilot.press("s")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, Question))
        await pilot.press("y")
        await wait_for(pilot, lambda: "stop.json" in requests(at_work))


async def test_a_learning_rate_is_asked_for_checked_and_sent(at_work: RunDir, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_run(pilot, at_work)
        await pilot.press("l")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, Ask))
        await pilot.press(*"7", "enter")
        await pilot.pause()
        assert isinstance(pilot.app.screen, Ask)
        assert "to 1" in str(pilot.app.screen.query_one("#answer", Static).visual)
        await pilot.press("backspace", *"3e-4", "enter")
        await wait_for(pilot, lambda: "set.json" in requests(at_work))
        sent = next(at_work.control.glob("*-set.json"))
        assert msgspec.json.decode(sent.read_bytes()) == {"lr": 3e-4}


async def test_the_list_stands_on_the_run_that_was_looked_at(populated: Workspace, make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        runs = screen.query_one(RunList)
        other = screen._entries[2]
        assert runs.entry != other
        app.open_run(other.run)
        await wait_for(pilot, lambda: isinstance(app.screen, RunScreen))
        await pilot.press("escape")
        await wait_for(pilot, lambda: app.screen is screen)
        assert runs.entry is not None and runs.entry.run.id == other.run.id


async def test_deleting_asks_first_and_then_the_run_is_gone(populated: Workspace, make_app: MakeApp) -> None:
    run = find(populated, "too-hot")
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        screen.query_one(RunList).select(run.id)
        await pilot.press("d")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, Question))
        assert run.path.exists()
        await pilot.press("y")
        await wait_for(pilot, lambda: not run.path.exists())
        await wait_for(pilot, lambda: "too-hot" not in screen_text(pilot.app).split("Deleted")[0])


async def test_only_keys_that_can_act_are_named(populated: Workspace, make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        screen = await open_runs(pilot)
        screen.query_one(RunList).select(find(populated, "cut-off").id)
        await settled(pilot)
        bar = screen_text(app).rstrip("\n").split("\n")[-1]
        assert "r Resume" in bar and "p Pause" not in bar and "s Stop" not in bar
        await pilot.press("s")
        await wait_for(pilot, lambda: "nothing to stop" in screen_text(app))


async def test_a_run_at_work_is_not_deleted(at_work: RunDir, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40), notifications=True) as pilot:
        screen = await open_runs(pilot)
        screen.query_one(RunList).select(at_work.id)
        await pilot.press("d")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, Question))
        await pilot.press("y")
        await wait_for(pilot, lambda: "Stop it first." in screen_text(pilot.app))
        assert at_work.path.exists()


async def test_the_cursor_stays_on_its_run_when_others_come(populated: Workspace, make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_runs(pilot)
        await pilot.press("j")
        runs = screen.query_one(RunList)
        assert runs.entry is not None
        held = runs.entry.spec.name
        add_run(populated, "pretrain", "newcomer", created=CREATED + 500)
        await wait_for(pilot, lambda: "newcomer" in screen_text(pilot.app))
        assert runs.entry.spec.name == held
        await pilot.press("g")
        assert runs.entry.spec.name == "newcomer"
        await pilot.press("G", "enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunScreen))


async def test_a_step_of_the_cursor_repaints_two_lines(
    populated: Workspace, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        runs = (await open_runs(pilot)).query_one(RunList)
        await pilot.press("j")
        await settled(pilot)
        painted: list[int] = []
        render = runs.render_line

        def noted(y: int) -> Strip:
            painted.append(y)
            return render(y)

        monkeypatch.setattr(runs, "render_line", noted)
        await pilot.press("j")
        await settled(pilot)
        assert painted == [1, 2]


async def test_the_form_shows_cost_keeps_mistakes_and_launches(
    populated: Workspace, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: dict[str, object] = {}

    def launch(workspace: Workspace, stage: str, name: str, settings: dict[str, object], **extra: object) -> RunDir:
        launched.update(stage=stage, name=name, settings=settings, **extra)
        return find(populated, "world-tiny")

    monkeypatch.setattr("workbench.runs.launch", launch)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_runs(pilot)
        await open_form(pilot)
        await settled(pilot)
        form = pilot.app.screen.query_one(SpecForm)
        assert (form.rows["name"].text, form.rows["dataset"].text, form.rows["tokenizer"].text) == (
            "world-tiny-2",
            "world",
            "world-bpe",
        )
        form.rows["preset"].text = "gpt2-small"
        await wait_for(pilot, lambda: "GB" in str(pilot.app.screen.query_one("#cost", Static).visual))
        form.rows["name"].text = "too-hot"
        form.rows["preset"].text = "tiny"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: "There is already a run" in screen_text(pilot.app))
        form.rows["name"].text = "mine"
        form.rows["width"].text = "100"
        form.rows["heads"].text = "3"
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: "cannot be built" in screen_text(pilot.app))
        assert not launched
        form.rows["width"].text = ""
        form.rows["heads"].text = ""
        await pilot.press("ctrl+r")
        await wait_for(pilot, lambda: launched)
        assert (launched["stage"], launched["name"]) == ("pretrain", "mine")
        assert (launched["dataset"], launched["tokenizer"]) == ("world", "world-bpe")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunScreen))


async def test_a_tick_repaints_only_what_changed(
    at_work: RunDir, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await open_run(pilot, at_work)
        plot = screen.query_one(LossPlot)
        painted: list[int] = []
        refresh = plot.refresh

        def noted(*regions: Region) -> object:
            painted.append(sum(region.area for region in regions))
            return refresh(*regions)

        monkeypatch.setattr(plot, "refresh", noted)
        screen.plot_changed()
        await settled(pilot)
        assert not painted
        append(at_work.metrics, {"step": 505, "train/loss": 1.7})
        await wait_for(pilot, lambda: painted)
        assert 0 < painted[0] < plot.size.area // 4


@pytest.mark.parametrize("size", [(40, 12), (59, 15), (60, 16), (300, 100)])
async def test_no_size_of_window_breaks_the_screens(at_work: RunDir, make_app: MakeApp, size: tuple[int, int]) -> None:
    async with make_app().run_test(size=size) as pilot:
        await open_runs(pilot)
        await pilot.press("n")
        await pilot.pause()
        await pilot.press("escape")
        screen = await open_run(pilot, at_work)
        for theme in ("light", "dark"):
            pilot.app.theme = theme
            await pilot.pause()
        assert screen.run_in_view()


async def test_an_error_with_control_characters_cannot_reach_the_terminal(
    workspace: Workspace, make_app: MakeApp
) -> None:
    error = RunError("WorkFailed", "bad\x1b[31m [red]file[/]", "hint \x9b2J")
    run = add_run(workspace, "pretrain", "hostile", "failed", error=error)
    append(run.metrics, {"step": 1, "ev\x1b]52;il": 1.0, "[@click=app.quit]x[/]": 2.0})
    append(run.samples, {"step": 1, "prompt": "\x1b[2J", "text": "[bold]\x07 ok"})
    run.log.write_bytes(b"log \x1b[2J [/nope]\n")
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_run(pilot, run)
        for _ in range(3):
            shown = screen_text(pilot.app)
            assert not any((ord(char) < 32 and char != "\n") or 0x7F <= ord(char) < 0xA0 for char in shown)
            await pilot.press("v", "right_square_bracket")
            await settled(pilot)
        assert "[red]file[/]" in shown
