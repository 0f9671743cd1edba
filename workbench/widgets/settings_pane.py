"""What a run was asked to do: its settings, its parents with digests, and where and with what it runs."""

from __future__ import annotations

import time
from typing import Any

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from stages.store.errors import UserError
from stages.store.rundir import RunSpec
from stages.store.specs import spec_of
from stages.store.strict import fields
from workbench.board.run_board import Entry
from workbench.display import content, line
from workbench.keys import SCROLL_KEYS
from workbench.wording import value_text

DIGEST = 12
"""Characters of a digest that are shown."""


class SettingsPane(VerticalScroll, can_focus=True):
    """The resolved settings of one run; those that differ from the defaults stand out."""

    HELP_TITLE = "The settings"
    BINDINGS = [*SCROLL_KEYS]

    def compose(self) -> ComposeResult:
        yield Static(id="facts-text", markup=False)

    def show(self, entry: Entry) -> None:
        """Show the spec of a run and the device it runs on."""
        self.query_one("#facts-text", Static).update(Content("\n").join(facts(entry)))


def facts(entry: Entry) -> list[Content]:
    """Lines: parents, result, settings by name, and the record of how it was started."""
    spec, state = entry.spec, entry.state
    lines = _section("made from", {role: f"{p.name}  {p.digest[:DIGEST]}" for role, p in spec.parents.items()})
    if state.result:
        lines += _section("result", state.result)
    defaults = _defaults(spec)
    if spec.settings:
        lines.append(Content.styled("settings", "bold $primary"))
        for name, value in spec.settings.items():
            changed = name in defaults and defaults[name] != value
            lines.append(_fact(name, value, "bold $accent" if changed else ""))
        lines.append(Content())
    created = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(spec.created)) if spec.created else ""
    record = {
        "run": entry.run.id,
        "created": created,
        "host": spec.host,
        "device": state.device,
        "threads": spec.threads or "",
        "last checkpoint": state.last_checkpoint or "",
        "commit": (spec.git_commit or "")[:DIGEST],
        **spec.versions,
        "folder": str(entry.run.path),
    }
    return lines + _section("record", {name: value for name, value in record.items() if value != ""})


def _section(title: str, values: dict[str, Any]) -> list[Content]:
    if not values:
        return []
    lines = [_fact(name, value) for name, value in values.items()]
    return [Content.styled(title, "bold $primary"), *lines, Content()]


def _fact(name: str, value: Any, style: str = "") -> Content:
    text = "—" if value is None else value_text(value)
    return Content.assemble(line(f"{name:<16} ", "$text-muted"), content(text, style))


def _defaults(spec: RunSpec) -> dict[str, Any]:
    try:
        return {field.name: field.default for field in fields(spec_of(spec.stage)) if not field.required}
    except UserError:
        return {}
