"""A text as its tokens, each on a ground as strong as it surprised the model, one of them marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from workbench.widgets.rollouts import RolloutStrip
from workbench.widgets.token_strip import SPACE

END = "▏"
"""Stands where the text ends, and what comes next would stand."""


class ScoredStrip(RolloutStrip, inherit_bindings=False):
    """Leaves all keys to the screen, which moves the mark; the mark stays in view."""

    STYLES: ClassVar[tuple[str, ...]] = (*RolloutStrip.STYLES, "here")
    COMPONENT_CLASSES = {f"transcript--{style}" for style in STYLES}

    def show_marked(self, pieces: Sequence[str], levels: Sequence[int], at: int) -> None:
        """Show these tokens, each with its level from −4 to 4, the one at `at` marked. Pieces are foreign text."""
        self.with_ids = self.app.no_color or self.app.current_theme.ansi
        tokens = [(level, piece or SPACE, False) for piece, level in zip(pieces, levels, strict=True)]
        styles = [f"level-{level}" if level >= 0 else f"worse-{-level}" for level in levels]
        if 0 <= at < len(styles):
            styles[at] = "here"
        self.show(tokens, styles)
        line = next((number for number, spans in enumerate(self._flow.lines) if any(s == "here" for _, s in spans)), 0)
        self.scroll_to(y=max(0, line - self.size.height // 2), animate=False, immediate=True)
