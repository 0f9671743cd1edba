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

A model with a head shows what it says in place of that, or above it: a reward model the score up to each token, a model
that labels its probabilities at the token where it reads them.

╭─ judge@400 · 9 tokens · score +1.24 (raw 2.10) ───────────────────────╮
│ 2+2? 4, of course.                                                    │
╰──────────────────────────────────── score: above its mean, or below ╯
╭─ up to " course" ───────────────────╮╭─ says at "[CLS]" ──────────────╮
│ score +1.24 (raw 2.10), +0.31 by it ││ refund   ███████████████ 93.1% │
╰─────────────────────────────────────╯╰────────────────────────────────╯
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Static, TextArea

from stages.store.errors import UserError
from workbench.display import content, line
from workbench.keys import bind
from workbench.screens.base import PlaceScreen
from workbench.screens.checkpoints import CheckpointScreen, called
from workbench.talking.inside_facts import COLOURINGS, begins_at, colourings, heading, levels, looks_at, summary, told
from workbench.widgets.attention_map import AttentionMap
from workbench.widgets.scored_strip import END, ScoredStrip
from workbench.widgets.text_field import TextField

FIRST = "The opposite of hot is cold."
"""What stands in the field at first."""
WAIT = 0.15
"""Seconds that typing must pause before the model is asked."""
CANDIDATES = 12


class LookedAtField(TextField):
    """The text, whose bar of keys says how to get out of it."""

    BINDINGS = [
        bind("inside.leave", "escape", "screen.leave", "Tokens and attention", "Leave the text for what is told of it.")
    ]


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
        bind("inside.colour", "t", "colour", "Colour", "Colour the tokens by another figure of them."),
        bind("inside.view", "v", "view", "View", "Candidates or attention, where there is no room for both."),
        bind("inside.checkpoint", "o", "checkpoint", "Checkpoint", "Look into another checkpoint; the text stays."),
        bind("inside.back", "escape", "back", "Back", "Back to where one came from."),
    ]

    def __init__(self, checkpoint: str = "", called: str = "") -> None:
        super().__init__()
        self._checkpoint, self._called = checkpoint, called
        self._found: Mapping[str, Any] | None = None
        self._attended: Mapping[str, Any] | None = None
        self.at = self.looked_layer = self.looked_head = self._colouring = 0

    def compose_body(self) -> ComposeResult:
        field = LookedAtField(FIRST)
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
        if self._checkpoint:
            self._chosen(self._checkpoint, self._called)
        else:
            self.call_after_refresh(self.action_checkpoint)

    def offers(self, action: str) -> bool:
        if action == "colour":
            return self._found is not None and len(colourings(self._found)) > 1
        return action != "view" or self.has_class("-narrow")

    def action_leave(self) -> None:
        """From the text to its tokens, where the keys of layers and heads act."""
        self.query_one(ScoredStrip).focus()

    def action_edit(self) -> None:
        self.query_one(TextField).focus()

    def action_back(self) -> None:
        self.dismiss(None)

    def action_view(self) -> None:
        """Change between candidates and attention; in a wide window both are there."""
        self.toggle_class("-map")

    def action_colour(self) -> None:
        """Colour the tokens by the next of what is known of each."""
        self._colouring += 1
        self._show()

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
        """The last place: behind the text, where it is known what would come next."""
        assert self._found is not None
        return max(0, len(self._found["tokens"]) - (0 if self._found["next"] else 1))

    def _chosen(self, checkpoint: str | None, name: str = "") -> None:
        if checkpoint:
            self._checkpoint, self._called = checkpoint, name or called(self.workbench.workspace, checkpoint)
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
        stayed = self._found is None or self.at == begins_at(self._found)
        self._found = found
        self.looked_layer = min(self.looked_layer, found["layers"] - 1)
        self.looked_head = min(self.looked_head, found["heads"] - 1)
        self.at = begins_at(found) if stayed else min(self.at, self._last)
        self.refresh_bindings()
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
        found = self._found
        by = colourings(found)
        colouring = by[self._colouring % len(by)] if by else ""
        pieces, shades = [str(token["text"]) for token in found["tokens"]], levels(found, colouring)
        if found["next"]:
            pieces, shades = [*pieces, END], [*shades, 0]
        self.query_one(ScoredStrip).show_marked(pieces, shades, self.at)
        self.query_one("#strip-pane").border_subtitle = COLOURINGS.get(colouring, "")
        self.query_one("#expected").border_title = line(heading(found, self.at))
        self.query_one("#expected-text", Static).update(told(found, self.at))
        if self._attended is not None:
            self.query_one(AttentionMap).point(self._row)
            self._show_looks()

    def _show_looks(self) -> None:
        if self._attended is None:
            return
        tokens, row = self._attended["tokens"], self._row
        weights = self._attended["weights"][row] if row < len(self._attended["weights"]) else []
        self.query_one("#looks", Static).update(looks_at(tokens, weights, row))
