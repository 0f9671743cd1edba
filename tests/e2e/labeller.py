"""A person at a label set in a real terminal: looks at the screen, presses keys, knows what they meant."""

from __future__ import annotations

import random
import re
from typing import NamedTuple

from stages.store.labels import Candidate, Prompt, open_labels
from stages.store.records import Message
from stages.store.workspace import Workspace
from tests.e2e.terminal import Terminal
from tests.stages.helpers import wait_until
from workbench.judging.order import Order

K = 4


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


def stored(workspace: Workspace, name: str) -> list[tuple[list[str], list[int] | None, list[float] | None]]:
    """What is in force of a set, by prompt: the texts in the order in which they were shown, ranks and scores."""
    with open_labels(workspace.labels) as labels:
        given = sorted(labels.labels(labels.find_set(name).id), key=lambda one: one.place)
        assert [one.place for one in given] == list(range(len(given)))
        return [([text.text for text in labels.completions(one.shown)], one.ranks, one.scores) for one in given]
