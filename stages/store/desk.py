"""What the app and its helper say to each other: JSON objects, one a line.

To the desk    {"id": 1, "verb": "records.page", "args": {…}}      {"cancel": 1}
From the desk  {"id": 1, "progress": {…}} now and then, and once {"id": 1, "result": …} or {"id": 1, "error": {…}}
"""

from __future__ import annotations

from typing import Any

import msgspec

from stages.store.chat import Trouble

MAX_LINE = 64 * 1024 * 1024
"""Bytes in a line, either way. Verbs answer in pages that stay far below it."""

VERBS: dict[str, str] = {
    "classify.of": "stages.asking.labeller:of",
    "data.check": "stages.data.doctor:check",
    "fill.of": "stages.asking.fill:of",
    "inside.attention": "stages.asking.inside:attention",
    "inside.score": "stages.asking.inside:score",
    "mask.of": "stages.data.loss_masks:of",
    "rate.of": "stages.training.machine_speed:of",
    "retrieval.find": "stages.asking.retrieval:find",
    "retrieval.look": "stages.asking.retrieval:look",
    "reward.score": "stages.asking.rating:of",
    "scaling.fit": "stages.measuring.scaling:of",
    "source.look": "stages.data.look:look",
    "records.ready": "stages.data.browse:ready",
    "records.page": "stages.data.browse:page",
    "records.read": "stages.data.browse:read",
    "records.find": "stages.data.browse:find",
    "records.search": "stages.data.browse:search",
    "records.count": "stages.data.browse:count",
    "records.statistics": "stages.data.browse:statistics",
    "records.create": "stages.data.edit:create",
    "records.copy": "stages.data.edit:copy",
    "records.edit": "stages.data.edit:edit",
    "records.slice": "stages.data.slices:slice_of",
    "records.of_files": "stages.data.reading:records_of",
    "tokens.of": "stages.data.tokens:of",
    "tokens.facts": "stages.data.tokens:facts",
    "tokenizer.import": "stages.data.tokens:take_in",
}
"""Every verb of the desk: its name, and `module:function` on the desk's side, imported when it is first asked for."""


class DeskRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Do `verb` with `args`, or cancel the request of that id."""

    id: int | None = None
    verb: str = ""
    args: dict[str, Any] = {}
    cancel: int | None = None


class DeskProgress(msgspec.Struct, frozen=True):
    """How far a request is; `total` is 0 where nobody knows."""

    done: int
    total: int
    phase: str = ""


class DeskReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line from the desk about the request `id`: progress, a result, or an error that ends it."""

    id: int
    progress: DeskProgress | None = None
    result: Any = None
    """What the verb returned, when there is neither progress nor an error."""
    error: Trouble | None = None
    failed: bool = False
    """With `error`: the work failed, rather than the request being wrong."""
