"""An engineer tunes a model on conversations of their own over a slow line: how long keys take, and what they send."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.ui import append_rows, make_runs, percentile
from stages.store.rundir import find_run
from stages.store.workspace import Workspace
from tests.e2e.slow_line import RATE, SlowLine
from tests.e2e.terminal import environment, workbench
from tests.workbench.conftest import add_dataset

LATENCY = 0.150
"""Seconds from a key until its answer is seen, for nineteen keys of twenty: all of it, or a screen's beginning."""
KEY_BYTES = 4_000
"""Bytes that nineteen keys of twenty within a screen may send: what the line carries in 200 ms."""
BEGUN = 100
"""Cells that are different when another screen has begun to appear."""
SCREEN_BYTES = 16_000
"""Bytes that a key may send that leads to another screen, or draws another plot."""
SMALL = """
[build]
deduplicate = false
[tokenizer]
vocab_size = 320
[pretrain]
layers = 1
heads = 2
width = 32
context = 64
batch_size = 8
steps = 30
eval_every = 30
checkpoint_every = 30
sample_every = 30
sample_tokens = 8
[sft]
steps = 100_000
batch_size = 4
eval_every = 1000
checkpoint_every = 200
sample_every = 1000
"""


class Press(NamedTuple):
    """One key: where it was pressed, what it took, what was sent until all was at rest, whether it led elsewhere."""

    where: str
    key: str
    begun: float
    """Seconds until the answer could be seen: all of it, or the beginning of the screen that the key leads to."""
    named: float
    """Seconds until the screen that the key leads to was named."""
    seconds: float
    """Seconds until all of the answer was there."""
    sent: int
    leads: bool


class Engineer:
    """Presses keys, looks at the picture that has arrived, and goes on when the answer is there."""

    def __init__(self, line: SlowLine, *, rest: bool) -> None:
        self.line, self._rest = line, rest
        self.presses: list[Press] = []
        self.where = "Home"

    def press(self, key: str, *texts: str) -> None:
        """A key whose answer is that the picture shows `texts`."""
        self._press(key, lambda: self.line.shows(*texts))

    def change(self, key: str) -> None:
        """A key whose answer is another picture."""
        before = self.line.picture.changes
        self._press(key, lambda: self.line.picture.changes > before)

    def type(self, text: str) -> None:
        """Write into the field in focus, in the place of what is selected."""
        for end in range(1, len(text) + 1):
            self.press(text[end - 1], text[:end])

    def think(self) -> None:
        if self._rest:
            self.line.rest()
        else:
            self.line.run(0.3)

    def to(self, where: str, key: str, *texts: str) -> None:
        """Go to another screen, which is there by the first of `texts`, and complete when it shows them all."""
        self.where = where
        assert not self.line.shows(texts[0]), f"{texts[0]!r} is shown already: {self.line.picture.text()}"
        self._press(key, lambda: self.line.shows(*texts), lambda: self.line.shows(texts[0]))

    def _press(self, key: str, answered: Callable[[], bool], leads: Callable[[], bool] | None = None) -> None:
        picture, before, pressed = self.line.picture, self.line.arrived, time.perf_counter()
        begun = picture.changes + BEGUN
        times = [self.line.key(key, (lambda: picture.changes >= begun) if leads else answered)]
        times += [self.line.until(what) - pressed for what in ((leads, answered) if leads else ())]
        self.think()
        sent = self.line.arrived - before
        self.presses.append(Press(self.where, key, times[0], max(times[:2]), max(times), sent, leads is not None))


@pytest.fixture
def lines() -> Iterator[list[SlowLine]]:
    opened: list[SlowLine] = []
    yield opened
    for line in opened:
        line.close()


def started(folder: Path, lines: list[SlowLine], rate: int = RATE, *, compressed: bool = False) -> SlowLine:
    surroundings = {**os.environ, **environment(folder), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    line = SlowLine(workbench(), surroundings, folder, rate, compressed=compressed)
    lines.append(line)
    line.until(lambda: line.shows("The model's life"))
    line.rest()
    return line


def in_ms(seconds: list[float], share: float) -> str:
    return f"{percentile(seconds, share) * 1e3:.0f} ms"


def report(presses: list[Press]) -> str:
    """A row a screen: the keys within it, the time and the bytes that nineteen of twenty stay below; the way there."""
    rows = []
    for where in dict.fromkeys(press.where for press in presses):
        keys = [press for press in presses if press.where == where and not press.leads]
        ways = [press for press in presses if press.where == where and press.leads]
        slow = in_ms([press.seconds for press in keys], 0.95) if keys else "-"
        sent = f"{percentile([float(press.sent) for press in keys], 0.95):6,.0f} B" if keys else "-"
        there = ", ".join(
            f"{way.begun * 1e3:,.0f}, {way.named * 1e3:,.0f}, {way.seconds * 1e3:,.0f} ms, {way.sent:,} B to it"
            for way in ways
        )
        rows.append(f"{where:8} {len(keys):4} keys  p95 {slow:>8}  p95 {sent:>8}  {there}")
    return "\n".join(rows)


def test_keys_send_few_bytes(tmp_path: Path, lines: list[SlowLine]) -> None:
    names = [f"run-{number}-of-eight" for number in range(8)]
    workspace, runs = make_runs(tmp_path, names)
    for run in runs:
        append_rows(run, 1, 500)
    for name in ("talks", "world", "letters"):
        add_dataset(workspace, name)
    workspace.root.rename(tmp_path / "home")
    engineer = Engineer(started(tmp_path, lines, rate=10**9), rest=True)
    for key in ("l", "l", "h", "h"):
        engineer.change(key)
    engineer.to("Data", "D", "Datasets")
    for key in ("j", "j", "k", "k"):
        engineer.change(key)
    engineer.to("form", "n", "Build a dataset")
    engineer.type("talks")
    engineer.change("\t")
    engineer.type("talks.jsonl")
    for key in ("\x1b[B", "\x1b[B", "\x1b[A", "\x1b[A"):
        engineer.change(key)
    engineer.to("Data", "\x1b", "Datasets")
    engineer.to("Runs", "R", names[-1], "loss")
    for key in "jjjjjkkkkk":
        engineer.change(key)
    engineer.to("run", "\r", "grad_norm", "samples")
    for key in "]][[yy++--vvv":
        engineer.change(key)
    engineer.to("Home", "H", "The model's life")
    told = report(engineer.presses)
    print(f"\n{told}")
    within = [float(press.sent) for press in engineer.presses if not press.leads]
    assert percentile(within, 0.95) <= KEY_BYTES, told
    assert max(press.sent for press in engineer.presses) <= SCREEN_BYTES, told
    line = engineer.line
    before = line.arrived
    line.run(3.0)
    assert line.arrived - before < 300, "a screen on which nothing happens sends next to nothing"


def work(folder: Path, *arguments: str) -> None:
    """A command of the program, to its end."""
    done = subprocess.run(
        workbench(*arguments), cwd=folder, env={**os.environ, **environment(folder)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def prepared(folder: Path) -> Workspace:
    """A workspace with a small model, and beside it the engineer's conversations."""
    settings = folder / "config" / "workbench"
    settings.mkdir(parents=True)
    (settings / "workbench.toml").write_text(SMALL)
    orders = (f"Order {number} went out on day {number % 28}.\n\n" * 4 for number in range(400))
    (folder / "notes.txt").write_text("".join(orders))
    work(folder, "data", "build", "notes.txt", "--name", "notes")
    work(folder, "tokenizer", "train", "--data", "notes", "--type", "bpe", "--name", "notes-bpe")
    work(folder, "train", "pretrain", "--data", "notes", "--tokenizer", "notes-bpe", "--name", "base")
    with (folder / "talks.jsonl").open("w") as file:
        for number in range(300):
            turns = [("user", f"What is order {number}?"), ("assistant", f"Order {number} is on its way to you.")]
            file.write(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}) + "\n")
    return Workspace(folder / "home")


@pytest.mark.bench
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "as by ssh -C"])
def test_an_engineer_tunes_a_model_over_a_slow_line(tmp_path: Path, lines: list[SlowLine], compressed: bool) -> None:
    workspace = prepared(tmp_path)
    engineer = Engineer(started(tmp_path, lines, compressed=compressed), rest=False)
    line = engineer.line
    engineer.to("Data", "D", "Datasets", "notes-bpe", "digest")
    for key in ("\t", "\x1b[Z"):
        engineer.change(key)
    engineer.to("form", "n", "Build a dataset")
    engineer.type("talks")
    engineer.change("\t")
    engineer.type("talks.jsonl")
    line.until(lambda: line.shows("What is order 0?"))
    engineer.to("Data", "\r", "Datasets", "talks", "300 records were read")
    engineer.to("records", "\r", "talks › 1 of", "What is order 1?", "What is order 7?")
    for key in "jjjjjjjjkkkk":
        engineer.change(key)
    engineer.to("Data", "\x1b", "Datasets", "300 records were read")
    engineer.to("Home", "H", "The model's life", "Tune base on talks")
    engineer.to("form", "\r", "Tune a model on conversations", "what it costs")
    engineer.type("on-orders")
    engineer.to("run", "\r", "runs › on-orders")
    line.until(lambda: line.shows("running", "steps/s", "grad_norm"), seconds=300)
    for key in "]][[yy+-vvv]][[":
        engineer.change(key)
    engineer.to("Runs", "\x1b", "notes-bpe", "on-orders")
    for key in "jjkkjjkk":
        engineer.change(key)
    tuning = find_run(workspace, "on-orders")
    line.until(lambda: tuning.state().last_checkpoint is not None, seconds=300)
    engineer.to("run", "\r", "runs › on-orders", "grad_norm")
    engineer.to("chat", "c", "Loading")
    line.until(lambda: line.shows("chat model", "Your message"), seconds=120)
    engineer.type("What is order 7?")
    engineer.press("\r", "you", "assistant")
    engineer.type("And order 8, which went out on Monday?")
    engineer.to("Runs", "\x1b", "i Write")
    work(tmp_path, "runs", "stop", "on-orders")
    told = report(engineer.presses)
    print(f"\n{told}")
    within = [press for press in engineer.presses if not press.leads]
    for name, presses in (("within a screen", within), ("in all", engineer.presses)):
        print(f"{len(presses)} keys {name}")
        for what in ("begun", "named", "seconds"):
            found = [float(getattr(press, what)) for press in presses]
            print(f"    until {what}: median {in_ms(found, 0.5)}, p95 {in_ms(found, 0.95)}")
    assert percentile([press.seconds for press in within], 0.95) <= LATENCY, told
    assert percentile([press.begun for press in engineer.presses], 0.95) <= LATENCY, told
