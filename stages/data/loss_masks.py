"""Which tokens of a conversation are trained, for people to look at: a verb of the desk."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal

from stages.data.conversations import Masker, Turns, choose_template
from stages.data.records import records_of
from stages.data.shelf import Shelf
from stages.data.tokenizer import TextTokenizer
from stages.desk import Job
from stages.models.bases import checkpoint_config
from stages.store.checkpoints import resolve_checkpoint
from stages.store.errors import UserError
from stages.store.records import ChatRecord

State = Literal["trained", "ignored", "cut"]
Piece = tuple[str, State, bool]
"""The text that a token shows, what becomes of it, and whether it is a control token."""

SHOWN = 20_000
"""Tokens that are shown of one conversation."""

_shelf = Shelf()
_using = threading.Lock()
_kept: dict[tuple[Any, ...], Masker] = {}


def of(
    job: Job,
    *,
    dataset: str,
    checkpoint: str,
    record: int,
    split: str = "train",
    template: str = "auto",
    turns: Turns = "all",
    context: int | None = None,
) -> dict[str, Any]:
    """One conversation of a dataset as the model of a checkpoint is trained on it; `record` counts from 0.

    {total, source, why, tokens: [[text, state, control]…], left_out, trained, ignored, cut, turns_cut}. `why` says why
    the conversation is refused; its tokens are then all ignored.
    """
    found, reader = _shelf.split(job.workspace, dataset, split)
    if found.info.kind != "chat":
        raise UserError(f"The dataset {dataset!r} holds records of kind {found.info.kind}.", "Choose one of kind chat.")
    if not 0 <= record < reader.records:
        raise UserError(f"The {split} part of {dataset!r} has {reader.records:,} conversations.")
    chosen = next(each for batch in reader.rows([record]) for each in records_of(batch, reader.kind))
    assert isinstance(chosen, ChatRecord)
    folder = resolve_checkpoint(job.workspace, checkpoint).path
    room = context or checkpoint_config(folder).context
    with _using:
        masker = _masker(folder, template, turns, room)
        job.check()
        tokens, why, turns_cut = _tokens(masker, chosen)
    counts = {state: sum(each[1] == state for each in tokens) for state in ("trained", "ignored", "cut")}
    shown = {"tokens": tokens[:SHOWN], "left_out": max(0, len(tokens) - SHOWN)}
    return {"total": reader.records, "source": chosen.source, "why": why, "turns_cut": turns_cut} | shown | counts


def _masker(folder: Path, template: str, turns: Turns, context: int) -> Masker:
    """The masker asked for last, or a new one."""
    text = choose_template(folder, template)  # not its name: a file of one's own changes as one works on it
    key = (folder, (folder / "tokenizer.json").stat().st_mtime_ns, text, turns, context)
    if key not in _kept:
        for old in _kept.values():
            old.close()
        _kept.clear()
        _kept[key] = Masker(folder, turns=turns, context=context, text=text)
    return _kept[key]


def _tokens(masker: Masker, record: ChatRecord) -> tuple[list[Piece], str, int]:
    (found,) = masker.mask_all([record.messages])
    text = masker.encoder.text
    if isinstance(found, UserError):
        return [_piece(text, token, "ignored") for token in masker.whole(record.messages)], found.title, 0
    seen = [
        _piece(text, token, "trained" if on else "ignored") for token, on in zip(found.ids, found.trained, strict=True)
    ]
    return [*seen, *(_piece(text, token, "cut") for token in found.cut)], "", found.turns_cut


def _piece(tokenizer: TextTokenizer, token: int, state: State) -> Piece:
    data = tokenizer.token_bytes(token)
    try:
        shown = data.decode()
    except UnicodeDecodeError:
        shown = "".join(f"‹{byte:02x}›" for byte in data)
    return shown, state, token in tokenizer.special_ids
