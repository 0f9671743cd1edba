"""Every theme can be read: contrast by WCAG 2.2, of text and of the colours that tell series and states apart; and
series stay apart for colour-blind eyes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal

import pytest
from rich.style import Style
from textual.color import Color
from textual.theme import Theme

from stages.store.workspace import Workspace
from tests.workbench.conftest import add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.settings import AppSettings, Settings
from workbench.themes import MARKERS, SERIES, SERIES_LIGHT, THEMES, series_colors
from workbench.widgets.run_list import RunList

DRAWN = [theme for theme in THEMES if not theme.ansi]
"""Those whose colours are ours. The third, ansi, has the terminal's: what its sixteen colours and its ground look like
is not known, so that there is no contrast to measure; that it takes nothing but those sixteen is checked instead."""
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


@pytest.mark.parametrize("theme", DRAWN, ids=lambda theme: theme.name)
def test_text_is_legible_on_every_ground(theme: Theme) -> None:
    words = {name: getattr(theme, name) for name in ("foreground", "primary", "accent", "warning", "error", "success")}
    words["muted"] = theme.variables["text-muted"]
    for ground in ("background", "surface", "panel"):
        for name, colour in words.items():
            assert contrast(colour, str(getattr(theme, ground))) >= TEXT, (name, ground)


@pytest.mark.parametrize("theme", DRAWN, ids=lambda theme: theme.name)
def test_curves_stand_out_from_the_ground(theme: Theme) -> None:
    for colour in series_colors(theme):
        assert contrast(colour, str(theme.background)) >= GRAPHICS, colour


def test_the_theme_of_the_terminal_has_no_colour_of_ours() -> None:
    """One of ours on a ground that nobody knows could be illegible."""
    (theme,) = (theme for theme in THEMES if theme.ansi)
    fields = ("primary", "secondary", "accent", "warning", "error", "success", "foreground")
    grounds = [getattr(theme, name) for name in ("background", "surface", "panel", "boost")]
    colours = [getattr(theme, name) for name in fields] + list(series_colors(theme))
    assert all(str(colour).startswith("ansi_") for colour in colours)
    assert set(grounds) == {"ansi_default"}, "text in any of the sixteen stands on the ground that they were chosen for"


@pytest.mark.parametrize("theme", ["dark", "light"])
async def test_the_run_under_the_cursor_is_legible_with_the_focus_and_without(
    make_app: Callable[..., WorkbenchApp], workspace: Workspace, theme: Literal["dark", "light"]
) -> None:
    for name in ("one", "two"):
        add_run(workspace, "pretrain", name)
    app = make_app(Settings(app=AppSettings(theme=theme)))
    async with app.run_test(size=(100, 30)) as pilot:
        app.go("runs")
        await wait_for(pilot, lambda: "two" in screen_text(app))
        runs = app.screen.query_one(RunList)
        grounds = set()
        for focus in (runs, None):
            app.screen.set_focus(focus)
            await settled(pilot)
            for segment in runs.render_line(0):
                style = segment.style or Style()
                assert style.color is not None and style.bgcolor is not None
                colour, ground = (Color.from_rich_color(one).hex for one in (style.color, style.bgcolor))
                grounds.add(ground)
                if segment.text.strip():
                    assert contrast(colour, ground) >= TEXT, (segment.text, colour, ground)
        assert len(grounds) == 2, "where the focus is can be seen"


async def test_the_terminal_s_own_colours_need_no_ground_of_a_colour_to_show_where_one_is(
    make_app: Callable[..., WorkbenchApp], workspace: Workspace
) -> None:
    for name in ("one", "two"):
        add_run(workspace, "pretrain", name)
    app = make_app(Settings(app=AppSettings(theme="ansi")))
    async with app.run_test(size=(100, 30)) as pilot:
        app.go("runs")
        await wait_for(pilot, lambda: "two" in screen_text(app))
        runs = app.screen.query_one(RunList)
        app.screen.set_focus(runs)
        await wait_for(pilot, lambda: runs.has_focus)
        reverse = [[bool(segment.style and segment.style.reverse) for segment in runs.render_line(y)] for y in (0, 1)]
        assert all(reverse[0]) and not any(reverse[1])
        assert app.current_theme.variables["border-blurred"] != "ansi_black", "invisible on a black ground"


SEEN_BY = {
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
"""Linear RGB as such eyes see it: Machado, Oliveira and Fernandes (2009), table 1, severity 1."""


def lab(colour: str, seen: tuple[tuple[float, ...], ...]) -> tuple[float, float, float]:
    """CIE L*a*b* (D65) of a colour as it is seen."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    red, green, blue = (min(1.0, max(0.0, sum(a * b for a, b in zip(row, linear, strict=True)))) for row in seen)
    x = (0.4124564 * red + 0.3575761 * green + 0.1804375 * blue) / 0.95047
    y = 0.2126729 * red + 0.7151522 * green + 0.0721750 * blue
    z = (0.0193339 * red + 0.1191920 * green + 0.9503041 * blue) / 1.08883
    fx, fy, fz = (t ** (1 / 3) if t > 216 / 24_389 else (24_389 / 27 * t + 16) / 116 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


@pytest.mark.parametrize("eyes", SEEN_BY)
@pytest.mark.parametrize("series", [SERIES, SERIES_LIGHT], ids=["dark", "light"])
def test_series_differ_for_colour_blind_eyes_and_by_their_markers(series: tuple[str, ...], eyes: str) -> None:
    found = [lab(colour, SEEN_BY[eyes]) for colour in series]
    nearest = min(math.dist(one, other) for one, other in itertools.combinations(found, 2))
    assert nearest > 15, "2.3 is what a person just tells apart (CIE76)"
    assert len(set(MARKERS)) == len(series)
