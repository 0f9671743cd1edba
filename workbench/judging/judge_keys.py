"""The keys of judging, and which of them a way of judging has."""

from __future__ import annotations

from textual.binding import Binding

from stages.store.labels.records import Mode
from workbench.keys import bind


def digit_keys(place: str, sentence: str) -> list[Binding]:
    """1 to 9, which call `digit`; `sentence` is what the help says of 1."""
    first = bind(f"{place}.1", "1", "digit(1)", "…9 Rank", sentence)
    rest = [(f"{place}.{digit}", digit, f"digit({digit})", f"Rank {digit}") for digit in "23456789"]
    return [first, *(bind(*each, f"The same for number {each[1]}.", show=False) for each in rest)]


JUDGE_KEYS = [
    *digit_keys("judge", "The next in the order is this one; or its rating, 1 to 7."),
    bind("judge.a", "a", "prefer('a')", "First", "The first is better: saved at once."),
    bind("judge.b", "b", "prefer('b')", "Second", "The second is better: saved at once."),
    bind("judge.t", "t", "prefer('t')", "Tie", "Both are alike: saved at once."),
    bind("judge.back", "backspace", "back", "Take back", "Take the last digit back.", show=False),
    bind("judge.save", "enter", "save", "Save", "Save; what has no rank comes last, tied."),
    bind("judge.freeze", "enter", "freeze", "Dataset", "All is judged: make a dataset of the labels of this set."),
    bind("judge.undo", "u", "undo", "Undo", "Take the last saved label back and show its prompt again."),
    bind("judge.skip", "s", "skip", "Skip", "Skip this prompt, with a reason."),
    bind("judge.flag", "f", "flag", "Flag", "Flag the candidate: not helpful, not honest, harmful."),
    bind("judge.tie", "equals_sign", "tie", "Tie", "The next digit shares the rank of the last."),
    bind("judge.best", "space", "best", "Best", "Only the candidate under the cursor is best: saved at once."),
    bind("judge.bad", "x", "all_bad", "All bad", "None is any good: all tied, saved at once."),
    bind("judge.note", "n", "note", "Note", "Write a note that is saved with this judgement."),
    bind("judge.better", "e", "write", "Write", "Write a better answer: the best of its ranking, and a chat record."),
    bind("judge.go", "g", "go", "Go to", "Go to a prompt by its number.", show=False),
    bind("judge.differences", "d", "differences", "Differences", "Mark what differs from the one under the cursor."),
    bind("judge.markdown", "m", "markdown", "Markdown", "Lay Markdown out, or show the text as it is.", show=False),
    bind("judge.next", "l,right,tab", "move(1)", "Right", "Cursor to the next candidate.", show=False),
    bind("judge.previous", "h,left,shift+tab", "move(-1)", "Left", "Cursor to the one before.", show=False),
    bind("judge.leave", "escape", "leave", "Leave", "Back to the label sets; what is saved stays saved."),
]

ALWAYS = ("leave", "undo", "go")
"""What acts whether or not a prompt waits."""

COMPARED: tuple[Mode, ...] = ("rank", "rate", "pair")
WAYS: dict[str, tuple[Mode, ...]] = {
    "prefer": ("pair",),
    "tie": ("rank",),
    "best": ("rank",),
    "digit": ("rank", "rate"),
    "back": ("rank", "rate"),
    "save": ("rank", "rate"),
    "all_bad": ("rank", "pair"),
    "flag": COMPARED,
    "differences": COMPARED,
    "markdown": COMPARED,
    "move": COMPARED,
}
"""The ways of judging that have an action; what is not named here acts in all of them."""


def acts(action: str, mode: Mode, *, waits: bool, done: int) -> bool:
    """Whether an action's key acts: in this way of judging, whether a prompt waits, with so many of them judged."""
    if action in ALWAYS:
        return True
    if action == "freeze" or not waits:
        return action == "freeze" and not waits and done > 0
    return action not in WAYS or mode in WAYS[action]
