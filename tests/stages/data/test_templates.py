"""Chat templates: rendered as transformers renders them, and under limits where others wrote them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trl
from transformers.utils.chat_template_utils import render_jinja_template

from stages.data.rendering import MEMORY, Renderer
from stages.data.templates import digest_of, read_template, render_here, template_in
from stages.store.errors import UserError
from stages.store.workspace import installation_root

SHIPPED_BY_TRL = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
CHATS = [
    [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4"}],
    [
        {"role": "system", "content": "  Be brief. <b>é</b>\n"},
        {"role": "user", "content": "Hello\n\n there "},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHi. "},
        {"role": "user", "content": "漢字 🙂 {{ 7 * 7 }}"},
        {"role": "assistant", "content": "ok"},
    ],
    [{"role": "user", "content": "Only a question"}],
]


@pytest.mark.parametrize("path", SHIPPED_BY_TRL, ids=lambda path: path.stem)
def test_a_template_that_trl_ships_renders_as_transformers_renders_it(path: Path) -> None:
    template = path.read_text("utf-8")
    for chat in CHATS:
        for prompt in (False, True):
            try:
                texts, spans = render_jinja_template(
                    [chat], chat_template=template, return_assistant_tokens_mask=True,
                    add_generation_prompt=prompt, **VARIABLES,
                )  # fmt: skip
            except Exception:  # noqa: BLE001  # what transformers cannot render, we must refuse
                with pytest.raises(UserError):
                    render_here(template, chat, prompt=prompt, variables=VARIABLES)
                continue
            ours = render_here(template, chat, prompt=prompt, variables=VARIABLES)
            assert ours.text == texts[0]
            assert ours.spans == [tuple(span) for span in spans[0]]


def test_most_of_those_templates_render_a_plain_conversation() -> None:
    """So that the comparison above compares texts, not refusals."""
    rendered = 0
    for path in SHIPPED_BY_TRL:
        try:
            rendered += bool(render_here(path.read_text("utf-8"), CHATS[0], prompt=False, variables=VARIABLES).text)
        except UserError:
            continue
    assert rendered >= 0.9 * len(SHIPPED_BY_TRL) > 50


def test_chatml_marks_what_the_assistant_says_and_its_end_of_turn() -> None:
    text, spans = render_here(read_template("chatml"), CHATS[0], prompt=False, variables={})
    assert text == "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
    assert [text[start:end] for start, end in spans] == ["4<|im_end|>"]


def test_raw_is_the_text_alone_with_its_end() -> None:
    text, spans = render_here(read_template("raw"), CHATS[0], prompt=False, variables=VARIABLES)
    assert text == "What is 2 + 2?\n4</s>"
    assert [text[start:end] for start, end in spans] == ["4</s>"]


def test_a_child_renders_what_this_process_renders() -> None:
    template = (Path(trl.__file__).parent / "chat_templates" / "qwen3_training.jinja").read_text("utf-8")
    renderer = Renderer(template, VARIABLES)
    found = renderer.render_all([(chat, False) for chat in CHATS])
    assert found == [render_here(template, chat, prompt=False, variables=VARIABLES) for chat in CHATS]
    renderer.close()


def test_a_conversation_that_is_refused_does_not_stop_the_others() -> None:
    first = [{"role": "user", "content": "a" * 200}, {"role": "assistant", "content": "x"}]
    template = "{% if messages[0].content | length > 50 %}{{ 'a' * 10 ** 9 }}{% endif %}{{ messages[1].content }}"
    renderer = Renderer(template, {})
    found = renderer.render_all([(CHATS[0], False), (first, False), (CHATS[0], False)])
    renderer.close()
    assert isinstance(found[1], UserError) and "256 MB" in str(found[1])
    assert [getattr(each, "text", "") for each in (found[0], found[2])] == ["4", "4"]


def test_a_template_is_found_by_name_in_a_file_and_in_a_model_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages }}")
    assert read_template(str(tmp_path / "mine.jinja")) == "{{ messages }}"
    with pytest.raises(UserError, match="no chat template 'chatlm'") as refused:
        read_template("chatlm")
    assert "chatml" in refused.value.hint
    assert template_in(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "old"}')
    assert template_in(tmp_path) == "old"
    (tmp_path / "chat_template.jinja").write_text("new")
    assert template_in(tmp_path) == "new"
    assert digest_of("new") != digest_of("old")


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__()[100] }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__.os }}",
    "{{ namespace.__init__.__globals__['os'].system('touch ESCAPED') }}",
    "{{ lipsum.__globals__['os'].popen('touch ESCAPED') }}",
    "{{ lipsum['__globals__'] }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['datetime'] }}",
    "{{ strftime_now.__code__ }}",
    "{{ dict.__class__ }}",
    "{{ dict.__call__.__func__.__globals__ }}",
    "{{ dict.mro() }}",
    "{% set n = namespace(__class__='x') %}{{ n }}",
    "{% set n = namespace() %}{% set n.__dict__ = 1 %}",
    "{{ ''|attr('__class__') }}",
    "{{ ''|attr('__cl' ~ 'ass__')|attr('__mro__') }}",
    "{{ '%s'|format(self)|attr('__init__') }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{0.__class__}'.format_map({'0': 1}) }}",
    "{{ ('{0.__init__.__globals__}'|string).format(raise_exception) }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'content': 'changed'}) }}",
    "{% set x = messages.pop() %}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{{ messages|map('attr', '__class__')|list }}",
    "{{ messages|groupby('__class__') }}",
    "{% include '/etc/passwd' %}",
    "{% extends '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('touch ESCAPED') }}",
    "{% from 'os' import system %}{{ system('touch ESCAPED') }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ self._TemplateReference__context.eval_ctx.environment.from_string('x') }}",
    "{{ caller.__globals__ }}",
    "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
    "{% macro f() %}{% endmacro %}{{ f.__class__ }}",
    "{{ loop.__init__ }}",
    "{% for m in messages %}{{ loop._iterable.gi_frame.f_globals }}{% endfor %}",
    "{{ (messages|map('upper')).gi_frame.f_back }}",
    "{{ (messages|select).gi_code }}",
    "{{ [].__reduce_ex__(2) }}",
    "{{ request.application.__globals__ }}",
    "{{ config.items() }}",
    "{{ url_for.__globals__ }}",
    "{{ get_flashed_messages.__globals__ }}",
]
"""None may show anything of the interpreter or make a file named ESCAPED."""

BURDENS = [
    "{{ 'a' * 3 * 10**8 }}",
    "{{ 'a' * 10**10 }}",
    "{{ [0] * 10**9 }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(10**12) %}{% endfor %}",
    "{{ range(10**18)|list }}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    "{{ (10 ** 5000000) % 7 }}",
    "{{ 'a'.center(10**10) }}",
    "{{ '%1000000000d'|format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ 'x'.ljust(2 * 10**9)|length }}",
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = n.l + n.l %}{% endfor %}",
    "{{ lipsum(n=100000, html=false) }}",
    "{{ 'a, ' * 1000000 | string }}{{ ('a,' * 30000000).split(',')|length }}",
    "{{ (('a' * 30) ~ 'b')|wordwrap(1)|urlize }}{% for i in range(99999) %}{{ ('a' * 9999)|urlize }}{% endfor %}",
    "{% generation %}" * 300 + "x" + "{% endgeneration %}" * 300,
    "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "+".join(["'a' * 9999999"] * 60) + " }}",
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "{{ messages" + "|list" * 3000 + " }}",
    "{% for m in messages %}{% for x in range(99999) %}{{ m.content }}{% endfor %}{% endfor %}" * 50,
    "{{ '\\ud800' }}",
    "\x00{{ messages }}\x00",
]
"""None may take more than two seconds or 256 MB."""


def test_no_template_of_46_reaches_the_interpreter() -> None:
    assert len(ESCAPES) == 46
    renderer = Renderer("", VARIABLES)
    for template in ESCAPES:
        renderer.template = template
        try:
            text = renderer.render(CHATS[0]).text
        except UserError:
            continue
        for word in ("<class", "<module", "<frame", "<code", "root:", "uid=", "<built-in", "environ", "changed"):
            assert word not in text, template
    renderer.close()
    assert not (installation_root() / "ESCAPED").exists()


def test_no_template_of_27_works_longer_than_two_seconds_or_takes_more_than_256_mb() -> None:
    assert len(BURDENS) == 27
    renderer = Renderer("{{ messages[0].content }}", VARIABLES)
    for template in BURDENS:
        renderer.template = "{{ messages[0].content }}"
        assert renderer.render(CHATS[0]).text  # the child is up, so that its start is not counted
        began = time.monotonic()
        renderer.template = template
        try:
            renderer.render(CHATS[0])
        except UserError as error:
            assert "\n" not in str(error)
        assert time.monotonic() - began < 6.0, template  # three times the limit: other work may hold the cores
    renderer.close()


def test_the_child_can_have_no_more_memory_than_it_is_given() -> None:
    renderer = Renderer("{{ messages[0].content }}", VARIABLES)
    renderer.render(CHATS[0])
    process = renderer._child._process  # type: ignore[union-attr]
    assert process is not None
    limits = Path(f"/proc/{process.pid}/limits")
    if limits.exists():
        line = next(line for line in limits.read_text().splitlines() if line.startswith("Max address space"))
        assert line.split()[3:5] == [str(MEMORY), str(MEMORY)]
    renderer.close()
