"""Hostile text at home, in data, runs, chat, forms, the bin, the lineage and the machine."""

from __future__ import annotations

import json
import shutil
from itertools import cycle, islice
from typing import Any

import msgspec
from textual.pilot import Pilot
from textual.widgets import OptionList

from stages.store.bin import throw
from stages.store.datasets import Filter, Problem, Source
from stages.store.errors import UserError
from stages.store.notes import Notes, write_notes
from stages.store.rundir import Parent, RunDir, RunError, RunSpec, RunState
from stages.store.specs import STAGES
from stages.store.strict import fields
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, add_checkpoint, add_dataset, add_run, add_tokenizer, settled, wait_for
from tests.workbench.hostile import (
    NAMES,
    PAYLOADS,
    READABLE,
    SHORT,
    WatchedApp,
    chunks,
    on_screen,
    page_through,
)
from tests.workbench.payloads import in_file_name
from workbench.records.look_report import look_report
from workbench.screens.build import BuildScreen
from workbench.screens.chat import ChatScreen
from workbench.screens.checkpoints import CheckpointScreen
from workbench.screens.data import Report
from workbench.screens.home import HomeScreen
from workbench.screens.machine import MachineScreen
from workbench.screens.question import Ask, Question
from workbench.widgets.filter_field import FilterField
from workbench.widgets.log_tail import LogTail
from workbench.widgets.prompt import Prompt
from workbench.widgets.run_list import RunList
from workbench.widgets.transcript import Transcript


async def visit_home(pilot: Pilot[Any]) -> None:
    """Recent runs, the lineage, a failed step: 20 runs at a time, since Home shows so many."""
    app, screen = pilot.app, pilot.app.screen
    assert isinstance(app, WatchedApp) and isinstance(screen, HomeScreen)
    for page, chunk in enumerate(chunks(READABLE, 20)):
        for folder in (app.workspace.runs, app.workspace.datasets, app.workspace.tokenizers):
            shutil.rmtree(folder)
            folder.mkdir()
        name, other = in_file_name(chunk[0]), in_file_name(chunk[1])
        add_dataset(app.workspace, name)
        add_tokenizer(app.workspace, other, dataset=name)
        parents = {"dataset": Parent(name, "d1" * 32), "tokenizer": Parent(other, "70" * 32)}
        for number, text in enumerate(chunk, 20 * page):  # never the second of an earlier one, whose id might return
            error = RunError("Error", text, text)
            add_run(app.workspace, "pretrain", text, "failed", created=CREATED + number, parents=parents, error=error)
        screen.look()
        await wait_for(pilot, on_screen(pilot, chunk))


def prepare_data(workspace: Workspace) -> None:
    """A dataset whose report quotes everything, names on disk, tokenizers that say where they come from."""
    add_dataset(workspace, "all", filters=[Filter(text, text, 1, 1, [text, text]) for text in READABLE[:200]])
    path = workspace.datasets / "all" / "dataset.json"
    info = json.loads(path.read_bytes())
    info["problems"] = [msgspec.to_builtins(Problem(text, 1, text, text)) for text in READABLE[200:300]]
    info["problem_count"] = 1_000
    info["sources"] = [msgspec.to_builtins(Source(text, 1, text)) for text in READABLE[300:350]]
    info["split"] = info["digest"] = READABLE[350]
    path.write_text(json.dumps(info))
    for name in NAMES[::5]:
        add_dataset(workspace, name, digest=name)
        add_tokenizer(workspace, name, dataset=name, type=name, special={name: 1})


async def visit_data(pilot: Pilot[Any]) -> None:
    app = pilot.app
    await pilot.press("D")
    await settled(pilot)
    await wait_for(pilot, on_screen(pilot, NAMES[::5]))
    app.screen.choose("dataset", "all")
    await wait_for(pilot, on_screen(pilot, READABLE[:20]))
    await page_through(pilot, Report)
    for name in NAMES[::50]:
        app.screen.choose("tokenizer", name)
        await settled(pilot)


def prepare_runs(workspace: Workspace) -> None:
    for number, text in enumerate(READABLE):
        error = RunError(text, text, text)
        run = add_run(workspace, "pretrain", text, "failed", created=CREATED + number, error=error)
        run.write_state(
            RunState(status=("failed", "running")[number % 2], phase=text, unit=text, device=text, error=error)
        )


async def visit_runs(pilot: Pilot[Any]) -> None:
    await pilot.press("R")
    await wait_for(pilot, on_screen(pilot, READABLE[-20:]))
    await page_through(pilot, RunList)
    for _ in range(12):
        await pilot.press("j")


def prepare_marked(workspace: Workspace) -> None:
    """Runs with curves whose metrics are foreign as well as their names."""
    for number, text in enumerate(READABLE[::40]):
        run = add_run(workspace, "pretrain", text, created=CREATED + number)
        rows = [{"step": step, "train/loss": 1.0, text: float(step), READABLE[0]: 2.0} for step in range(3)]
        run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


async def visit_marked(pilot: Pilot[Any]) -> None:
    """Marked runs and their legend, full and overfull, every metric, and a filter that nothing passes."""
    await pilot.press("R")
    await wait_for(pilot, on_screen(pilot, READABLE[::40]))
    for _ in range(8):
        await pilot.press("space", "j")
        await settled(pilot)
    for _ in range(9):
        await pilot.press("right_square_bracket")
        await settled(pilot)
    await pilot.press("slash")
    field = pilot.app.screen.query_one(FilterField)
    for text in READABLE[1::60]:
        field.clear()
        field.insert_text_at_cursor(f"no such {text}")
        await wait_for(pilot, on_screen(pilot, [text]))


def prepare_run(workspace: Workspace) -> None:
    """One run that says everything: name, log, samples, metrics, settings, parents, error."""
    half = READABLE[::2]
    run = add_run(workspace, "pretrain", READABLE[26])
    spec = RunSpec(
        stage="pretrain",
        name=READABLE[26],
        settings={text: text for text in half},
        parents={text: Parent(text, text) for text in half[:50]},
        versions={text: text for text in half[:50]},
        host=half[26],
        created=CREATED,
    )
    (run.path / "spec.json").write_bytes(msgspec.json.encode(spec))
    error = RunError(*half[27:30])
    run.write_state(
        RunState(status="failed", phase=half[30], device=half[31], error=error, result={half[32]: half[33]})
    )
    run.log.write_bytes("\n".join(PAYLOADS).encode("utf-8", "surrogatepass") + b"\n\xff\xfe\xc3(\n")
    rows = [{"step": number, "prompt": text, "text": text} for number, text in enumerate(PAYLOADS[-30:])]
    run.samples.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"step": PAYLOADS[27], "prompt": 1}]))
    metrics = [{"step": number, "train/loss": 1.0, **dict.fromkeys(READABLE[:40], 1.0)} for number in range(3)]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in metrics))
    run.events.write_text("".join(json.dumps({"event": text, "message": text}) + "\n" for text in READABLE))


async def visit_run(pilot: Pilot[Any]) -> None:
    app = pilot.app
    assert isinstance(app, WatchedApp)
    (run,) = [RunDir(path) for path in app.workspace.runs.iterdir()]
    app.open_run(run)
    await wait_for(pilot, on_screen(pilot, READABLE[-20:]))
    await page_through(pilot, LogTail)
    for _ in range(3):
        await pilot.press("v")
        await settled(pilot)
    for key in ["tab", "right_square_bracket", "right_square_bracket", "y"]:
        await pilot.press(key)
    await settled(pilot)


async def visit_chat(pilot: Pilot[Any]) -> None:
    """A prompt of all payloads and its completion, errors that quote them, and the field itself."""
    app = pilot.app
    app.open_chat("talker")
    await wait_for(pilot, lambda: isinstance(app.screen, ChatScreen) and app.screen._client.alive)
    prompt, transcript = app.screen.query_one(Prompt), app.screen.query_one(Transcript)
    prompt.insert("\n".join(READABLE))
    await pilot.press("enter")
    await wait_for(pilot, lambda: "tokens/s" in transcript.plain)
    for text in PAYLOADS:
        transcript.write(f"{text}\n", "error")
    await page_through(pilot, Transcript)
    for chunk in chunks(PAYLOADS, 6):
        prompt.load_text("\n".join(chunk))
        app.screen._show_model(chunk[0])
        await pilot.pause()


def prepare_checkpoints(workspace: Workspace) -> None:
    for number, text in enumerate(READABLE):
        run = add_run(workspace, "pretrain", text, created=CREATED + number)
        add_checkpoint(run, number)
    for name in NAMES[:50]:
        (workspace.models / name).mkdir()
        (workspace.models / name / "config.json").touch()


async def visit_checkpoints(pilot: Pilot[Any]) -> None:
    await pilot.press("C")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, CheckpointScreen))
    await settled(pilot)
    await page_through(pilot, OptionList)


async def visit_toasts(pilot: Pilot[Any]) -> None:
    app = pilot.app
    for chunk in chunks([text[:60] for text in PAYLOADS], 50):
        for some in chunks(chunk, 5):
            app.notify("\n".join(some), title="\n".join(some), timeout=60)
        app.show_error(UserError(chunk[0], chunk[1]))
        await wait_for(pilot, on_screen(pilot, chunk))
        app.clear_notifications()
        await pilot.pause()


def refuse(text: str) -> None:
    raise UserError(f"{text} will not do.", text)


async def visit_questions(pilot: Pilot[Any]) -> None:
    """The small dialogs: yes or no, one line, and what is said about a wrong line."""
    for chunk in chunks(SHORT[::3], 130):
        first, second, everything = "\n".join(chunk[:65]), "\n".join(chunk[65:]), "\n".join(chunk)
        for dialog in (Question(first, second, yes=chunk[0]), Ask(first, second, everything, refuse)):
            pilot.app.seen -= {text[:4] for text in chunk}
            await pilot.app.push_screen(dialog)
            await wait_for(pilot, on_screen(pilot, chunk))
            await pilot.press("tab", "enter", "escape")
            await settled(pilot)


def prepare_forms(workspace: Workspace) -> None:
    for name in NAMES[:60]:
        add_dataset(workspace, name)
        add_tokenizer(workspace, name)


async def visit_forms(pilot: Pilot[Any]) -> None:
    """Forms, every field filled with another payload, and the mistakes that quote them."""
    texts = cycle(PAYLOADS[::8])
    for stage in ("pretrain", "sft", "tokenizer"):
        names = [field.name for field in fields(STAGES[stage]) if field.kind not in ("choice", "bool")]
        filled = list(islice(texts, len(names)))
        given = dict(zip(names, filled, strict=True)) | {"name": filled[0], "dataset": filled[0]}
        pilot.app.start_run(stage, given)
        await wait_for(pilot, on_screen(pilot, filled[:1]))
        await settled(pilot)
        await pilot.press("enter")
        await settled(pilot)
        await pilot.press("escape")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, HomeScreen))


async def visit_look(pilot: Pilot[Any]) -> None:
    """What sources hold, beside the form that builds them: every text of it a payload."""
    pilot.app.start_run("build", {"sources": []})
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, BuildScreen))
    await settled(pilot)
    for chunk in chunks(SHORT, 12):
        one, two, *rest = [*chunk, *chunk, "last"]
        record = {"messages": [{"role": one, "content": two}], "source": "", "meta": {}}
        group = {"shape": one, "form": "json", "certainty": 0.5, "used": rest[:5], "meta": rest[5:], "count": 1}
        skipped = {"name": two, "sentence": one, "removed": 1}
        problem = {"file": one, "line": 1, "field": two, "message": rest[0]}
        seen = {"kind": "chat", "files": 1, "groups": [{**group, "files": [one]}], "records": [record]}
        pilot.app.screen._show(look_report({**seen, "left_out": [skipped], "problems": [problem]}))
        await wait_for(pilot, on_screen(pilot, chunk))


ELSEWHERE = READABLE[::12]


def prepare_elsewhere(workspace: Workspace) -> None:
    """Runs with foreign names and notes; half of them deleted, one at work."""
    for number, text in enumerate(ELSEWHERE):
        run = add_run(workspace, "pretrain", text, created=CREATED + number, parents={text: Parent(text, text)})
        write_notes(run, Notes(note=text, bookmarked=True))
        if number % 2:
            throw(workspace, run.path)
    busy = add_run(workspace, "pretrain", ELSEWHERE[0], "queued", created=CREATED + 9_000, phase=ELSEWHERE[0])
    busy.write_state(
        RunState(status="queued", phase=ELSEWHERE[0], device=ELSEWHERE[0], host="elsewhere", heartbeat=2**33)
    )


async def visit_elsewhere(pilot: Pilot[Any]) -> None:
    """Notes below the list of runs, the bin, the lineage with a filter that nothing passes, the machine."""
    app = pilot.app
    await pilot.press("R")
    await settled(pilot)
    for _ in range(3):
        await pilot.press("j")
        await settled(pilot)
    await pilot.press("B")
    await wait_for(pilot, on_screen(pilot, ELSEWHERE[1::2][-12:]))
    for _ in ELSEWHERE[1::2]:
        await pilot.press("j")
        await pilot.pause()
    await pilot.press("escape", "L")
    await wait_for(pilot, on_screen(pilot, ELSEWHERE[::2]))
    await pilot.press("slash")
    app.screen.query_one(FilterField).insert_text_at_cursor(f"no such {ELSEWHERE[0]}")
    await settled(pilot)
    await pilot.press("escape", "escape", "M")
    await wait_for(pilot, lambda: isinstance(app.screen, MachineScreen) and app.screen._holders)
    await settled(pilot)
