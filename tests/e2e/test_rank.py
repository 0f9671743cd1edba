"""A person at work in a real terminal: what they press is what is stored, with the order in which it was shown."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.store.labels import open_labels
from stages.store.workspace import Workspace
from tests.e2e.labeller import Person, fill, stored
from tests.e2e.terminal import Terminal, environment, workbench

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

ANSWERS = ("It is so.", "海の上の灯台", "no = yes > maybe", "Ça dépend…", "twelve boats")


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
