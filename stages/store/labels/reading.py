"""What labels.db holds: sets, prompts, completions, and the labels that are in force."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stages.store.errors import UserError
from stages.store.labels import spans
from stages.store.labels.records import Completion, Label, LabelSet, Prompt
from stages.store.labels.rows import COLUMNS, label_of
from stages.store.labels.trouble import trouble
from stages.store.names import nearest
from stages.store.records import Message

_SETS = (
    "SELECT id, name, mode, people, repeat_share, created, "
    "(SELECT coalesce(max(place) + 1, 0) FROM set_prompts WHERE set_id = sets.id) FROM sets"
)
_PLACES = (
    "SELECT place, prompts.key, set_prompts.key FROM set_prompts JOIN prompts ON prompts.id = prompt "
    "WHERE set_id = ? ORDER BY place"
)
_JUDGED = (
    "SELECT id, kind, place, annotator, shown, ranks, scores, completion, verdict, note, origin, repeats, supersedes, "
    "settles FROM labels WHERE set_id = ? ORDER BY id"
)


class LabelReader:
    """Asks labels.db, and changes nothing in it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = connection

    def sets(self) -> list[LabelSet]:
        """All sets, the newest first."""
        return [_set_of(row) for row in self._rows(f"{_SETS} ORDER BY created DESC, id DESC")]

    def find_set(self, name: str) -> LabelSet:
        """The set of this name; UserError naming the nearest otherwise."""
        rows = self._rows(f"{_SETS} WHERE name = ?", name)
        if not rows:
            names = [one for (one,) in self._rows("SELECT name FROM sets")]
            raise UserError(f"There is no label set {name!r}.", nearest(name, names, "labels new NAME --from DATASET"))
        return _set_of(rows[0])

    def labels(self, set_id: int | None = None, *, annotator: str | None = None, history: bool = False) -> list[Label]:
        """Labels in the order in which they were given: those in force, or with `history` every row."""
        wheres = {"set_id = ?": set_id, "annotator = ?": annotator}
        chosen = {where: value for where, value in wheres.items() if value is not None}
        condition = " AND ".join(["1", *chosen])
        table = "labels" if history else "in_force"
        rows = self._rows(f"SELECT {COLUMNS} FROM {table} WHERE {condition} ORDER BY id", *chosen.values())
        return [label_of(row) for row in rows]

    def digest(self, chosen: LabelSet) -> str:
        """SHA-256 of what a set holds: how it is judged, its prompts and candidates in order, then every label that was
        ever given in it, those taken back too, in the order in which they came. When that was, and how long each took,
        does not count.

        Rows are read one by one: the memory it takes does not grow with the set, the time does (see `latest`).
        Labels name completions by their ids, so the same work done anew in another labels.db has another digest.
        """
        found = hashlib.sha256(msgspec.json.encode((chosen.mode, chosen.people, chosen.repeat_share)))
        with trouble(self.path):
            for sql in (_PLACES, _JUDGED):
                for row in self._db.execute(sql, (chosen.id,)):
                    found.update(b"\n" + msgspec.json.encode(row))
        return found.hexdigest()

    def latest(self, set_id: int) -> tuple[int, float] | None:
        """The id of the latest row of a set, and when it came; None without one.

        Rows only ever come, so a set of as many prompts with the same latest row has the digest that it had.
        """
        last = "SELECT max(id) FROM labels WHERE set_id = ?"
        return next(iter(self._rows(f"SELECT id, created FROM labels WHERE id = ({last})", set_id)), None)

    def label_of(self, set_id: int, place: int, annotator: str) -> Label | None:
        """What this person's latest judgement of what stands at a place says, if it is in force."""
        which = "set_id = ? AND place = ? AND annotator = ? AND kind <> 'flag'"
        return self._latest(which, set_id, place, annotator)

    def last(self, set_id: int, annotator: str) -> Label | None:
        """The latest label that this person gave in a set, here, and that is in force."""
        return self._latest("set_id = ? AND annotator = ? AND origin = ''", set_id, annotator)

    def count(self, set_id: int, annotator: str | None = None) -> int:
        """Prompts of a set that are judged, by this person or by as many as the set asks for."""
        with trouble(self.path):
            return spans.tally(self._db, set_id, spans.EVERYBODY if annotator is None else annotator)

    def counts(self, set_id: int) -> dict[str, int]:
        """How many prompts of a set each person has judged, in the order of their names."""
        which = "set_id = ? AND annotator <> ? AND places > 0"
        return dict(self._rows(f"SELECT annotator, places FROM tallies WHERE {which}", set_id, spans.EVERYBODY))

    def annotators(self) -> list[str]:
        """Everybody who has a label in force, by name; models among them."""
        return [who for (who,) in self._rows("SELECT DISTINCT annotator FROM in_force ORDER BY annotator")]

    def rankings_at(self, set_id: int, place: int) -> list[int]:
        """The ids of all rankings of what stands at a place that are in force."""
        rows = self._rows("SELECT id FROM rankings WHERE set_id = ? AND place = ? ORDER BY id", set_id, place)
        return [id_ for (id_,) in rows]

    def count_all(self) -> int:
        """All judgements and answers that people gave here and did not take back."""
        return self._one("SELECT count(*) FROM in_force WHERE kind NOT IN ('flag', 'skip') AND origin = ''")

    def prompts_of_run(self, run: str) -> int:
        """Prompts of which completions by this run have been taken in."""
        return self._one("SELECT count(DISTINCT prompt) FROM completions WHERE run = ?", run)

    def sets_with(self, checkpoint: str) -> list[str]:
        """Names of the sets that hold answers by a checkpoint of this name."""
        rows = self._rows(
            "SELECT DISTINCT sets.name FROM completions JOIN set_prompts USING (prompt), json_each(candidates) AS one "
            "JOIN sets ON sets.id = set_prompts.set_id WHERE one.value = completions.id AND checkpoint = ? "
            "ORDER BY sets.name",
            checkpoint,
        )
        return [name for (name,) in rows]

    def prompt(self, prompt_id: int) -> Prompt:
        """A prompt by its id."""
        return self.prompts([prompt_id])[prompt_id]

    def prompts(self, ids: Iterable[int]) -> dict[int, Prompt]:
        """Prompts by their ids."""
        rows = self._those("SELECT id, messages, part, answer, source, meta FROM prompts", list(ids))
        return {
            id_: Prompt(
                messages=msgspec.json.decode(messages, type=list[Message]),
                part=part,
                answer=answer,
                source=source,
                meta=msgspec.json.decode(meta),
            )
            for id_, messages, part, answer, source, meta in rows
        }

    def completions(self, ids: Sequence[int]) -> list[Completion]:
        """Completions by their ids, in that order."""
        rows = self._those("SELECT id, text, checkpoint, ended, author FROM completions", ids)
        found = {
            id_: Completion(id=id_, text=text, checkpoint=checkpoint, ended=ended, author=author)
            for id_, text, checkpoint, ended, author in rows
        }
        return [found[id_] for id_ in ids]

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with trouble(self.path):
            return self._db.execute(sql, values).fetchall()

    def _those(self, sql: str, ids: Sequence[int]) -> list[tuple[Any, ...]]:
        """The rows with these ids."""
        return self._rows(f"{sql} WHERE id IN ({', '.join('?' * len(ids))})", *ids)

    def _one(self, sql: str, *values: Any) -> int:
        return int(self._rows(sql, *values)[0][0])

    def _latest(self, condition: str, *values: Any) -> Label | None:
        sql = f"SELECT {COLUMNS} FROM in_force WHERE {condition} ORDER BY id DESC LIMIT 1"
        return next((label_of(row) for row in self._rows(sql, *values)), None)


def _set_of(row: tuple[Any, ...]) -> LabelSet:
    id_, name, mode, people, share, created, prompts = row
    return LabelSet(id=id_, name=name, mode=mode, people=people, repeat_share=share, created=created, prompts=prompts)
