"""Every theme can be read: contrast by WCAG 2.2, of text and of the colours that tell series and states apart."""

from __future__ import annotations

import pytest
from textual.color import Color
from textual.theme import Theme

from workbench.themes import THEMES, series_colors

TEXT, GRAPHICS = 4.5, 3.0
"""Least ratios that WCAG 2.2 asks for: of small text (1.4.3), and of graphical objects (1.4.11)."""


def luminance(colour: str) -> float:
    """Relative luminance, by WCAG."""
    parts = (part / 255 for part in Color.parse(colour).rgb)
    r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_measure_is_that_of_the_standard() -> None:
    assert contrast("#FFFFFF", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_text_is_legible_on_every_ground(theme: Theme) -> None:
    words = {name: getattr(theme, name) for name in ("foreground", "primary", "accent", "warning", "error", "success")}
    words["muted"] = theme.variables["text-muted"]
    for ground in ("background", "surface"):
        for name, colour in words.items():
            assert contrast(colour, str(getattr(theme, ground))) >= TEXT, (name, ground)


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_curves_stand_out_from_the_ground(theme: Theme) -> None:
    """The first ones, of which a plot of one run is made; beyond them markers tell series apart."""
    for colour in series_colors(theme)[:3]:
        assert contrast(colour, str(theme.background)) >= GRAPHICS, colour
