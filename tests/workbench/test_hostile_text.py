"""Hostile text through every screen that shows foreign text: nothing of it reaches the terminal as anything but text.

A place is a line of PLACES: `prepare` puts the payloads where they come from, `visit` goes where they show. All that
the app would write to its terminal meanwhile is kept and searched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from textual._compositor import CompositorUpdate
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import OptionList, Static

import workbench.app
from stages.store.bin import throw
from stages.store.chat import Done
from stages.store.checks import Check, Example, Finding
from stages.store.datasets import Filter, Problem, Source
from stages.store.errors import UserError
from stages.store.evaluations import Answer, Row
from stages.store.labels import Candidate, open_labels
from stages.store.labels import Prompt as LabelPrompt
from stages.store.notes import Notes, write_notes
from stages.store.records import Message
from stages.store.rundir import Parent, RunDir, RunError, RunSpec, RunState
from stages.store.specs import STAGES, TRAINING
from stages.store.statistics import share
from stages.store.strict import fields
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, add_checkpoint, add_dataset, add_run, add_tokenizer, settled, wait_for
from tests.workbench.evaluations import add_evaluation, answered
from tests.workbench.payloads import in_file_name, in_json, payloads
from workbench import chat_client
from workbench.app import WorkbenchApp
from workbench.desk_client import DeskClient
from workbench.judging.duel import Duel, Round
from workbench.judging.on_the_spot import Answer as ChatAnswer
from workbench.records.look_report import look_report
from workbench.screens.build import BuildScreen
from workbench.screens.chat import ChatScreen
from workbench.screens.check import CheckScreen, ExamplesScreen, Scrolling
from workbench.screens.checkpoints import CheckpointScreen
from workbench.screens.data import Report
from workbench.screens.duel import DuelScreen
from workbench.screens.elo import EloScreen, Table
from workbench.screens.home import HomeScreen
from workbench.screens.judge import JudgeScreen
from workbench.screens.machine import MachineScreen
from workbench.screens.mask import MaskScreen, painted
from workbench.screens.question import Ask, Question
from workbench.screens.rank import RankScreen
from workbench.screens.rank_answers import RankAnswersScreen, Ranked
from workbench.screens.record import RecordScreen
from workbench.screens.record_form import RecordForm
from workbench.screens.records import RecordsScreen
from workbench.screens.tokens import TokensScreen
from workbench.settings import Settings
from workbench.widgets.filter_field import FilterField
from workbench.widgets.log_tail import LogTail
from workbench.widgets.picklist import PickList
from workbench.widgets.prompt import Prompt
from workbench.widgets.record_view import RecordView
from workbench.widgets.run_list import RunList
from workbench.widgets.text_field import TextField
from workbench.widgets.token_strip import TokenStrip
from workbench.widgets.transcript import Transcript

PAYLOADS = payloads()
READABLE = [payload for payload in PAYLOADS if in_json(payload)]
SHORT = [text for text in PAYLOADS if len(text) < 150]
NAMES = sorted({name for payload in PAYLOADS if (name := in_file_name(payload))})

OWN_SEQUENCE = re.compile(
    r"\x1b\[(?!(?:[0-9;]*;)?53[;m])[0-9;]*m|\x1b\[(?!1337)\d{1,4};\d{1,3}H|\x1b\]22;[a-z]*\x07|\x1b\]52;c;[\w+/=]*\x07"
)
"""What the app itself sends: styles other than 53, the cursor to a place, the pointer's shape, the clipboard."""
ACTS = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)
"""Characters that act on a terminal or hide in it. A newline is the app's own: it ends a row."""
MARKER = re.compile(r"p\d{3}")


class WatchedApp(WorkbenchApp):
    """The app, keeping what it would write to its terminal."""

    CSS_PATH = Path(workbench.app.__file__).with_name("app.tcss")

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(Settings(), workspace)
        self.acting: list[str] = []
        self.seen: set[str] = set()
        self.frames = 0

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        if isinstance(renderable, CompositorUpdate):
            self.keep(renderable.render_segments(self.console))
        super()._display(screen, renderable)

    def watch_driver(self) -> None:
        """Keep also what goes to the terminal past the compositor: the clipboard, titles, bells."""
        assert self._driver is not None
        self._driver.write = self.keep

    def keep(self, written: str) -> None:
        self.frames += 1
        text = OWN_SEQUENCE.sub("", written)
        self.seen.update(MARKER.findall(text))
        if found := ACTS.search(text):
            self.acting.append(ascii(text[max(0, found.start() - 40) : found.end() + 40]))


class Place(NamedTuple):
    """Somewhere that foreign text shows."""

    name: str
    prepare: Callable[[Workspace], object]
    visit: Callable[[Pilot[Any]], Awaitable[object]]
    expected: Sequence[str] = READABLE
    """Payloads whose marker must have been on the screen."""
    size: tuple[int, int] = (160, 100)


def nothing(workspace: Workspace) -> None:
    pass


def chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def on_screen(pilot: Pilot[Any], items: Sequence[str]) -> Callable[[], bool]:
    """Whether the markers of `items` have been shown."""
    wanted = {item[:4] for item in items}
    return lambda: wanted <= pilot.app.seen


async def page_through(pilot: Pilot[Any], kind: type[Widget]) -> None:
    """Show all that a scrolling widget has, a page at a time."""
    widget = pilot.app.screen.query_one(kind)
    for y in range(0, widget.virtual_size.height, max(1, widget.size.height - 4)):
        widget.scroll_to(y=y, animate=False)
        await pilot.pause()


async def visit_home(pilot: Pilot[Any]) -> None:
    """Recent runs, the lineage, a failed step: 20 runs at a time, since Home shows so many."""
    app, screen = pilot.app, pilot.app.screen
    assert isinstance(app, WatchedApp) and isinstance(screen, HomeScreen)
    for chunk in chunks(READABLE, 20):
        for folder in (app.workspace.runs, app.workspace.datasets, app.workspace.tokenizers):
            shutil.rmtree(folder)
            folder.mkdir()
        name, other = in_file_name(chunk[0]), in_file_name(chunk[1])
        add_dataset(app.workspace, name)
        add_tokenizer(app.workspace, other, dataset=name)
        parents = {"dataset": Parent(name, "d1" * 32), "tokenizer": Parent(other, "70" * 32)}
        for number, text in enumerate(chunk):
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
    for chunk in chunks(SHORT, 130):
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
    for stage in cycle((*TRAINING, "build", "tokenizer", "evaluate", "in_context", "sample")):
        names = [field.name for field in fields(STAGES[stage]) if field.kind not in ("choice", "bool")]
        left = [text for text in PAYLOADS[::8] if text[:4] not in pilot.app.seen][: len(names)]
        if not left:
            break
        pilot.app.start_run(stage, dict(zip(names, left, strict=False)) | {"name": left[0], "dataset": left[0]})
        await wait_for(pilot, on_screen(pilot, left))
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


def prepare_judging(workspace: Workspace) -> None:
    """Prompts and candidates that are payloads: nine of them beside each other."""
    tasks = []
    for number, chunk in enumerate(chunks(READABLE, 10)):
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
    for number, chunk in enumerate(chunks(READABLE, 10)):
        await wait_for(pilot, on_screen(pilot, chunk))
        if number % 8 == 0:
            await pilot.press("m")
            await settled(pilot)
            await pilot.press("m")
        await pilot.press("x")


async def visit_answers(pilot: Pilot[Any]) -> None:
    """Answers to a turn of a chat, and what is said of them once they are ranked."""
    for chunk in chunks(READABLE[::3], 10):
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
        screen.duel, screen.dataset = duel, chunk[0]
        screen._describe()
        screen._show_saved()
        prompt = LabelPrompt(messages=[Message("user", chunk[len(chunk) // 2])], part="eval")
        screen.dataset = ""
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
    answers = [Answer(prompt=text, text=text, wanted=text, right=False) for text in READABLE[::3]]
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


PLACES = [
    Place("home", nothing, visit_home),
    Place("data", prepare_data, visit_data, READABLE[:351], size=(160, 300)),
    Place("runs", prepare_runs, visit_runs),
    Place("marked runs", prepare_marked, visit_marked, [*READABLE[::40], *READABLE[1::60]]),
    Place("run", prepare_run, visit_run),
    Place("evaluation", prepare_evaluation, visit_evaluation, [*READABLE[:33], *READABLE[::3]], size=(200, 100)),
    Place("chat", nothing, visit_chat, PAYLOADS),
    Place("checkpoints", prepare_checkpoints, visit_checkpoints),
    Place("toasts", nothing, visit_toasts, PAYLOADS, size=(160, 300)),
    Place("mask", nothing, visit_mask, READABLE[::7], size=(160, 300)),
    Place("check", nothing, visit_check, SHORT[::8], size=(160, 300)),
    Place("tokens", nothing, visit_tokens, READABLE[::7], size=(160, 120)),
    Place("questions", nothing, visit_questions, SHORT, size=(160, 300)),
    Place("look", nothing, visit_look, SHORT, size=(160, 100)),
    Place("judging", prepare_judging, visit_judging, READABLE, size=(200, 60)),
    Place("records", prepare_records, visit_records),
    Place("answers", nothing, visit_answers, READABLE[::3], size=(200, 60)),
    Place("duel", nothing, visit_duel, READABLE[::9], size=(160, 60)),
    Place("sample form", nothing, visit_sample_form, SHORT[::16], size=(160, 60)),
    Place("bin, lineage, machine", prepare_elsewhere, visit_elsewhere, ELSEWHERE, size=(160, 100)),
    Place("forms", prepare_forms, visit_forms, PAYLOADS[::8], size=(200, 120)),
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
