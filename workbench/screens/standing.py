"""How a run stands, where it is listed and on its own screen; and what stands there without any."""

from __future__ import annotations

from textual.content import Content

from stages.store.rundir import RESUMABLE, RunState
from workbench.board.run_board import Entry
from workbench.display import content, line
from workbench.themes import STATUS_STYLES, STATUS_SYMBOLS
from workbench.wording import summary


def state_of(entry: Entry, key: str = "r") -> Content:
    """How a run stands: its summary, and for one that ended badly why and what to do. `key` goes on with it."""
    style = STATUS_STYLES[entry.status]
    parts: list[Content | str] = [
        Content.styled(f"{STATUS_SYMBOLS[entry.status]} ", style),
        line(summary(entry.state, entry.status), style),
    ]
    if entry.status in RESUMABLE and entry.status != "lost":
        parts += ["  ", *_offer(key)]
    if entry.status == "failed" and entry.state.error is not None:
        parts += ["\n", content(entry.state.error.message, "$text-error")]
        parts += ["\n", content(entry.state.error.hint, "$text-muted")] if entry.state.error.hint else []
    elif entry.status == "lost":
        parts += ["\n", Content.styled("Its worker ended without a word. ", "$text-error"), *_offer(key)]
    if entry.notes.note:
        parts += ["\n", line(entry.notes.note, "$text-muted italic")]
    return Content.assemble(*parts)


def last_step(state: RunState) -> float:
    """The step at which the curve is to end; 0 while something else is counted, such as bytes that are encoded."""
    return float(state.total) if state.unit == "steps" else 0.0


def _offer(key: str) -> list[Content]:
    return [Content.styled(key, "bold $accent"), Content.styled(" resumes it.", "$text-muted")]


def nothing_matches(words: str) -> Content:
    """In place of the list, where a filter lets nothing through."""
    return Content.assemble(
        "No run has all of ",
        line(words.strip(), "bold"),
        ".\n",
        Content.styled("esc", "bold $accent"),
        Content.styled(" shows all.", "$text-muted"),
    )


def invitation() -> Content:
    """In place of the list, where there are no runs yet."""
    return Content.assemble(
        "No runs yet.\n\n",
        Content.styled("n", "bold $accent"),
        Content.styled("  starts a training run, once there are a dataset and a tokenizer.\n", "$text-muted"),
        Content.styled("H", "bold $accent"),
        Content.styled("  begins with these, or runs the starter life.", "$text-muted"),
    )
