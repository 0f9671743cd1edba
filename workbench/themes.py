"""Themes, and the colours by which series and states are told apart (Okabe and Ito's palette, safe for all eyes)."""

from __future__ import annotations

from textual.theme import BUILTIN_THEMES, Theme

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

SERIES = (SKY, ORANGE, GREEN, PURPLE, YELLOW, VERMILION, BLUE)
"""Colours of series on a dark ground, in order. The two nearest are 16 apart (CIE76) for colour-blind eyes."""
SERIES_LIGHT = ("#00446B", "#954200", GREEN, "#7E4B68", "#B17A00", "#387597", "#000000")
"""The same for a light ground, most of them darkened so that they stand out from it."""
SERIES_ANSI = ("ansi_cyan", "ansi_yellow", "ansi_green", "ansi_magenta", "ansi_blue", "ansi_red", "ansi_white")
"""The same from the terminal's own sixteen colours."""
MARKERS = ("●", "◆", "▲", "■", "○", "◇", "△")
"""Markers of series, in order: hue is never the only difference."""

STATUS_SYMBOLS = {
    "queued": "◔",
    "running": "▶",
    "paused": "‖",
    "finished": "✓",
    "stopped": "■",
    "failed": "✗",
    "lost": "?",
}
"""One cell for each status of a run."""

STATUS_STYLES = {
    "queued": "$text-muted",
    "running": "$accent",
    "paused": "$warning",
    "finished": "$success",
    "stopped": "$text-muted",
    "failed": "$error",
    "lost": "$error",
}

_DARK = Theme(
    name="dark",
    primary=SKY,
    secondary=BLUE,
    accent=ORANGE,
    warning=YELLOW,
    error="#FF7A45",
    success="#2BC597",
    foreground="#E4E6EB",
    background="#12151A",
    surface="#191D24",
    panel="#232933",
    variables={
        "text-muted": "#95989D",
        "border-blurred": "#4A5361",
    },
)

_LIGHT = Theme(
    name="light",
    primary="#0067A0",
    secondary=SKY,
    accent="#A44700",
    warning="#825B00",
    error="#B23C00",
    success="#00704F",
    foreground="#1B1F24",
    background="#FAFAF7",
    surface="#F0F0EC",
    panel="#E3E3DE",
    dark=False,
    variables={
        "text-muted": "#5F6368",
        "border-blurred": "#B4B4AC",
    },
)

_ANSI = Theme(
    name="ansi",
    primary="ansi_blue",
    secondary="ansi_cyan",
    accent="ansi_green",
    warning="ansi_yellow",
    error="ansi_red",
    success="ansi_green",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    ansi=True,
    variables=BUILTIN_THEMES["ansi-dark"].variables
    | {
        "border-blurred": "ansi_bright_black",
        "block-cursor-foreground": "ansi_default",
        "block-cursor-background": "ansi_default",
        "block-cursor-text-style": "bold reverse",
    },
)
"""Textual's, but for what a terminal with a black ground, or a white one, would not show."""

THEMES = (_DARK, _LIGHT, _ANSI)
NAMES = tuple(theme.name for theme in THEMES)
"""What [app] theme may say."""


def series_colors(theme: Theme) -> tuple[str, ...]:
    """The colours of series in `theme`, in order."""
    if theme.ansi:
        return SERIES_ANSI
    return SERIES if theme.dark else SERIES_LIGHT


def series_color(theme: Theme, place: int) -> str:
    """The colour of the series at `place` in `theme`."""
    colours = series_colors(theme)
    return colours[place % len(colours)]
