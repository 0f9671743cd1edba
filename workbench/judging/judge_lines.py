"""What the judging screen says in words: the prompt, the order so far, what was saved and who wrote what."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from stages.store.labels import Label, Prompt, Shown
from stages.store.labels.records import BEST, WORST, Mode
from workbench.display import content, line
from workbench.judging.labelling import Session
from workbench.judging.order import Order, Ratings

ALL_BAD = "all bad"
"""The verdict of a judgement that no candidate is any good."""


def conversation(prompt: Prompt) -> Content:
    """The conversation up to where an answer is wanted; a single question stands without its role."""
    messages = prompt.messages
    if len(messages) == 1:
        return content(messages[0].content, tabs=4)
    parts = [
        Content.assemble(line(message.role, "bold $primary"), "\n", content(message.content, tabs=4))
        for message in messages
    ]
    return Content("\n\n").join(parts)


def heading(shown: Shown | None, to_settle: int) -> Content:
    """Where the prompt stands; `to_settle` is how many disagreements wait, this one included, when that is the work.

    The part of the prompt set is not said: `policy` above two answers reads as if it told who wrote them.
    """
    if shown is None:
        return Content("done")
    settling = f" · {to_settle:,} to settle" if to_settle else ""
    return Content(f"prompt {shown.place + 1:,}{settling}")


def order_line(mode: Mode, order: Order, ratings: Ratings, note: str, refused: str = "") -> Content:
    """What has been said so far, and what may be pressed; or why the last key did nothing."""
    if mode == "rate":
        given = [str(score) if score is not None else "·" for score in ratings.scores]
        said = Content.assemble(("ratings ", "$text-muted"), " ".join(given))
        hint = f"{WORST} worst to {BEST} best, for {ratings.current + 1}" if not ratings.complete else "enter saves"
    elif mode == "pair":
        said, hint = Content(), "a the first is better · b the second · t a tie · x both bad"
    else:
        said = Content.assemble(("order ", "$text-muted"), str(order) or "—")
        hint = "enter saves; what is left comes last, tied" if order.groups and order.left else ""
        hint = "digits put the candidates in order, the best first; = ties two" if not order.groups else hint
    noted = Content.assemble("  ", ("note ", "$text-muted"), line(note)) if note else Content()
    return Content.assemble(said, "  ", (refused, "$text-warning") if refused else (hint, "$text-muted"), noted)


def saved_line(session: Session, last: Content) -> Content:
    """How many prompts are judged, and which were left out; then when the last label was saved, and what it was."""
    count = f"{session.done:,} of {session.set.prompts:,} judged by you"
    begins = f" · {session.left_out}" if session.left_out else ""
    at = f" · saved {session.saved_at:%H:%M:%S}" if session.saved_at else begins
    return Content.assemble((count + at, "$text-muted"), (" · " if last else "", "$text-muted"), last)


def told(session: Session, label: Label) -> Content:
    """What was saved, and, now that it is, who wrote what."""
    if label.kind == "skip":
        return content(f"skipped{': ' + label.verdict if label.verdict else ''}")
    order = Order(len(label.shown))
    order.restore(label.ranks or [])
    said = str(order) if label.scores is None else " ".join(f"{score:g}" for score in label.scores)
    wrote = _named(session.who_wrote(label))
    return line(" · ".join(filter(None, ["settled" if label.settles else "", label.verdict or said, wrote])))


def _named(writers: Sequence[str]) -> str:
    """Who wrote what, by number on the screen; one writer of all is named once."""
    if len(writers) > 1 and writers[0] and len(set(writers)) == 1:
        return f"all {writers[0]}"
    return ", ".join(f"{number} {writer}" for number, writer in enumerate(writers, 1) if writer)
