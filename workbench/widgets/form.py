"""A form made from a spec: every field with its sentence, unit and bounds, and mistakes shown where they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from stages.store.errors import UserError
from stages.store.strict import Field, fields, parse_text
from workbench.display import content, displayable
from workbench.keys import bind
from workbench.widgets.fields import Choice, LineInput


def text_field(name: str, description: str, *, group: str = "", default: str = "") -> Field:
    """A field of text that is not in the spec, such as a name."""
    return Field(name, "str", default, False, False, description, "", group, (), None, None, str)


def choice_field(name: str, choices: Iterable[str], description: str, *, group: str = "") -> Field:
    """A choice that is not in the spec, such as a dataset among those there are."""
    return Field(name, "choice", "", False, False, description, "", group, tuple(choices), None, None, str)


class FieldRow(Horizontal):
    """One setting: its name, its editor, and beside (or below) it what it is or what is wrong with it."""

    def __init__(self, field: Field, value: Any) -> None:
        super().__init__(classes="-long" if field.kind == "list" else "")
        self.field = field
        self.editor: LineInput | Choice = _editor(field, value)
        self._blamed: tuple[str, UserError] | None = None
        self._told = ""
        """The mistake that is shown, in words."""

    def compose(self) -> ComposeResult:
        yield Static(Content(self.field.name), classes="name")
        yield Container(self.editor, Static(self._note(), classes="note"))

    @property
    def text(self) -> str:
        return self.editor.value

    @text.setter
    def text(self, text: str) -> None:
        self.editor.value = text

    def show(self, error: UserError | None) -> None:
        """Show what is wrong with the field, or what the field is. What stands there already costs no new layout."""
        told = "" if error is None else _at_the_field(error)
        if told == self._told:
            return
        self._told = told
        self.set_class(error is not None, "-wrong")
        note = self.query_one(".note", Static)
        note.update(self._note() if error is None else content(told))

    def blame(self, error: UserError) -> None:
        """Show a mistake that stands for as long as the text does."""
        self._blamed = self.text, error
        self.show(error)

    @property
    def blamed(self) -> UserError | None:
        """The mistake that the caller found in the text that stands here now."""
        return self._blamed[1] if self._blamed and self._blamed[0] == self.text else None

    def _note(self) -> Content:
        limits = _limits(self.field)
        return Content.assemble(
            content(self.field.description), Content.styled(f" {limits}" if limits else "", "italic")
        )


class SpecForm(VerticalScroll, can_focus=False):
    """Edits the settings of `spec`, and `extra` fields before them. `values` are the first values, by name.

    `values` of unknown names are ignored; fields in `hidden` are left out and keep their first value. A form that is
    `crowded` shares its rows with a pane: at widths where its sentences would be squeezed beside the fields, they stand
    below them.
    """

    HELP_TITLE = "The form"

    BINDINGS = [
        bind("form.next", "down", "app.focus_next", "Next field", show=False, priority=True),
        bind("form.previous", "up", "app.focus_previous", "Previous field", show=False, priority=True),
        bind("form.group", "pagedown", "group(1)", "Next group", "To the next group.", show=False, priority=True),
        bind("form.before", "pageup", "group(-1)", "Group before", "To the group before.", show=False, priority=True),
    ]

    @dataclass
    class Changed(Message):
        """A field has another text now."""

        form: SpecForm
        name: str

    @dataclass
    class Submitted(Message):
        """Enter was pressed in a text field."""

        form: SpecForm

    def __init__(
        self,
        spec: type[msgspec.Struct],
        values: Mapping[str, Any] | None = None,
        *,
        extra: Iterable[Field] = (),
        hidden: Iterable[str] = (),
        crowded: bool = False,
    ) -> None:
        super().__init__(classes="-crowded" if crowded else "")
        self.spec = spec
        self._first = dict(values or {})
        before = list(extra)
        self._extra = {field.name for field in before}
        self._hidden = {name: self._first[name] for name in hidden if name in self._first}
        shown = [*before, *(field for field in fields(spec) if field.name not in set(hidden))]
        self.rows = {field.name: FieldRow(field, self._first.get(field.name, field.default)) for field in shown}

    def compose(self) -> ComposeResult:
        group = ""
        for row in self.rows.values():
            if row.field.group != group:
                group = row.field.group
                yield Static(Content(group), classes="heading")
            yield row

    def action_group(self, by: int) -> None:
        """Go to the first field of the next group, or of the one before."""
        rows = list(self.rows.values())
        groups = [row.field.group for row in rows]
        at = next((place for place, row in enumerate(rows) if row.editor.has_focus), 0)
        firsts = [place for place in range(len(rows)) if place == 0 or groups[place] != groups[place - 1]]
        further = [place for place in firsts if place > at] if by > 0 else [place for place in firsts if place < at]
        place = (further[0] if by > 0 else further[-1]) if further else (len(rows) - 1 if by > 0 else 0)
        rows[place].editor.focus()

    def read(self) -> dict[str, Any] | None:
        """All values by name, or None when one is wrong: each mistake is shown, and the first has the focus."""
        values, wrong = dict(self._hidden), None
        for name, row in self.rows.items():
            value, error = self._parse(name)
            row.show(error)
            if error is None:
                values[name] = value
            else:
                wrong = wrong or row
        if wrong is not None:
            wrong.editor.focus()
            return None
        return values

    def peek(self) -> dict[str, Any]:
        """The values that are right just now, without showing mistakes."""
        parsed = {name: self._parse(name) for name in self.rows}
        return dict(self._hidden) | {name: value for name, (value, error) in parsed.items() if error is None}

    def split(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """`values` as (settings of the spec, values of the extra fields)."""
        settings = {name: value for name, value in values.items() if name not in self._extra}
        return settings, {name: values[name] for name in self._extra if name in values}

    def blame(self, name: str, error: UserError) -> None:
        """Show a mistake at a field that only the caller could find, such as a name that is taken."""
        self.rows[name].blame(error)
        self.rows[name].editor.focus()

    @on(Input.Changed)
    @on(Choice.Changed)
    def _field_changed(self, event: Input.Changed | Choice.Changed) -> None:
        event.stop()
        row = _row_of(event.control)
        row.show(self._parse(row.field.name)[1] or row.blamed)
        self.post_message(self.Changed(self, row.field.name))

    @on(Input.Submitted)
    def _field_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.Submitted(self))

    def _parse(self, name: str) -> tuple[Any, UserError | None]:
        row = self.rows[name]
        if name in self._extra:
            return row.text.strip(), None
        try:
            return parse_text(self.spec, name, row.text, name), None
        except UserError as error:
            return None, error


def _row_of(widget: Widget) -> FieldRow:
    return next(node for node in widget.ancestors if isinstance(node, FieldRow))


def _editor(field: Field, value: Any) -> LineInput | Choice:
    if field.kind == "bool":
        return Choice(("yes", "no"), "yes" if value else "no")
    if field.kind == "choice":
        return Choice(field.choices, str(value))
    return LineInput(as_text(value), placeholder="empty" if field.optional or field.kind == "list" else "")


def as_text(value: Any) -> str:
    """How a value stands in a text field, such that `parse_text` gives the value back."""
    if value is None or value is msgspec.NODEFAULT:
        return ""
    if isinstance(value, list | tuple):
        return _list_as_text([str(part) for part in value])
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def _limits(field: Field) -> str:
    """Unit and bounds: `(tokens, 260 to 1,000,000)`."""
    low, high = (None if bound is None else f"{bound:,}" for bound in (field.low, field.high))
    between = f"{low} to {high}" if low and high else f"at least {low}" if low else f"at most {high}" if high else ""
    inside = ", ".join(filter(None, (field.unit, between)))
    return f"({inside})" if inside else ""


def _list_as_text(parts: list[str]) -> str:
    """Separated by commas when that reads back the same, else as JSON."""
    joined = ", ".join(parts)
    plain = all(part and part == displayable(part).strip() and "," not in part for part in parts)
    return joined if plain and not _is_json(joined) else msgspec.json.encode(parts).decode()


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _at_the_field(error: UserError) -> str:
    """The error without the name of the field, which stands beside it."""
    _, _, rest = error.title.partition(": ")
    return f"{rest or error.title} {error.hint}".strip()
