"""Rendered conversations as tokens: the template's control tokens count, those that people wrote are text.

Before rendering, every control token inside a message gets an unseen character after its first (`mark`), so that it is
none. After rendering (`encode`), that character is taken out again, and what it stood in is encoded as plain text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from tokenizers import Tokenizer

from stages.data.templates import Rendered
from stages.data.tokenizer import FILE, TextTokenizer
from stages.store.errors import UserError

UNSEEN = range(0xE000, 0xF8FF)
"""Private-use characters: one that occurs in no message marks control tokens."""


class Encoded(NamedTuple):
    """Tokens, and for each whether any of its characters stands in one of the spans, by number, or in none: -1."""

    ids: list[int]
    span_of: list[int]


class ChatEncoder:
    """The tokenizer of a model folder, for text that a chat template has written."""

    def __init__(self, folder: Path, template: str) -> None:
        self.folder = folder
        self.text = TextTokenizer.load(folder)
        plan = msgspec.json.decode((folder / FILE).read_bytes(), type=dict[str, Any])
        plan |= {"post_processor": None, "padding": None, "truncation": None}  # offsets are those of the text
        added = plan.get("added_tokens") or []
        self._tokenizer = Tokenizer.from_str(msgspec.json.encode(plan).decode())
        self._plain = Tokenizer.from_str(msgspec.json.encode(plan | {"added_tokens": []}).decode())
        names = {token["content"] for token in added if token.get("special") or token["content"] in template}
        self.control: dict[str, int] = {
            name: number for name in sorted(names) if name and (number := self._tokenizer.token_to_id(name)) is not None
        }
        longest_first = sorted(self.control, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._template = template

    @property
    def special(self) -> dict[str, str]:
        """What templates may name: bos_token, eos_token and the others of tokenizer_config.json."""
        config = msgspec.json.decode((self.folder / "tokenizer_config.json").read_bytes(), type=dict[str, Any])
        named = {key: _content(value) for key, value in config.items() if key.endswith("_token")}
        return {key: value for key, value in named.items() if value is not None}

    def mark(self, messages: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], str]:
        """The messages with control tokens in their contents broken, and the character that breaks them, or nothing."""
        if not any(self._pattern.search(str(message["content"])) for message in messages):
            return [dict(message) for message in messages], ""
        written = self._template + "".join(str(message["content"]) for message in messages)
        mark = next(chr(code) for code in UNSEEN if chr(code) not in written)

        def broken(found: re.Match[str]) -> str:
            return found[0][0] + mark + found[0][1:]

        return [
            {**message, "content": self._pattern.sub(broken, str(message["content"]))} for message in messages
        ], mark

    def encode_all(self, texts: Sequence[tuple[Rendered, str]]) -> list[Encoded]:
        """Tokens of each text, on all cores; its spans are those of the rendered text, marks included.

        Raises UserError when the tokenizer makes a control token of plain text, as no text can be kept from it then.
        """
        whole = [rendered.text for rendered, mark in texts if not mark]
        encodings = iter(self._tokenizer.encode_batch(whole, add_special_tokens=False))
        found = []
        for rendered, mark in texts:
            if mark:
                found.append(self._encode_marked(rendered, mark))
            else:
                encoding = next(encodings)
                found.append(Encoded(encoding.ids, _spans_of(encoding.offsets, rendered.spans)))
        return found

    def _encode_marked(self, rendered: Rendered, mark: str) -> Encoded:
        marks = [match.start() for match in re.finditer(re.escape(mark), rendered.text)]
        text = rendered.text.replace(mark, "")
        broken = {at - number for number, at in enumerate(marks)}  # the second character of each broken token
        spans = [(start - bisect_left(marks, start), end - bisect_left(marks, end)) for start, end in rendered.spans]
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []

        def plain(start: int, end: int) -> None:
            encoding = self._plain.encode(text[start:end], add_special_tokens=False)
            if forged := [name for name, number in self.control.items() if number in encoding.ids]:
                raise UserError(f"The tokenizer reads plain text as its control token {forged[0]!r}.", "Remove it.")
            ids.extend(encoding.ids)
            offsets.extend((start + a, start + b) for a, b in encoding.offsets)

        done = 0
        for match in self._pattern.finditer(text):
            if match.start() + 1 in broken:
                continue
            plain(done, match.start())
            ids.append(self.control[match[0]])
            offsets.append(match.span())
            done = match.end()
        plain(done, len(text))
        return Encoded(ids, _spans_of(offsets, spans))


def _spans_of(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[int]:
    """For each token the number of the span it overlaps, or -1. Both rise."""
    found, place = [], 0
    for start, end in offsets:
        while place < len(spans) and spans[place][1] <= start:
            place += 1
        inside = place < len(spans) and spans[place][0] < max(end, start + 1)
        found.append(place if inside else -1)
    return found


def _content(token: Any) -> str | None:
    """A special token as tokenizer_config.json may write it: a string, or an object with `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
