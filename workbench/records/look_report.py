"""What a look at sources found, as the app shows it before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from textual.content import Content

from workbench.display import content, line, shortened
from workbench.records.lines import record_lines

LONGEST = 300
"""Characters of one text of a sampled record that are shown."""
LONGEST_NAME = 60
"""Characters of a field's name that are shown."""


def look_report(seen: Mapping[str, Any]) -> Content:
    """Kind, how the files are written, the first records, what is left out and what could not be read."""
    return Content("\n").join([_heading(seen), *_groups(seen), *_records(seen), *_left_out(seen), *_problems(seen)])


def _heading(seen: Mapping[str, Any]) -> Content:
    files = "1 file" if seen["files"] == 1 else f"{seen['files']:,} files"
    return Content.assemble((str(seen["kind"]), "bold $primary"), f" records from {files}")


def _groups(seen: Mapping[str, Any]) -> Iterator[Content]:
    for group in seen["groups"]:
        certainty = f" · {group['certainty']:.0%} fit" if group["certainty"] < 1 else ""
        names = Path(group["files"][0]).name + (f" and {group['count'] - 1:,} more" if group["count"] > 1 else "")
        yield Content.assemble(line(f"{group['shape']}{certainty}", "bold"), "  ", line(names, "$text-muted"))
        if group["used"]:
            yield Content.assemble(("  fields ", "$text-muted"), _names(group["used"]))
        if group["meta"]:
            yield Content.assemble(("  meta   ", "$text-muted"), _names(group["meta"]))


def _names(names: list[str]) -> Content:
    return line(", ".join(shortened(name, LONGEST_NAME) for name in names))


def _records(seen: Mapping[str, Any]) -> Iterator[Content]:
    for record in seen["records"]:
        yield Content()
        for role, text in record_lines(record):
            yield Content.assemble(line(role, "$text-accent"), "  ", _shown(text))


def _shown(text: str) -> Content:
    return content(text if len(text) <= LONGEST else text[:LONGEST].rstrip() + "…")


def _left_out(seen: Mapping[str, Any]) -> Iterator[Content]:
    if seen["left_out"]:
        yield Content()
    for part in seen["left_out"]:
        yield content(f"{part['name']}: {part['removed']:,} left out", "$text-muted")


def _problems(seen: Mapping[str, Any]) -> Iterator[Content]:
    if seen["problems"]:
        yield Content()
    for problem in seen["problems"]:
        place = Path(problem["file"]).name + (f":{problem['line']}" if problem["line"] else "")
        field = f" {problem['field']}:" if problem["field"] else ""
        yield Content.assemble(line(place, "$text-warning"), line(f"{field} {problem['message']}"))
