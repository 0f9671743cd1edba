"""How a field of a spec says what it is: a sentence, a unit, bounds, and the group it stands in."""

from __future__ import annotations

from typing import Any

import msgspec


def about(sentence: str, *, unit: str = "", group: str = "", **bounds: Any) -> msgspec.Meta:
    """Metadata of a field. `bounds` are msgspec's: ge, gt, le, lt, min_length, max_length, pattern."""
    return msgspec.Meta(description=sentence, extra={"unit": unit, "group": group}, **bounds)
