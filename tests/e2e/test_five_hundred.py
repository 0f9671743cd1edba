"""A labeller's day: five hundred prompts by keys, with all that happens in one. What was meant is what is stored."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from stages.store.labels import Label, open_labels
from stages.store.workspace import Workspace
from tests.e2e.labeller import K, Person, fill, order_of
from tests.e2e.terminal import Terminal, environment, workbench
from tests.stages.helpers import wait_until

pytestmark = [
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
    pytest.mark.soak,
]

PROMPTS = 500
CUT = 250
"""The prompt at which the program is killed, with an order begun."""
LAST = [1] * K


class Meant(NamedTuple):
    """What the person saw and said."""

    texts: list[str]
    kind: str
    ranks: list[int] | None
    verdict: str = ""
    note: str = ""


class Labeller(Person):
    """Ranks most prompts, and does something else about some."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(terminal, "rank", PROMPTS)
        self.delays: list[float] = []

    def judge(self, number: int) -> Meant:
        texts = self.shown(number)
        match number % 25:
            case 3:
                return self.with_one_key(number, "x", Meant(texts, "rank", LAST, "all bad"))
            case 8:
                self.terminal.type("ll")
                return self.with_one_key(number, " ", Meant(texts, "rank", [2, 2, 1, 2]))
            case 12:
                self.terminal.type("s")
                self.terminal.wait_for("Why?")
                self.terminal.type("no idea")
                return self.with_one_key(number, "\r", Meant(texts, "skip", None, "no idea"))
            case 16:
                self.terminal.type("n")
                self.terminal.wait_for("A note")
                self.terminal.type("a close call\r")
                self.terminal.wait_for("note a close call")
                return self._in_order(number, texts, note="a close call")
            case 20:
                self.terminal.type("f")
                self.terminal.wait_for("Flag candidate 1")
                self.terminal.type("13\r")
                self.terminal.wait_for("flagged 1: not helpful, harmful")
        return self._in_order(number, texts)

    def take_back(self, number: int, meant: Meant) -> None:
        """A step back, or two where a flag was saved before the order."""
        for _ in range(2 if number % 25 == 20 else 1):
            self.terminal.type("u")
            self.terminal.wait_for("taken back", f"{number} of {PROMPTS} judged by you")
            assert self.shown(number) == meant.texts

    def _in_order(self, number: int, texts: list[str], note: str = "") -> Meant:
        keys = self.order()
        self.terminal.type(keys)
        self.terminal.wait_for(f"order {order_of(keys)}")
        return self.with_one_key(number, "\r", Meant(texts, "rank", order_of(keys).ranks(), "", note))

    def with_one_key(self, number: int, key: str, meant: Meant) -> Meant:
        """The key that saves: how long until the next prompt is on the screen, as tmux tells it."""
        start = time.perf_counter()
        self.terminal.type(key)
        if number + 1 < PROMPTS:
            wait_until(lambda: f"rank {number + 1}: what" in self.terminal.screen(), every=0.002)
            self.delays.append(time.perf_counter() - start)
        self.terminal.wait_for(f"{number + 1} of {PROMPTS} judged by you" if meant.kind != "skip" else "skipped")
        return meant


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def at_work(tmp_path: Path, terminals: list[Terminal]) -> Terminal:
    """The app, opened on the set by keys."""
    terminal = Terminal(workbench(), {**environment(tmp_path), "USER": "ada"}, folder=tmp_path)
    terminals.append(terminal)
    terminal.wait_for("Home")
    terminal.press("K")
    terminal.wait_for("to-rank", "progress")
    terminal.press("Enter")
    return terminal


def test_a_labeller_ranks_five_hundred_prompts(tmp_path: Path, terminals: list[Terminal]) -> None:
    workspace = Workspace(tmp_path / "home")
    fill(workspace, PROMPTS, 1, 1)
    labeller = Labeller(at_work(tmp_path, terminals))
    meant = [labeller.judge(number) for number in range(CUT)]
    assert labeller.shown(CUT)
    labeller.terminal.type("31")
    labeller.terminal.wait_for("order 3 > 1")
    labeller.terminal.kill()

    labeller.terminal = at_work(tmp_path, terminals)
    meant += [labeller.judge(number) for number in range(CUT, PROMPTS)]
    first = PROMPTS - 20
    for number in reversed(range(first, PROMPTS)):
        labeller.take_back(number, meant[number])
    meant[first] = labeller.with_one_key(first, "\r", meant[first])  # as it was
    meant[first + 1 :] = [labeller.judge(number) for number in range(first + 1, PROMPTS)]
    labeller.terminal.press("Escape")
    labeller.terminal.wait_for("to-rank", "progress")
    report(labeller.delays)

    assert stored(workspace) == meant
    said = subprocess.run(
        [*workbench("labels", "stats", "to-rank", "--json")],
        env={**environment(tmp_path), "USER": "ada"},
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    assert json.loads(said.stdout)["progress"][0]["judged"] == PROMPTS


def stored(workspace: Workspace) -> list[Meant]:
    """What is in force, by prompt; flags stand beside it."""
    with open_labels(workspace.labels) as labels:
        given: dict[int, Label] = {one.place: one for one in labels.labels() if one.kind != "flag"}
        flags = [one for one in labels.labels() if one.kind == "flag"]
        assert {one.place for one in flags} == set(range(20, PROMPTS, 25))
        assert {one.verdict for one in flags} == {"not helpful, harmful"}
        return [
            Meant(
                [text.text for text in labels.completions(given[place].shown)],
                given[place].kind,
                given[place].ranks,
                given[place].verdict,
                given[place].note,
            )
            for place in range(PROMPTS)
        ]


def report(delays: list[float]) -> None:
    """Print the times, in which tmux and the looking have their part; `benchmarks.rank` measures without them."""
    ordered = sorted(delays)
    middle, tail = statistics.median(ordered), ordered[len(ordered) * 99 // 100]
    print(f"\n{len(delays)} keys to the next prompt, by tmux: median {middle * 1e3:.0f} ms, p99 {tail * 1e3:.0f} ms")
    assert middle < 1.0
