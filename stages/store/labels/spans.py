"""Which places of a set are done, as runs of places, so that the next free place and the counts are quick in any set.

A span (set, annotator, first, last) says that this person has judged every place from first to last, and that those
judgements are in force; one with no annotator (EVERYBODY), that as many people as the set asks for have judged them
here. Spans of one owner neither overlap nor touch. A tally is how many places an owner's spans cover.

Both follow from the labels alone: `refresh` looks at the labels of one place after each change, in the transaction of
that change, and `rebuild` at all of them. A lookup costs the logarithm of the number of spans.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby

EVERYBODY = ""
"""The owner of the spans of places that need nobody more."""

JUDGED = "kind <> 'flag'"
"""Labels that say something of a place. Those with an origin are no work done here: they count for their owner only."""

_HERE = "SELECT count(DISTINCT annotator) FROM in_force WHERE set_id = ?1 AND place = ?2 AND origin = '' AND "


def refresh(db: sqlite3.Connection, set_id: int, place: int, annotator: str) -> None:
    """Bring the spans up to date after a label of this person about this place was added."""
    own = "SELECT EXISTS (SELECT 1 FROM in_force WHERE set_id = ? AND place = ? AND annotator = ? AND "
    (judged,) = db.execute(f"{own} {JUDGED})", (set_id, place, annotator)).fetchone()
    full = f"SELECT ({_HERE} {JUDGED}) >= (SELECT people FROM sets WHERE id = ?1)"
    (enough,) = db.execute(full, (set_id, place)).fetchone()
    _mark(db, set_id, annotator, place, bool(judged))
    _mark(db, set_id, EVERYBODY, place, bool(enough))


def rebuild(db: sqlite3.Connection) -> None:
    """Work all spans out from the labels."""
    db.execute("DELETE FROM spans")
    db.execute("DELETE FROM tallies")
    own = f"SELECT DISTINCT set_id, annotator, place FROM in_force WHERE {JUDGED} ORDER BY 1, 2, 3"
    full = (
        f"SELECT set_id, '{EVERYBODY}', place FROM in_force WHERE {JUDGED} AND origin = '' GROUP BY set_id, place "
        "HAVING count(DISTINCT annotator) >= (SELECT people FROM sets WHERE id = set_id) ORDER BY 1, 3"
    )
    for query in (own, full):
        for (set_id, owner), rows in groupby(db.execute(query).fetchall(), key=lambda row: (row[0], row[1])):
            spans = list(_runs(place for _, _, place in rows))
            db.executemany("INSERT INTO spans VALUES (?, ?, ?, ?)", ((set_id, owner, *span) for span in spans))
            total = sum(last - first + 1 for first, last in spans)
            db.execute("INSERT INTO tallies VALUES (?, ?, ?)", (set_id, owner, total))


def tally(db: sqlite3.Connection, set_id: int, owner: str) -> int:
    """How many places of a set are done."""
    row = db.execute("SELECT places FROM tallies WHERE set_id = ? AND annotator = ?", (set_id, owner)).fetchone()
    return row[0] if row else 0


def undone(db: sqlite3.Connection, set_id: int, annotator: str, after: int) -> Iterator[int]:
    """The places beyond `after` that this person has not judged and that need somebody, in order."""
    row = db.execute("SELECT max(place) FROM set_prompts WHERE set_id = ?", (set_id,)).fetchone()
    place, end = after + 1, -1 if row[0] is None else row[0]
    while place <= end:
        covering = [_covering(db, set_id, owner, place) for owner in (annotator, EVERYBODY)]
        last = max((span[1] for span in covering if span is not None), default=None)
        if last is None:
            yield place
        place = (place if last is None else last) + 1


def _covering(db: sqlite3.Connection, set_id: int, owner: str, place: int) -> tuple[int, int] | None:
    """The span that holds a place."""
    row = db.execute(
        "SELECT first, last FROM spans WHERE set_id = ? AND annotator = ? AND first <= ? ORDER BY first DESC LIMIT 1",
        (set_id, owner, place),
    ).fetchone()
    return (row[0], row[1]) if row is not None and row[1] >= place else None


def _mark(db: sqlite3.Connection, set_id: int, owner: str, place: int, done: bool) -> None:
    """Put a place into the spans of an owner, or take it out."""
    held = _covering(db, set_id, owner, place)
    if (held is not None) == done:
        return
    if held is not None:
        before, after = (held[0], place - 1), (place + 1, held[1])
        gone, come = [held], [span for span in (before, after) if span[0] <= span[1]]
    else:
        beside = (_covering(db, set_id, owner, place - 1), _covering(db, set_id, owner, place + 1))
        gone = [span for span in beside if span is not None]
        come = [(min([place, *(first for first, _ in gone)]), max([place, *(last for _, last in gone)]))]
    key = (set_id, owner)
    db.executemany(
        "DELETE FROM spans WHERE set_id = ? AND annotator = ? AND first = ?", ((*key, first) for first, _ in gone)
    )
    db.executemany("INSERT INTO spans VALUES (?, ?, ?, ?)", ((*key, *span) for span in come))
    db.execute(
        "INSERT INTO tallies VALUES (?1, ?2, ?3) ON CONFLICT (set_id, annotator) DO UPDATE SET places = places + ?3",
        (*key, 1 if done else -1),
    )


def _runs(places: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The runs of consecutive numbers among numbers that rise."""
    first = last = None
    for place in places:
        if first is None or last is None or place != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = place
        last = place
    if first is not None and last is not None:
        yield first, last
