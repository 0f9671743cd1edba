"""The form made from a spec: what is shown, what is read, and where mistakes appear."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.events import Key, Paste

from stages.store.errors import UserError
from stages.store.specs.build import Build
from stages.store.specs.pretrain import Pretrain
from stages.store.strict import fields, parse_text
from tests.workbench.conftest import screen_text
from workbench.widgets.fields import Choice, LineInput
from workbench.widgets.form import SpecForm, as_text, text_field


class FormApp(App[None]):
    CSS_PATH = "../../workbench/widgets/form.tcss"

    def __init__(self, spec: type[msgspec.Struct], values: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__()
        self.arguments = (spec, values)
        self.options = options
        self.submitted = 0

    def compose(self) -> ComposeResult:
        yield SpecForm(*self.arguments, **self.options)

    @property
    def form(self) -> SpecForm:
        return self.query_one(SpecForm)

    def on_spec_form_submitted(self) -> None:
        self.submitted += 1


@pytest.mark.parametrize("spec", [Build, Pretrain])
async def test_untouched_form_gives_the_defaults(spec: type[msgspec.Struct]) -> None:
    defaults = {field.name: field.default for field in fields(spec) if not field.required}
    app = FormApp(spec, {"sources": ["a.txt"]})
    async with app.run_test(size=(100, 40)):
        form = app.form
        values = form.read()
    assert values is not None
    assert {name: values[name] for name in defaults} == defaults


async def test_first_values_and_extra_fields_come_back() -> None:
    app = FormApp(Build, {"sources": ["a, b.txt", "c"], "name": "n", "replace": True}, extra=[text_field("name", "")])
    async with app.run_test():
        form = app.form
        values = form.read()
        assert values is not None
        settings, extra = form.split(values)
    assert extra == {"name": "n"}
    assert settings["sources"] == ["a, b.txt", "c"] and settings["replace"] is True


async def test_mistake_is_shown_at_its_field_and_takes_the_focus() -> None:
    app = FormApp(Pretrain, {"steps": 100})
    async with app.run_test(size=(110, 60)) as pilot:
        form = app.form
        row = form.rows["steps"]
        row.text = "many"
        await pilot.pause()
        assert form.read() is None
        await pilot.pause()
        assert row.has_class("-wrong") and app.focused is row.editor
        assert "expected a whole number" in screen_text(app)
        row.text = "7"
        await pilot.pause()
        assert not row.has_class("-wrong")
        assert form.read()["steps"] == 7  # type: ignore[index]  # None would fail here, as it should


async def test_blame_stands_until_the_text_changes() -> None:
    app = FormApp(Pretrain, extra=[text_field("name", "Name of the run.")])
    async with app.run_test() as pilot:
        row = app.form.rows["name"]
        row.text = "taken"
        app.form.blame("name", UserError("There is already a run 'taken'."))  # before the form hears of the new text
        await pilot.pause()
        assert row.has_class("-wrong") and "already a run" in screen_text(app)
        row.text = "free"
        await pilot.pause()
        assert not row.has_class("-wrong") and "already a run" not in screen_text(app)


@pytest.mark.parametrize("text", ["inf", "nan", "1e999", "-1", "0", "1.5"])
async def test_numbers_that_are_not_steps_are_refused(text: str) -> None:
    app = FormApp(Pretrain, {"steps": text})
    async with app.run_test():
        form = app.form
        assert form.read() is None


async def test_enter_in_a_text_field_submits_and_arrows_move_between_fields() -> None:
    app = FormApp(Pretrain)
    async with app.run_test() as pilot:
        form = app.form
        form.rows["preset"].editor.focus()
        await pilot.press("down")
        assert app.focused is form.rows["layers"].editor
        await pilot.press("up")
        assert app.focused is form.rows["preset"].editor
        await pilot.press("enter")
        assert app.submitted == 1


async def test_page_keys_go_from_group_to_group() -> None:
    app = FormApp(Pretrain)
    async with app.run_test() as pilot:
        form = app.query_one(SpecForm)
        names = list(form.rows)
        groups = [row.field.group for row in form.rows.values()]
        firsts = [names[place] for place in range(1, len(names)) if groups[place] != groups[place - 1]]
        form.rows[names[0]].editor.focus()
        await pilot.pause()
        for wanted in firsts:
            await pilot.press("pagedown")
            await pilot.pause()
            assert form.rows[wanted].editor.has_focus
        await pilot.press("pagedown")
        await pilot.pause()
        assert form.rows[names[-1]].editor.has_focus
        await pilot.press("pageup")
        await pilot.pause()
        assert form.rows[firsts[-1]].editor.has_focus


async def test_choice_turns_with_arrows_and_letters() -> None:
    app = FormApp(Pretrain)
    async with app.run_test() as pilot:
        form = app.form
        editor = form.rows["precision"].editor
        assert isinstance(editor, Choice)
        editor.focus()
        await pilot.press("right")
        assert editor.value == "fp32"
        await pilot.press("l", "l")
        assert editor.value == "auto"
        await pilot.press("h")
        assert editor.value == "bf16"


async def test_control_characters_do_not_enter_a_text_field() -> None:
    app = FormApp(Build)
    async with app.run_test() as pilot:
        form = app.form
        editor = form.rows["split"].editor
        assert isinstance(editor, LineInput)
        editor.focus()
        await pilot.pause()
        await pilot.press("end")
        editor.insert_text_at_cursor("a\x1b[31mb\u202e")
        assert editor.value == "documents:0.1a[31mb"
        editor.select_all()
        editor.post_message(Paste("c\x1b[31md\u202e"))
        await pilot.pause()
        assert editor.value == "c[31md", "over a selection, too"


async def test_the_beginning_of_a_long_text_is_seen() -> None:
    """In a field that has the focus or not; typing replaces the whole, and end goes to its end."""
    long, also = f"begins-{'x' * 200}", f"starts-{'y' * 200}"
    app = FormApp(Build, {"name": long}, extra=[text_field("name", ""), text_field("other", "")])
    async with app.run_test(size=(80, 24)) as pilot:
        first, second = app.form.rows["name"].editor, app.form.rows["other"].editor
        first.focus()
        await pilot.pause()
        assert "begins-xxx" in screen_text(app)
        await pilot.press("end", "z")
        assert "begins-" not in screen_text(app) and first.value == f"{long}z"
        second.focus()
        await pilot.press(*also[:7])
        second.value = also
        await pilot.pause()
        assert "begins-xxx" in screen_text(app), "once it is left"
        first.focus()
        await pilot.press("n", "o", "w")
        assert first.value == "now"
        assert "starts-yyy" in screen_text(app)


@given(st.lists(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=8)))
def test_lists_survive_the_text_field(parts: list[str]) -> None:
    assert parse_text(Build, "sources", as_text(parts), "") == parts


@given(st.floats(min_value=1e-12, max_value=1))
def test_numbers_survive_the_text_field(number: float) -> None:
    assert parse_text(Pretrain, "lr", as_text(number), "") == number


async def test_keys_that_arrive_in_one_packet_act_in_the_order_of_typing() -> None:
    app = FormApp(Pretrain)
    async with app.run_test(size=(100, 40)) as pilot:
        first, second = list(app.query(LineInput))[:2]
        first.focus()
        await pilot.pause()
        typed = [Key("ctrl+u", "\x15"), *(Key(c, c) for c in "abc"), Key("tab", "\t"), Key("ctrl+u", "\x15")]
        for key in (*typed, *(Key(c, c) for c in "789")):
            app.post_message(key)
        await pilot.pause()
        assert (first.value, second.value) == ("abc", "789")
