"""What is put before people: prompts, completions, and the places of a set. Each is in the file once.

Functions within a transaction of the store.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Sequence

import msgspec

from stages.store.labels.records import Candidate, Prompt
from stages.store.labels.rows import as_json, new_id


def add_prompt(db: sqlite3.Connection, prompt: Prompt) -> int:
    """The id of a prompt; a conversation that is there already keeps its row."""
    messages = as_json(prompt.messages)
    key = hashlib.sha256(messages.encode()).hexdigest()
    row = db.execute("SELECT id FROM prompts WHERE key = ?", (key,)).fetchone()
    if row:
        return int(row[0])
    values = (key, messages, prompt.part, prompt.answer, prompt.source, as_json(prompt.meta), time.time())
    columns = "key, messages, part, answer, source, meta, created"
    return new_id(db.execute(f"INSERT INTO prompts ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", values))


def add_completion(db: sqlite3.Connection, prompt_id: int, one: Candidate) -> int:
    """The id of a completion; that of the same run, prompt and k keeps its row."""
    values = (prompt_id, one.run, one.k, one.text, one.checkpoint, as_json(one.sampling), one.ended, one.author)
    db.execute(
        "INSERT OR IGNORE INTO completions (prompt, run, k, text, checkpoint, sampling, ended, author, created) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*values, time.time()),
    )
    key = (one.run, prompt_id, one.k)
    row = db.execute("SELECT id FROM completions WHERE run = ? AND prompt = ? AND k = ?", key).fetchone()
    return int(row[0])


def add_places(
    db: sqlite3.Connection, set_id: int, tasks: Iterable[tuple[Prompt, Sequence[Candidate]]], *, by_writer: bool
) -> None:
    """Prompts with their candidates as new places at the end of a set; see `Labels.add_set`."""
    (place,) = db.execute("SELECT coalesce(max(place) + 1, 0) FROM set_prompts WHERE set_id = ?", (set_id,)).fetchone()
    for prompt, candidates in tasks:
        prompt_id = add_prompt(db, prompt)
        first = {candidate.text: candidate for candidate in reversed(candidates)}
        kept = [candidate for candidate in candidates if first[candidate.text] is candidate]
        key = key_of_writers(kept) if by_writer else key_of(candidate.text for candidate in kept)
        if place_of(db, set_id, prompt_id, key) is not None:
            continue
        ids = [add_completion(db, prompt_id, candidate) for candidate in kept]
        db.execute("INSERT INTO set_prompts VALUES (?, ?, ?, ?, ?)", (set_id, place, prompt_id, as_json(ids), key))
        place += 1


def place_of(db: sqlite3.Connection, set_id: int, prompt_id: int, key: str) -> int | None:
    """The place in a set at which a prompt stands with the candidates of this key."""
    row = db.execute(
        "SELECT place FROM set_prompts WHERE set_id = ? AND prompt = ? AND key = ?", (set_id, prompt_id, key)
    ).fetchone()
    return row[0] if row else None


def key_of(texts: Iterable[str]) -> str:
    """The same for the same texts in any order."""
    return hashlib.sha256(msgspec.json.encode(sorted(texts))).hexdigest()


def key_of_writers(candidates: Iterable[Candidate]) -> str:
    """The same for the same texts by the same checkpoints."""
    return key_of(as_json([candidate.checkpoint, candidate.text]) for candidate in candidates)
