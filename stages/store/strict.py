"""Checking settings against a msgspec Struct, with messages for people.

A wrong key, type or range becomes one line: where it stands, the key, what was expected, the nearest known name.
"""

from __future__ import annotations

import contextlib
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar, Union

import msgspec

from stages.store.errors import UserError
from stages.store.names import nearest

S = TypeVar("S", bound=msgspec.Struct)


class Field(NamedTuple):
    """One setting of a spec, as a form or a help page shows it."""

    name: str
    kind: str
    """One of: bool, int, float, str, choice, list, table."""
    default: Any
    required: bool
    optional: bool
    """None is a value: left empty, the stage decides."""
    description: str
    unit: str
    group: str
    choices: tuple[str, ...]
    low: float | None
    high: float | None
    type: Any

    @property
    def expected(self) -> str:
        """What may stand here, in words: `a whole number from 1 to 64`."""
        noun = {
            "bool": "true or false",
            "int": "a whole number",
            "float": "a number",
            "str": "text",
            "list": "a list",
            "table": "a table",
        }.get(self.kind, "")
        if self.kind == "choice":
            noun = "one of " + ", ".join(self.choices)
        if self.low is not None and self.high is not None:
            noun += f" from {_plain(self.low)} to {_plain(self.high)}"
        elif self.low is not None:
            noun += f" of at least {_plain(self.low)}"
        elif self.high is not None:
            noun += f" of at most {_plain(self.high)}"
        return noun + (", or nothing" if self.optional else "")


def _plain(number: float) -> str:
    return f"{number:,d}" if isinstance(number, int) else f"{number:g}"


@cache
def fields(spec: type[msgspec.Struct]) -> tuple[Field, ...]:
    """The settings of a spec in the order of its definition, or of its GROUPS where it names them."""
    found = [_field(info) for info in msgspec.structs.fields(spec)]
    groups: tuple[str, ...] = getattr(spec, "GROUPS", ())
    return tuple(sorted(found, key=lambda field: groups.index(field.group)) if groups else found)


def parse(spec: type[S], values: Mapping[str, Any], where: str, prefix: str = "") -> S:
    """Build `spec` from `values`; raise UserError naming `where` and the key on the first mistake."""
    checked = check_some(spec, values, where, prefix)
    missing = [field for field in fields(spec) if field.required and field.name not in values]
    if missing:
        raise UserError(f"{where}: {prefix + missing[0].name!r} is missing.", f"Expected {missing[0].expected}.")
    try:
        return spec(**checked)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {error}") from error


def check_some(spec: type[msgspec.Struct], values: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """`values` after the checks of `parse`, but keys may be missing: a part of a spec, as in a settings file."""
    known = {field.name: field for field in fields(spec)}
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{where}: unknown key {prefix + key!r}.", nearest(key, known))
        checked[key] = _check(known[key], value, where, prefix)
    return checked


def parse_text(spec: type[msgspec.Struct], key: str, text: str, where: str) -> Any:
    """The value that `text` (from a form or `--set key=text`) means for the field `key`."""
    known = {field.name: field for field in fields(spec)}
    if key not in known:
        raise UserError(f"{where}: unknown key {key!r}.", nearest(key, known))
    field = known[key]
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes of a command line or a file name that are no UTF-8
        raise UserError(f"{where}: {key!r} is {text!a}; expected text in UTF-8.") from error
    return _check(field, _read(field, text), where, "")


def _read(field: Field, text: str) -> Any:
    stripped = text.strip()
    if field.optional and stripped.lower() in ("", "none"):
        return None
    if field.kind == "bool":
        return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(
            stripped.lower(), text
        )
    if field.kind in ("int", "float"):
        plain = stripped.replace("_", "").replace(",", "")
        for number in (int, float):
            try:
                value = number(plain)
            except ValueError:
                continue
            return int(value) if field.kind == "int" and float(value).is_integer() else value
        return text
    if field.kind == "list":
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            if isinstance(value := msgspec.json.decode(stripped), list):
                return value
        parts = [part.strip() for part in text.split(",") if part.strip()]
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.convert(parts, field.type, strict=False)  # numbers, where the list is of numbers
        return parts
    return text


def _check(field: Field, value: Any, where: str, prefix: str) -> Any:
    if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct) and isinstance(value, Mapping):
        return parse(field.type, value, where, f"{prefix}{field.name}.")
    if isinstance(value, float) and value != value:
        raise UserError(f"{where}: {prefix + field.name!r} is not a number; expected {field.expected}.")
    try:
        return msgspec.convert(value, field.type)
    except msgspec.ValidationError as error:
        hint = nearest(value, field.choices) if field.choices and isinstance(value, str) else ""
        shown = repr(value) if len(repr(value)) < 80 else repr(value)[:77] + "…"
        raise UserError(f"{where}: {prefix + field.name!r} is {shown}; expected {field.expected}.", hint) from error


def _field(info: msgspec.structs.FieldInfo) -> Field:
    required = info.required
    default = info.default if info.default is not msgspec.NODEFAULT else None
    if info.default_factory is not msgspec.NODEFAULT:
        default = info.default_factory()
    inner, optional = _without_none(info.type)
    metas = _metas(info.type) + _metas(inner)
    plain = inner.__origin__ if typing.get_origin(inner) is typing.Annotated else inner
    extra: dict[str, Any] = {}
    for meta in metas:
        extra.update(meta.extra or {})
    description = next((meta.description for meta in metas if meta.description), "")
    low = next((bound for meta in metas for bound in (meta.ge, meta.gt) if bound is not None), None)
    high = next((bound for meta in metas for bound in (meta.le, meta.lt) if bound is not None), None)
    choices = tuple(str(c) for c in typing.get_args(plain)) if typing.get_origin(plain) is Literal else ()
    return Field(
        name=info.name,
        kind=_kind(plain),
        default=default,
        required=required,
        optional=optional,
        description=description or "",
        unit=extra.get("unit", ""),
        group=extra.get("group", ""),
        choices=choices,
        low=low,
        high=high,
        type=info.type if not isinstance(plain, type) or not issubclass(plain, msgspec.Struct) else plain,
    )


def _without_none(hint: Any) -> tuple[Any, bool]:
    plain = hint.__origin__ if typing.get_origin(hint) is typing.Annotated else hint
    if typing.get_origin(plain) in (Union, types.UnionType):
        arguments = [a for a in typing.get_args(plain) if a is not type(None)]
        if len(arguments) == 1 and len(typing.get_args(plain)) == 2:
            return arguments[0], True
    return hint, False


def _metas(hint: Any) -> list[msgspec.Meta]:
    if typing.get_origin(hint) is not typing.Annotated:
        return []
    return [m for m in hint.__metadata__ if isinstance(m, msgspec.Meta)]


def _kind(plain: Any) -> str:
    origin = typing.get_origin(plain) or plain
    if origin is Literal:
        return "choice"
    for kind, of in (("bool", bool), ("int", int), ("float", float), ("str", str)):
        if origin is of:
            return kind
    return "list" if origin in (list, tuple) else "table"
