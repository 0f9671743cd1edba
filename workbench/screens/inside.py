"""Inside a checkpoint: how likely it finds each token of a text, what it expected there, and where it looks.

╭─ Text ───────────────────────────────────────────────────────────────╮
│ The capital of France is Paris.                                       │
╰───────────────────────────────────────────────────────────────────────╯
╭─ tiny@2000 · 7 tokens · −0.84 nats each · perplexity 2.3 ─────────────╮
│ The capital of France is Paris.▏                                      │
╰───────────────────────────────────────── pale 90 %, strong under 10 % ╯
╭─ expected for "Paris" ──────────────╮╭─ layer 2 of 4 · head 1 of 4 ───╮
│ 88.2%, -0.13 nats, rank 1           ││           0         5          │
│                                     ││  0 <|end The    ▀▀             │
│ Paris   ████████████████████  88.2% ││  2 capit of     ▀▀▀▀▀▀         │
│ Lyon    █                      3.9% ││ Paris looks at: is 41%, …      │
╰─────────────────────────────────────╯╰────────────────────────────────╯
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Key
from textual.widgets import Static, TextArea

from stages.store.errors import UserError
from workbench.display import content, line, shortened
from workbench.keys import bind
from workbench.rollout_facts import TITLES, level
from workbench.screens.base import PlaceScreen
from workbench.screens.checkpoints import CheckpointScreen
from workbench.widgets.attention_map import AttentionMap
from workbench.widgets.scored_strip import END, ScoredStrip
from workbench.widgets.text_field import TextField

FIRST = "The opposite of hot is cold."
"""What stands in the field at first."""
WAIT = 0.15
"""Seconds that typing must pause before the model is asked."""
CANDIDATES = 12
LOOKED_AT = 5
"""Tokens that are named of those a token looks at."""
WORD, BAR = 14, 16
"""Cells of a candidate's text, and of the bar of a probability of 1."""


class InsideScreen(PlaceScreen):
    """Opened on a checkpoint, or asks for one. Typing scores the text at once; a mark moves over its tokens."""

    PLACE = "runs"
    CSS_PATH = "inside.tcss"
    AUTO_FOCUS = "TextField"
    BINDINGS = [
        bind("inside.edit", "e", "edit", "Edit", "Write the text; escape leaves it."),
        bind("inside.before", "left,h", "move(-1)", "Token", "The token before."),
        bind("inside.after", "right,l", "move(1)", "Next token", "The next token.", show=False),
        bind("inside.first", "home,g", "move(-1_000_000)", "First", "The first token.", show=False),
        bind("inside.last", "end,G", "move(1_000_000)", "Last", "The end of the text.", show=False),
        bind("inside.up", "up,k", "layer(-1)", "Layer", "The layer above: nearer to the text."),
        bind("inside.down", "down,j", "layer(1)", "Next layer", "The next layer.", show=False),
        bind("inside.head", "n", "head(1)", "Head", "The next head of the layer."),
        bind("inside.other_head", "p", "head(-1)", "Head before", "The head before.", show=False),
        bind("inside.view", "v", "view", "View", "Candidates or attention, where there is no room for both."),
        bind("inside.checkpoint", "o", "checkpoint", "Checkpoint", "Look into another checkpoint; the text stays."),
        bind("inside.back", "escape", "back", "Back", "Back to where one came from."),
    ]

    def __init__(self, checkpoint: str = "", called: str = "") -> None:
        super().__init__()
        self._checkpoint, self._called = checkpoint, called or checkpoint
        self._found: Mapping[str, Any] | None = None
        self._attended: Mapping[str, Any] | None = None
        self.at = self.looked_layer = self.looked_head = 0

    def compose_body(self) -> ComposeResult:
        field = TextField(FIRST)
        field.border_title = "Text"
        field.add_class("pane")
        yield field
        with Vertical(id="strip-pane", classes="pane"):
            yield ScoredStrip()
        with Horizontal(id="inside-body"):
            with VerticalScroll(id="expected", classes="pane", can_focus=False):
                yield Static(id="expected-text", markup=False)
            with Vertical(id="attention", classes="pane"):
                yield AttentionMap()
                yield Static(id="looks", markup=False)

    def on_mount(self) -> None:
        self.query_one("#strip-pane").border_subtitle = TITLES["probability"]
        if self._checkpoint:
            self._chosen(self._checkpoint, self._called)
        else:
            self.call_after_refresh(self.action_checkpoint)

    def on_key(self, event: Key) -> None:
        if event.key == "escape" and isinstance(self.focused, TextField):
            event.stop()
            event.prevent_default()
            self.query_one(ScoredStrip).focus()

    def offers(self, action: str) -> bool:
        return action != "view" or self.has_class("-narrow")

    def action_edit(self) -> None:
        self.query_one(TextField).focus()

    def action_back(self) -> None:
        self.dismiss(None)

    def action_view(self) -> None:
        """Change between candidates and attention; in a wide window both are there."""
        self.toggle_class("-map")

    def action_checkpoint(self) -> None:
        self.app.push_screen(CheckpointScreen(self.workbench.workspace, "Look into"), self._chosen)

    def action_move(self, by: int) -> None:
        """Mark another token: what the model expected there, and where the token looks."""
        if self._found is not None:
            self.at = min(max(0, self.at + by), self._last)
            self._show()

    def action_layer(self, by: int) -> None:
        if self._found is not None:
            self.looked_layer = min(max(0, self.looked_layer + by), self._found["layers"] - 1)
            self._attend()

    def action_head(self, by: int) -> None:
        if self._found is not None:
            self.looked_head = (self.looked_head + by) % self._found["heads"]
            self._attend()

    @property
    def _last(self) -> int:
        """The last place: of a decoder, behind the text."""
        assert self._found is not None
        return max(0, len(self._found["tokens"]) - (1 if self._found["hides"] else 0))

    def _chosen(self, checkpoint: str | None, called: str = "") -> None:
        if checkpoint:
            self._checkpoint, self._called = checkpoint, called or checkpoint
            self.show_trail("runs", self._called, "inside")
            self._changed()

    @on(TextArea.Changed)
    @work(exclusive=True, group="score")
    async def _changed(self) -> None:
        """Ask once typing has paused; what was asked before is no longer waited for."""
        await asyncio.sleep(WAIT)
        text = self.query_one(TextField).text
        if not self._checkpoint:
            return
        pane = self.query_one("#strip-pane")
        try:
            found = await self.workbench.desk.ask(
                "inside.score", checkpoint=self._checkpoint, text=text, count=CANDIDATES
            )
        except UserError as error:
            self._found = self._attended = None
            pane.border_title = line(self._called)
            self.query_one(ScoredStrip).say(str(error))
            return
        self._found = found
        self.looked_layer = min(self.looked_layer, found["layers"] - 1)
        self.looked_head = min(self.looked_head, found["heads"] - 1)
        self.at = min(self.at, self._last) if self.at else self._last
        pane.border_title = line(f"{self._called} · {summary(found)}")
        self._show()
        self._attend()

    @work(exclusive=True, group="attend")
    async def _attend(self) -> None:
        """Ask for the attention of the chosen layer and head."""
        pane = self.query_one("#attention")
        if self._found is None:
            return
        layers, heads = self._found["layers"], self._found["heads"]
        try:
            found = await self.workbench.desk.ask(
                "inside.attention",
                checkpoint=self._checkpoint,
                text=self.query_one(TextField).text,
                layer=self.looked_layer,
                head=self.looked_head,
            )
        except UserError as error:
            self.query_one("#looks", Static).update(content(str(error), "$text-error"))
            return
        self._attended = found
        pane.border_title = f"layer {self.looked_layer + 1} of {layers} · head {self.looked_head + 1} of {heads}"
        self.query_one(AttentionMap).show(found["tokens"], found["weights"], self._row)
        self._show_looks()

    @property
    def _row(self) -> int:
        """The row of the attention that belongs to the marked place; at the end of the text, its last token's."""
        assert self._attended is not None
        last = len(self._attended["tokens"]) - 1
        return min(self._attended["first"] + self.at, last)

    def _show(self) -> None:
        """Show the tokens with the mark, what was expected there, and the attention of its row."""
        if self._found is None:
            return
        tokens = self._found["tokens"]
        pieces = [str(token["text"]) for token in tokens]
        levels = [level("probability", float(token["logprob"])) for token in tokens]
        if not self._found["hides"]:
            pieces, levels = [*pieces, END], [*levels, 0]
        self.query_one(ScoredStrip).show_marked(pieces, levels, self.at)
        pane = self.query_one("#expected")
        here = tokens[self.at] if self.at < len(tokens) else None
        pane.border_title = line(f"expected for {shortened(here['text'], 20)!r}" if here else "what comes next")
        self.query_one("#expected-text", Static).update(expected(here, self._found["next"]))
        if self._attended is not None:
            self.query_one(AttentionMap).point(self._row)
            self._show_looks()

    def _show_looks(self) -> None:
        if self._attended is None:
            return
        tokens, row = self._attended["tokens"], self._row
        weights = self._attended["weights"][row] if row < len(self._attended["weights"]) else []
        self.query_one("#looks", Static).update(looks_at(tokens, weights, row))


def summary(found: Mapping[str, Any]) -> str:
    """How a text was taken, in a line: tokens, nats each, perplexity."""
    tokens = found["tokens"]
    if not tokens:
        return "no text yet"
    mean = sum(float(token["logprob"]) for token in tokens) / len(tokens)
    told = f"{len(tokens):,} tokens · {mean:.2f} nats each · perplexity {math.exp(min(-mean, 700.0)):,.4g}"
    hidden = " · each hidden in turn" if found["hides"] else ""
    left_out = f" · the last {found['left_out']:,} exceed the context" if found["left_out"] else ""
    note = f" · {found['note']}" if found["note"] else ""
    return told + hidden + note + left_out


def expected(here: Mapping[str, Any] | None, following: Sequence[Mapping[str, Any]]) -> Content:
    """The likeliest tokens of a place, the one that stands there marked; above them how likely that one was."""
    rows: list[Content] = []
    if here is not None:
        share = math.exp(min(0.0, float(here["logprob"])))
        told = f"{share:.1%}, {here['logprob']:.2f} nats, rank {here['rank']:,}, entropy {here['entropy']:.2f}"
        rows += [Content.styled(told, "bold"), Content()]
    for candidate in here["top"] if here is not None else following:
        share = float(candidate["probability"])
        same = here is not None and candidate["text"] == here["text"]
        word = shortened(str(candidate["text"]).replace(" ", "␣"), WORD)
        rows.append(
            Content.assemble(
                Content.styled(f"{word:<{WORD}} ", "bold" if same else ""),
                Content.styled(f"{'█' * round(share * BAR):<{BAR}} ", "$primary"),
                Content.styled(f"{share:6.1%}", "bold" if same else ""),
            )
        )
    return Content("\n").join(rows)


def looks_at(tokens: Sequence[str], weights: Sequence[float], row: int) -> Content:
    """The tokens that a token looks at most, with their weights."""
    order = sorted(range(len(weights)), key=lambda at: -weights[at])[:LOOKED_AT]
    named = ", ".join(f"{at} {shortened(str(tokens[at]).strip(), 12)} {weights[at]:.0%}" for at in order)
    name = shortened(str(tokens[row]).strip(), 16) if row < len(tokens) else ""
    return Content.assemble(line(f"{row} {name}", "bold"), " looks at: ", line(named, "$text-muted"))
