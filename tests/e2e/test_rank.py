"""A person at work in a real terminal: what they press is what is stored, with the order in which it was shown."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from stages.store.labels import Candidate, Prompt, open_labels
from stages.store.records import Message
from stages.store.workspace import Workspace
from tests.e2e.terminal import Terminal, environment, workbench
from tests.stages.helpers import wait_until
from workbench.order import Order

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

K = 4
ANSWERS = ("It is so.", "海の上の灯台", "no = yes > maybe", "Ça dépend…", "twelve boats")


class Seen(NamedTuple):
    """What the person saw and meant: the completions by number on the screen, and the ranks that their keys give."""

    texts: list[str]
    ranks: list[int]


def fill(workspace: Workspace, ranked: int, rated: int, written: int) -> None:
    """Three sets; the one to rank is the newest and stands first."""
    with open_labels(workspace.ensure().labels) as labels:
        for mode, count in (("write", written), ("rate", rated), ("rank", ranked)):
            tasks = [
                (
                    Prompt(messages=[Message("user", f"{mode} {number}: what is it?")], part="reward"),
                    [Candidate(run=mode, k=k, text=f"{mode}-{number}-{'abcd'[k]}") for k in range(K)]
                    * (mode != "write"),
                )
                for number in range(count)
            ]
            labels.add_set(f"to-{mode}", mode, tasks)  # type: ignore[arg-type]  # one of the modes


class Person:
    """Presses keys, and looks at the screen before each."""

    def __init__(self, terminal: Terminal, mode: str, count: int) -> None:
        self.terminal, self.mode, self.count = terminal, mode, count
        self.chance = random.Random(count)

    def shown(self, number: int) -> list[str]:
        """The completions of a prompt, in the order of the screen, once they are all there."""
        found: list[str] = []

        def complete() -> bool:
            screen = self.terminal.screen()
            found[:] = re.findall(rf"\b{self.mode}-{number}-[a-d]\b", screen)
            return f"{self.mode} {number}: what" in screen and f"prompt {number + 1} " in screen and len(found) == K

        wait_until(complete, what=f"prompt {number + 1}")
        return list(found)

    def order(self) -> str:
        """Keys that put some of the candidates in order, with ties."""
        digits = self.chance.sample("1234", self.chance.randint(1, K))
        return digits[0] + "".join(self.chance.choice(["", "", "="]) + digit for digit in digits[1:])

    def saved(self, number: int) -> None:
        """Wait until the screen says that the label is saved."""
        self.terminal.wait_for(f"{number + 1} of {self.count} judged by you", "saved ")

    def rank(self, number: int, *, resize: bool = False) -> Seen:
        texts, keys = self.shown(number), self.order()
        self.terminal.type(keys)
        if resize:
            self.resize(number, texts, keys)
        self.terminal.press("Enter")
        self.saved(number)
        return Seen(texts, order_of(keys).ranks())

    def resize(self, number: int, texts: list[str], keys: str) -> None:
        """To 80×24 and back, in the middle of an order."""
        for width, height in ((80, 24), (120, 40)):
            self.terminal.resize(width, height)
            wait_until(lambda width=width: self.width() == width, what=f"{width} columns")
            assert self.shown(number) == texts
            self.terminal.wait_for(f"order {order_of(keys)}")

    def width(self) -> int:
        """Columns of the frame around the prompt."""
        return max(
            (len(line) for line in self.terminal.screen().splitlines() if line.startswith("╭─ prompt")), default=0
        )

    def undo(self, number: int, seen: Seen) -> None:
        """Take one step back, to what was there before it."""
        self.terminal.type("u")
        assert self.shown(number) == seen.texts
        order = Order(K)
        order.restore(seen.ranks)
        self.terminal.wait_for(f"order {order}", f"{number} of {self.count} judged by you")

    def rate(self, number: int) -> tuple[list[str], list[float]]:
        texts = self.shown(number)
        scores = [self.chance.randint(1, 7) for _ in range(K)]
        self.terminal.type("".join(map(str, scores)))
        self.terminal.wait_for(f"ratings {' '.join(map(str, scores))}")
        self.terminal.press("Enter")
        self.saved(number)
        return texts, [float(score) for score in scores]


def order_of(keys: str) -> Order:
    order = Order(K)
    for key in keys:
        if key == "=":
            order.tie()
        else:
            order.append(int(key) - 1)
    return order


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def work(tmp_path: Path, terminals: list[Terminal], ranked: int, rated: int, written: int, undone: int) -> None:
    """Rank, take `undone` steps back and go on; rate; write; then compare what is stored with what was pressed."""
    workspace = Workspace(tmp_path / "home")
    fill(workspace, ranked, rated, written)
    terminal = Terminal(workbench(), {**environment(tmp_path), "USER": "ada"}, folder=tmp_path)
    terminals.append(terminal)
    terminal.wait_for("Home")
    terminal.press("K")
    terminal.wait_for("to-rank", "to-rate", "to-write", "progress")

    terminal.press("Enter")
    person = Person(terminal, "rank", ranked)
    rankings = [person.rank(number, resize=number == ranked // 2) for number in range(ranked)]
    first = ranked - undone
    for number in reversed(range(first, ranked)):
        person.undo(number, rankings[number])
    assert stored(workspace, "to-rank") == [(seen.texts, seen.ranks, None) for seen in rankings[:first]]
    terminal.press("Enter")  # as it was
    person.saved(first)
    rankings[first + 1 :] = [person.rank(number) for number in range(first + 1, ranked)]
    terminal.press("Escape")

    terminal.wait_for(f"to-rank  {ranked}/{ranked}")
    terminal.press("j", "Enter")
    rater = Person(terminal, "rate", rated)
    ratings = [rater.rate(number) for number in range(rated)]
    terminal.press("Escape")

    terminal.wait_for(f"to-rate  {rated}/{rated}")
    terminal.press("j", "Enter")
    for number, answer in enumerate(ANSWERS[:written]):
        terminal.wait_for(f"write {number}: what")
        terminal.type(answer)
        terminal.press("Enter")
        terminal.wait_for(f"{number + 1} of {written} judged by you")
    terminal.press("Escape")
    terminal.wait_for(f"to-write  {written}/{written}")

    assert stored(workspace, "to-rank") == [(seen.texts, seen.ranks, None) for seen in rankings]
    assert [(texts, scores) for texts, _, scores in stored(workspace, "to-rate")] == ratings
    assert answers(workspace) == list(ANSWERS[:written])
    with open_labels(workspace.labels) as labels:
        kept = labels.labels(history=True)
    assert len(kept) == ranked + 2 * undone + rated + written, "nothing is overwritten"
    assert {one.annotator for one in kept} == {"ada"}


def stored(workspace: Workspace, name: str) -> list[tuple[list[str], list[int] | None, list[float] | None]]:
    """What is in force of a set, by prompt: the texts in the order in which they were shown, ranks and scores."""
    with open_labels(workspace.labels) as labels:
        given = sorted(labels.labels(labels.find_set(name).id), key=lambda one: one.place)
        assert [one.place for one in given] == list(range(len(given)))
        return [([text.text for text in labels.completions(one.shown)], one.ranks, one.scores) for one in given]


def answers(workspace: Workspace) -> list[str]:
    """What was written, by prompt."""
    with open_labels(workspace.labels) as labels:
        given = sorted(labels.labels(labels.find_set("to-write").id), key=lambda one: one.place)
        return [one.text for one in labels.completions([one.completion for one in given if one.completion])]


def test_a_few_prompts_are_ranked_rated_and_written_in_a_terminal(tmp_path: Path, terminals: list[Terminal]) -> None:
    work(tmp_path, terminals, ranked=8, rated=3, written=2, undone=5)


@pytest.mark.soak
def test_fifty_prompts_are_ranked_twenty_rated_and_five_written(tmp_path: Path, terminals: list[Terminal]) -> None:
    work(tmp_path, terminals, ranked=50, rated=20, written=5, undone=20)
