"""What the desk says of a tokenizer, in lines for people: a text's tokens, and how well it fits a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workbench.display import displayable_line, shortened

Token = Sequence[Any]
"""Id, the text it shows, whether it is special, its length in bytes."""

Facts = Mapping[str, Any]

SEPARATOR = "│"


def counted(tokens: Sequence[Token], text: str) -> str:
    """`12 tokens, 3.42 bytes a token`."""
    size = len(text.encode(errors="replace"))
    density = f", {size / len(tokens):.2f} bytes a token" if tokens else ""
    return f"{len(tokens):,} tokens{density}"


def token_lines(found: Mapping[str, Sequence[Token]], text: str) -> Iterator[str]:
    """The tokens of a text by each tokenizer, parted by bars, with their ids below."""
    for name, tokens in found.items():
        yield f"{displayable_line(name)}: {counted(tokens, text)}"
        yield "  " + SEPARATOR.join(displayable_line(str(token[1])) for token in tokens)
        yield "  " + " ".join(str(token[0]) for token in tokens)


def token_rows(found: Mapping[str, Sequence[Token]], text: str) -> list[dict[str, Any]]:
    """The same for JSON."""
    return [
        {
            "tokenizer": name,
            "tokens": len(tokens),
            "bytes": len(text.encode(errors="replace")),
            "ids": [token[0] for token in tokens],
            "pieces": [token[1] for token in tokens],
        }
        for name, tokens in found.items()
    ]


def fact_lines(found: Mapping[str, Facts]) -> Iterator[str]:
    """How well tokenizers fit a dataset, one after the other."""
    for name, facts in found.items():
        yield f"{displayable_line(name)}: {facts['vocab_size']:,} entries"
        yield from fertility_lines(facts)
        yield f"  longest   {longest(facts)}"
        if "dataset" in facts:
            yield f"  {never(facts)}"


def fertility_lines(facts: Facts, width: int = 28) -> Iterator[str]:
    """A table: tokens a word and bytes a token, by source. Words are what white space parts."""
    data = facts.get("dataset")
    if not data:
        return
    read = "" if data["bytes"] >= data["of_bytes"] else f", {data['bytes']:,} of {data['of_bytes']:,} bytes looked at"
    yield f"  {displayable_line(data['name'])}{read}"
    yield f"  {'source':<{width}} {'tokens':>10} {'a word':>7} {'bytes/t':>8}"
    rows = [*data["sources"], {**data, "source": "all"}] if len(data["sources"]) > 1 else data["sources"]
    for row in rows:
        source = shortened(row["source"] or "not said", width)
        words = f"{row['tokens'] / row['words']:.2f}" if row["words"] else "–"
        density = f"{row['bytes'] / row['tokens']:.2f}" if row["tokens"] else "–"
        yield f"  {source:<{width}} {row['tokens']:>10,} {words:>7} {density:>8}"


def longest(facts: Facts, count: int = 12) -> str:
    """The longest tokens, parted by bars."""
    return SEPARATOR.join(shortened(str(text), 40) for _, text, _ in facts["longest"][:count])


def never(facts: Facts, count: int = 20) -> str:
    """How many tokens the dataset never uses, and some of them."""
    found = facts["dataset"]["never"]
    ordinary = facts["vocab_size"] - len(facts["special"])
    if not found["count"]:
        return "every token occurs"
    some = SEPARATOR.join(shortened(str(text), 24) for _, text in found["tokens"][:count])
    share = found["count"] / ordinary if ordinary else 0
    return f"{found['count']:,} of {ordinary:,} tokens never occur ({share:.0%}), such as {some}"
