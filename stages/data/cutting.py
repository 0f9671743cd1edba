"""Cutting long texts where that cannot change their tokens, so that memory and cores do not depend on line lengths."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from tokenizers import Tokenizer

PIECE = 100_000
"""Characters encoded at once. A longer text is cut where that cannot change its tokens."""

SAFE_CUT = re.compile(r"(?<=\S)[ \n]")
"""Between what is no space and a space, GPT-2's regular expression always splits, and neither side sees the other."""

BEFORE_SPACE = re.compile(r"(?<=\S) ")
"""The same for expressions that join a line break to the punctuation before it, as cl100k and its like do."""

JOINS_LINE_BREAKS = (r"[^\s\p{L}\p{N}]+[\r\n]*", r"[^\s\p{L}\p{N}]+[\r\n/]*")
"""Parts by which the expressions of cl100k, Llama 3, Qwen 2 and o200k are known."""

WHITE_SPACE = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")


def safe_cuts(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """Where texts may be cut for this tokenizer; None when nothing is known to be safe, and texts stay whole."""
    normalizers = [part["type"] for part in _parts(tokenizer.normalizer, "normalizers")]
    splitters = _parts(tokenizer.pre_tokenizer, "pretokenizers")
    if not set(normalizers) <= {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "BertNormalizer"}:
        return None
    found: re.Pattern[str] | None = None
    for part in splitters:
        kind = part["type"]
        if kind == "ByteLevel" and part.get("add_prefix_space"):
            return None
        if kind in WHITE_SPACE or (kind == "ByteLevel" and part.get("use_regex")):
            found = SAFE_CUT
        elif kind == "Split" and str(part.get("pattern", {}).get("Regex", "")).find("\\s+(?!\\S)") >= 0:
            joins = any(known in part["pattern"]["Regex"] for known in JOINS_LINE_BREAKS)
            if joins and part.get("behavior") == "Isolated" and not part.get("invert"):
                found = found or BEFORE_SPACE
        elif kind not in ("Digits", "ByteLevel", "Split", "Punctuation"):
            return None
    return found


def cut_for_encoding(text: str, size: int = PIECE, cuts: re.Pattern[str] | None = SAFE_CUT) -> list[str]:
    """Cut `text` into pieces of about `size` characters at `cuts`, by default those safe for byte-level tokens.

    A text without a place for it stays whole.
    """
    pieces, start = [], 0
    while cuts is not None and len(text) - start > size:
        place = cuts.search(text, start + size)
        cut = place.start() if place else len(text)
        pieces.append(text[start:cut])
        start = cut
    if start < len(text) or not pieces:
        pieces.append(text[start:])
    return pieces


def _parts(component: Any, inner: str) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer as a flat list of its parts' settings."""
    if component is None:
        return []
    return list(_flat(msgspec.json.decode(component.__getstate__(), type=dict[str, Any]), inner))


def _flat(plan: dict[str, Any], inner: str) -> list[dict[str, Any]]:
    if plan.get("type") != "Sequence":
        return [plan]
    return [part for each in plan.get(inner, []) for part in _flat(each, inner)]
