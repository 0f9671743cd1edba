"""Rollouts to read as they come: the prompt, then the completion, its tokens coloured by one of their figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from workbench.board.rollout_facts import COLOURINGS, LEVELS, TITLES, Rollout
from workbench.display import content, shortened
from workbench.plots.picture import figure
from workbench.widgets.token_strip import TokenStrip

LONGEST = 2_000
"""Characters of a prompt that are shown; of a longer one, its end."""


class RolloutStrip(TokenStrip):
    """Tokens on grounds as strong as their figure; without colours the strength stands behind each as a digit."""

    STYLES: ClassVar[tuple[str, ...]] = (
        *TokenStrip.STYLES,
        *(f"level-{number}" for number in range(LEVELS + 1)),
        *(f"worse-{number}" for number in range(1, LEVELS + 1)),
    )
    COMPONENT_CLASSES = {f"transcript--{style}" for style in STYLES}

    def show_levels(self, pieces: Sequence[str], levels: Sequence[int]) -> None:
        """Show these tokens, each coloured by its level; plainly when there are no levels."""
        plain = not levels
        tokens = [(abs(level), piece, False) for piece, level in zip(pieces, levels or [0] * len(pieces), strict=True)]
        self.with_ids = not plain and (self.app.no_color or self.app.current_theme.ansi)
        self.show(tokens, None if plain else [f"level-{n}" if n >= 0 else f"worse-{-n}" for n in levels])


class Rollouts(Vertical):
    """One rollout at a time, the newest first; stays at the one that is read while newer ones come."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (the name that Textual gives it)
        super().__init__(id=id)
        self._rollouts: list[Rollout] = []
        self._at = 0
        self._colouring = 0

    def compose(self) -> ComposeResult:
        yield Static(id="rollout-facts", markup=False)
        yield Static(id="rollout-prompt", markup=False)
        yield RolloutStrip(id="rollout-tokens")
        yield Static(id="rollout-key", markup=False)

    def on_mount(self) -> None:
        self._draw()

    def show(self, rollouts: Sequence[Rollout]) -> None:
        """Take these rollouts, the newest first."""
        reading = self._rollouts[self._at] if self._at and self._at < len(self._rollouts) else None
        self._rollouts = list(rollouts)
        self._at = self._rollouts.index(reading) if reading in self._rollouts else 0
        self._draw()

    def move(self, by: int) -> None:
        """Read the rollout `by` places further, older ones being further."""
        if self._rollouts:
            self._at = min(max(0, self._at + by), len(self._rollouts) - 1)
            self._draw()

    def colour_next(self) -> None:
        """Colour the tokens by the next of their figures."""
        self._colouring = (self._colouring + 1) % len(COLOURINGS)
        self._draw()

    def focus_text(self) -> None:
        """Give the keys to the tokens, for scrolling."""
        self.query_one(RolloutStrip).focus()

    def _draw(self) -> None:
        facts, prompt, key = (self.query_one(f"#rollout-{name}", Static) for name in ("facts", "prompt", "key"))
        strip = self.query_one(RolloutStrip)
        if not self._rollouts:
            facts.update(Content.styled("No rollouts yet.", "$text-muted"))
            for empty in (prompt, key):
                empty.update("")
            strip.clear()
            return
        rollout, colouring = self._rollouts[self._at], COLOURINGS[self._colouring]
        facts.update(self._facts(rollout))
        prompt.update(content(shortened(rollout.prompt[-LONGEST:], LONGEST), "$text-muted"))
        levels = rollout.levels(colouring)
        strip.show_levels(rollout.pieces or [rollout.text], levels)
        key.update(Content.styled(TITLES[colouring] if levels else f"no {colouring} was recorded", "$text-muted"))

    def _facts(self, rollout: Rollout) -> Content:
        parts = [f"step {rollout.step:,.0f}"]
        parts += [f"reward {figure(rollout.reward)}"] if rollout.reward is not None else []
        parts += [f"KL {figure(rollout.kl)}"] if rollout.kl is not None else []
        parts += [f"{len(rollout.pieces):,} tokens"] if rollout.pieces else []
        parts += [] if rollout.ended is None else ["ended" if rollout.ended else "cut off"]
        place = Content.styled(f"   {self._at + 1} of {len(self._rollouts)}", "$text-muted")
        return Content.assemble(Content.styled(" · ".join(parts), "bold"), place)
