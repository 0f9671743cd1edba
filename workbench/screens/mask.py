"""The loss mask: every token of a conversation as it is trained, ignored or cut, with control tokens in sight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from stages.store.errors import UserError
from workbench.display import displayable, line
from workbench.keys import SCROLL_KEYS, bind
from workbench.screens.base import PlaceScreen

STYLES = {"trained": "bold $success", "ignored": "$text-muted", "cut": "strike $text-error"}
"""How a token of each state is shown; NO_COLOR leaves bold and strike."""
CONTROL = "reverse"
SPLITS = ("train", "val")
MASKING = ("template", "turns", "context")
"""Settings of instruction tuning that the mask depends on."""


class Tokens(VerticalScroll, can_focus=True):
    HELP_TITLE = "The conversation"
    BINDINGS = [*SCROLL_KEYS]


class MaskScreen(PlaceScreen):
    """One conversation at a time, as the model of a checkpoint would be trained on it."""

    PLACE = "data"
    CSS_PATH = "mask.tcss"
    AUTO_FOCUS = "Tokens"
    BINDINGS = [
        bind("mask.next", "n,right", "turn(1)", "Next", "The next conversation."),
        bind("mask.previous", "p,left", "turn(-1)", "Previous", "The conversation before."),
        bind("mask.split", "tab", "split", "Split", "Training or validation."),
        bind("mask.turns", "l", "turns", "Last turn", "Train on the last turn only, or on all of the assistant's."),
        bind("mask.back", "escape", "back", "Back", "Leave."),
    ]

    def __init__(self, dataset: str, checkpoint: str, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._dataset, self._checkpoint = dataset, checkpoint
        self._masking = {key: value for key, value in (settings or {}).items() if key in MASKING and value is not None}
        self.record, self.total, self._split = 0, 0, SPLITS[0]

    def compose_body(self) -> ComposeResult:
        yield Static(id="mask-head")
        with Tokens(id="mask-body", classes="pane"):
            yield Static(id="mask-tokens")
        yield Static(_legend(), id="mask-legend")

    def on_mount(self) -> None:
        self.show_trail(self._dataset, self._checkpoint)
        self.look()

    @work(exclusive=True, group="mask")
    async def look(self) -> None:
        """Ask for the conversation, and show it."""
        head, tokens = self.query_one("#mask-head", Static), self.query_one("#mask-tokens", Static)
        try:
            found = await self.workbench.desk.ask(
                "mask.of",
                dataset=self._dataset,
                checkpoint=self._checkpoint,
                record=self.record,
                split=self._split,
                **self._masking,
            )
        except UserError as error:
            head.update(line(str(error), "$text-error"))
            tokens.update(Content())
            return
        self.total = found["total"]
        head.update(self._head(found))
        tokens.update(painted(found["tokens"], found["left_out"]))
        self.query_one(Tokens).scroll_home(animate=False)

    def _head(self, found: Mapping[str, Any]) -> Content:
        """Which conversation, how many tokens of each state, and why it is refused if it is."""
        where = f"{self._split} {self.record + 1:,} of {self.total:,}"
        each = [f"{found[state]:,} {state}" for state in STYLES if found[state] or state != "cut"]
        total = sum(found[state] for state in STYLES)
        counts = f"{total:,} token{'' if total == 1 else 's'}: {', '.join(each)}"
        cut = f", turns lost: {found['turns_cut']:,}" if found["turns_cut"] else ""
        last = " · last turn only" if self._masking.get("turns") == "last" else ""
        first = Content.assemble((where, "bold"), f" · {counts}{cut}{last} · ", line(found["source"], "$text-muted"))
        if not found["why"]:
            return first
        return Content.assemble(first, "\n", line(f"Refused: {found['why']}", "$text-error"))

    def action_turn(self, by: int) -> None:
        if self.total:
            self.record = (self.record + by) % self.total
            self.look()

    def action_split(self) -> None:
        self._split = SPLITS[1 - SPLITS.index(self._split)]
        self.record = 0
        self.look()

    def action_turns(self) -> None:
        self._masking["turns"] = "all" if self._masking.get("turns") == "last" else "last"
        self.look()

    def action_back(self) -> None:
        self.dismiss()


def painted(tokens: list[tuple[str, str, bool]], left_out: int = 0) -> Content:
    """The tokens one behind the other, in the styles of their states; a line break is shown, and made."""
    parts: list[Content | tuple[str, str]] = []
    for text, state, control in tokens:
        style = f"{STYLES[state]} {CONTROL}" if control else STYLES[state]
        parts.append((displayable(text).replace("\n", "↵\n"), style))
    if left_out:
        parts.append((f"\n… {left_out:,} more tokens", "$text-muted"))
    return Content.assemble(*parts)


def _legend() -> Content:
    parts = [Content.styled(state, style) for state, style in STYLES.items()]
    return Content("  ").join([*parts, Content.styled("control token", CONTROL)])
