"""Styles of component classes for lines that widgets draw themselves."""

from __future__ import annotations

from rich.style import Style
from textual.widget import Widget


def component_style(widget: Widget, name: str) -> Style:
    """What a component class says, and no more. Rich knows no alpha: translucent colours are mixed with the ground."""
    styles = widget.get_component_styles(name)
    style = styles.partial_rich_style
    ground = widget.background_colors[1]
    if styles.has_rule("background"):
        ground += styles.background
        if 0 < styles.background.a < 1:
            style += Style(bgcolor=ground.rich_color)
    if styles.has_rule("color") and 0 < styles.color.a < 1:
        style += Style(color=(ground + styles.color).rich_color)
    return style
