"""Which prompt a person is given: the next that needs them and that nobody else is at, or one to be asked again.

Functions within a transaction of the store. A lease holds a prompt for whoever looks at it, for LEASE seconds, or until
their process is gone: who was cut off is given the same prompt when they are back.
"""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
import time

from stages.store.labels import spans

LEASE = 900.0
"""Seconds for which a prompt that was put before one person is not given to another."""

REPEAT_AFTER, REPEAT_WITHIN = 20, 500
"""Labels that lie between a person's judgement and the same prompt asked again: at least, and at most beyond that."""


def new_holder() -> str:
    """A name for a connection: the machine, the process, and what tells it from others of the process."""
    return f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(8)}"


def lease(db: sqlite3.Connection, set_id: int, place: int, annotator: str, holder: str) -> None:
    """Hold a prompt for the connection `holder`."""
    row = (set_id, place, annotator, holder, time.time() + LEASE)
    db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", row)


def end_leases(db: sqlite3.Connection, holder: str) -> None:
    """Give back what this connection held, what others have held too long, and what is held by nobody any more."""
    db.execute("DELETE FROM leases WHERE until < ? OR holder = ?", (time.time(), holder))
    held = [one for (one,) in db.execute("SELECT DISTINCT holder FROM leases")]
    db.executemany("DELETE FROM leases WHERE holder = ?", [(one,) for one in held if _is_gone(one)])


def _is_gone(holder: str) -> bool:
    """Whether a connection's process has ended. Of one on another machine that cannot be told: False."""
    host, _, rest = holder.partition("/")
    pid = rest.partition("/")[0]
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it is there, and somebody else's
    return False


def free_place(db: sqlite3.Connection, set_id: int, annotator: str, after: int) -> int | None:
    """The first place beyond `after`, else from the start, that this person has not judged and that needs them."""
    for start in (after, -1) if after >= 0 else (-1,):
        for place in spans.undone(db, set_id, annotator, start):
            if not _taken(db, set_id, place):
                return place
    return None


def _taken(db: sqlite3.Connection, set_id: int, place: int) -> bool:
    """Whether those who have judged a place here and those who look at it are enough."""
    people = (
        f"SELECT annotator FROM in_force WHERE set_id = ?1 AND place = ?2 AND {spans.JUDGED} AND origin = '' "
        "UNION SELECT annotator || holder FROM leases WHERE set_id = ?1 AND place = ?2"
    )
    enough = f"SELECT (SELECT count(*) FROM ({people})) >= (SELECT people FROM sets WHERE id = ?1)"
    return bool(db.execute(enough, (set_id, place)).fetchone()[0])


def to_repeat(db: sqlite3.Connection, set_id: int, annotator: str) -> tuple[int, int] | None:
    """What this person judged and is due to be asked again: the place and the old label.

    Chosen by hash of the label, at the set's `repeat_share`.
    """
    (share,) = db.execute("SELECT repeat_share FROM sets WHERE id = ?", (set_id,)).fetchone()
    if not share:
        return None
    row = db.execute(
        "SELECT place, id FROM (SELECT * FROM labels WHERE annotator = ? AND set_id = ? "
        "  AND kind IN ('rank', 'pair', 'rate') AND origin = '' ORDER BY id DESC LIMIT ? OFFSET ?) AS old "
        "WHERE repeats IS NULL AND settles IS NULL AND id * 2654435761 % 4294967296 < ? * 4294967296.0 "
        "AND NOT EXISTS (SELECT 1 FROM labels WHERE repeats = old.id) "
        "AND EXISTS (SELECT 1 FROM in_force WHERE id = old.id) ORDER BY id LIMIT 1",
        (annotator, set_id, REPEAT_WITHIN, REPEAT_AFTER, share),
    ).fetchone()
    return None if row is None else (row[0], row[1])
