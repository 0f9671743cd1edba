"""Chat templates: Jinja programs that write a conversation as the text a model reads.

They are rendered as transformers renders them (`transformers.utils.chat_template_utils`, 5.x): an immutable sandbox,
`trim_blocks` and `lstrip_blocks`, loop controls, `raise_exception`, `strftime_now`, a `tojson` that leaves HTML alone,
and `{% generation %}` blocks around what the assistant says. A template that others wrote is a program of theirs: it is
rendered by `stages.data.rendering`, under limits, and never in this process.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import jinja2.utils

import assets
from stages.store.errors import UserError
from stages.store.files import path_of
from stages.store.names import nearest

FILE = "chat_template.jinja"
"""Its name in a model folder."""
FOLDER = Path(assets.__file__).parent / "templates"
MAX_TEMPLATE = 1_000_000
"""Characters in a template, at most."""

Messages = Sequence[Mapping[str, Any]]


class Rendered(NamedTuple):
    """A conversation as text, and the parts of it that stood in generation blocks: [start, end) in characters."""

    text: str
    spans: list[tuple[int, int]]


class Tracker(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}`: remembers where the text between them ends up."""

    tags = {"generation"}

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.written: list[str] | None = None
        self.spans: list[tuple[int, int]] = []

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """The block `{% generation %}` … `{% endgeneration %}`; what is written in it is noted."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_note"), [], [], body).set_lineno(line)

    def _note(self, caller: Any) -> str:
        text = str(caller())
        if self.written is not None:
            start = sum(map(len, self.written))
            self.spans.append((start, start + len(text)))
        return text

    @contextlib.contextmanager
    def tracking(self, written: list[str]) -> Iterator[list[tuple[int, int]]]:
        """While this lasts, blocks are noted at their place behind `written`."""
        self.written, self.spans = written, []
        try:
            yield self.spans
        finally:
            self.written = None


class _Namespace(jinja2.utils.Namespace):
    """Jinja's namespace() without attributes that begin with an underscore."""

    def __init__(*args: Any, **values: Any) -> None:
        self, *rest = args
        given = dict(*rest, **values)
        for name in given:
            _refuse_private(name)
        jinja2.utils.Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


class _Dict:
    """dict() as templates may use it: no other way into the class."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace takes no attribute {name!r}")


def _raise(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


@functools.lru_cache(maxsize=4)
def compiled(template: str) -> tuple[jinja2.Template, Tracker]:
    """The template in an environment of its own. Raises jinja2.TemplateSyntaxError."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Tracker, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": _now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    tracker = environment.extensions[Tracker.identifier]
    assert isinstance(tracker, Tracker)
    return environment.from_string(template), tracker


def render_here(template: str, messages: Messages, *, prompt: bool, variables: Mapping[str, Any]) -> Rendered:
    """Render in this process, without limits: for templates that ship with the app, and for the child.

    prompt: end with what opens the assistant's turn. Raises UserError for whatever goes wrong in the template.
    """
    try:
        program, tracker = compiled(template)
        written: list[str] = []
        with tracker.tracking(written) as spans:
            for piece in program.generate(
                messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **variables
            ):
                written.append(piece)
        return Rendered("".join(written), spans)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"The chat template cannot be read: line {error.lineno}: {error.message}.") from error
    except jinja2.exceptions.SecurityError as error:
        raise UserError(f"The chat template does what no template may: {_short(error)}.") from error
    except jinja2.exceptions.TemplateError as error:
        raise UserError(f"The chat template refuses the conversation: {_short(error)}.") from error
    except MemoryError:
        raise
    except Exception as error:
        raise UserError(f"The chat template fails: {type(error).__name__}: {_short(error)}.") from error


def _short(error: Exception) -> str:
    return str(error)[:300].rstrip(".")


def shipped() -> dict[str, str]:
    """The templates that come with the app, by name."""
    return {path.stem: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.jinja"))}


def read_template(name: str) -> str:
    """The template of this name, or in this file; UserError otherwise."""
    known = shipped()
    if name in known:
        return known[name]
    if not ("/" in name or name.endswith(".jinja")):
        raise UserError(f"There is no chat template {name!r}.", nearest(name, ["auto", *known]))
    return _read(path_of(name))


def template_in(folder: Path) -> str | None:
    """The template of a model folder: chat_template.jinja, else `chat_template` in tokenizer_config.json, else None."""
    if (folder / FILE).is_file():
        return _read(folder / FILE)
    try:
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    found = config.get("chat_template") if isinstance(config, dict) else None
    return found if isinstance(found, str) and len(found) <= MAX_TEMPLATE else None


def digest_of(template: str) -> str:
    """SHA-256 of a template, in hexadecimal."""
    return hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The chat template {path} cannot be read: {error}.") from error
    if len(text) > MAX_TEMPLATE:
        raise UserError(f"The chat template {path} has more than {MAX_TEMPLATE:,} characters.")
    return text
