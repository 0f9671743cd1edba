"""labels.db: what people judged, kept such that an acknowledged label is never lost.

Every method that writes returns only when the row is on the disk: rollback journal, synchronous=EXTRA (SQLite before
3.51.3 can lose commits in WAL mode with several writers). Two processes may write at once; the second waits a moment.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from stages.store.errors import UserError, WorkFailed
from stages.store.labels import schema
from stages.store.labels.records import Candidate, Completion, Label, LabelSet, Mode, Prompt, Shown
from stages.store.labels.rows import COLUMNS, as_json, insert_label, label_of, new_id
from stages.store.names import check_name, nearest
from stages.store.records import Message, Part, part_of

PATIENCE = 20.0
"""Seconds that a writer waits for another before it gives up with a sentence."""

LEASE = 900.0
"""Seconds for which a prompt that was put before one person is not given to another."""

REPEAT_AFTER, REPEAT_WITHIN = 20, 500
"""Labels that lie between a person's judgement and the same prompt asked again: at least, and at most beyond that."""


def open_labels(path: Path) -> Labels:
    """The labels at `path`, made where there are none. UserError when they cannot be opened, or are damaged."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"{path} cannot be opened: {error}.", "Is its folder there, and yours to write?") from error
    with _trouble(path):
        for pragma in ("journal_mode = DELETE", "synchronous = EXTRA", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        schema.prepare(connection, str(path))
    return Labels(path, connection)


class Labels:
    """One connection to labels.db. A context manager; to be used by one thread at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = connection
        self._holder = secrets.token_hex(8)

    def __enter__(self) -> Labels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what this connection was shown and has not judged, and close."""
        with contextlib.suppress(sqlite3.Error, UserError), self._writing():
            self._db.execute("DELETE FROM leases WHERE holder = ?", (self._holder,))
        self._db.close()

    # -- prompts, completions, sets ----------------------------------------------------------------------------------

    def add_prompt(self, prompt: Prompt) -> int:
        """The id of a prompt; a conversation that is there already keeps its row."""
        with self._writing():
            return self._add_prompt(prompt)

    def add_completions(self, prompt_id: int, candidates: Iterable[Candidate]) -> list[int]:
        """The ids of completions, in order. What came before from the same run under the same k is not added again."""
        with self._writing():
            return [self._add_completion(prompt_id, candidate) for candidate in candidates]

    def add_set(
        self,
        name: str,
        mode: Mode,
        tasks: Iterable[tuple[Prompt, Sequence[Candidate]]],
        *,
        people: int = 1,
        repeat_share: float = 0.0,
        by_writer: bool = False,
    ) -> LabelSet:
        """Prompts with their candidates as a new set, or more of them in a set of that name.

        Equal completions of a prompt are collapsed, the first is kept. What is in the set already, the same prompt
        with the same texts, is left alone, so that taking a run in twice changes nothing. With `by_writer` only the
        same texts by the same checkpoints are the same: where it matters who wrote what.
        """
        check_name(name, "name of a label set")
        with self._writing():
            row = self._db.execute("SELECT id, mode FROM sets WHERE name = ?", (name,)).fetchone()
            if row and row[1] != mode:
                raise UserError(f"The label set {name!r} is judged by {row[1]}, not by {mode}.", "Choose another name.")
            values = (name, mode, people, repeat_share, time.time())
            insert = "INSERT INTO sets (name, mode, people, repeat_share, created) VALUES (?, ?, ?, ?, ?)"
            set_id = row[0] if row else new_id(self._db.execute(insert, values))
            place = self._one("SELECT coalesce(max(place) + 1, 0) FROM set_prompts WHERE set_id = ?", set_id)
            for prompt, candidates in tasks:
                prompt_id = self._add_prompt(prompt)
                distinct = {candidate.text: candidate for candidate in reversed(candidates)}
                kept = [candidate for candidate in candidates if distinct[candidate.text] is candidate]
                key = _key(map(_signed if by_writer else _text, kept))
                if self._place_of(set_id, prompt_id, key) is not None:
                    continue
                ids = [self._add_completion(prompt_id, candidate) for candidate in kept]
                self._db.execute(
                    "INSERT INTO set_prompts VALUES (?, ?, ?, ?, ?)", (set_id, place, prompt_id, as_json(ids), key)
                )
                place += 1
        return self.find_set(name)

    def sets(self) -> list[LabelSet]:
        """All sets, the newest first."""
        rows = self._db.execute(
            "SELECT id, name, mode, people, repeat_share, created, "
            "(SELECT count(*) FROM set_prompts WHERE set_id = sets.id) FROM sets ORDER BY created DESC, id DESC"
        )
        return [
            LabelSet(id=id_, name=name, mode=mode, people=people, repeat_share=share, created=created, prompts=prompts)
            for id_, name, mode, people, share, created, prompts in rows
        ]

    def find_set(self, name: str) -> LabelSet:
        """The set of this name; UserError naming the nearest otherwise."""
        found = {one.name: one for one in self.sets()}
        if name not in found:
            raise UserError(f"There is no label set {name!r}.", nearest(name, found))
        return found[name]

    def place_by_writer(self, set_id: int, prompt_id: int, candidates: Iterable[Candidate]) -> int | None:
        """The place at which `add_set` with `by_writer` has put these candidates, all of them distinct."""
        return self._place_of(set_id, prompt_id, _key(map(_signed, candidates)))

    def place_of(self, set_id: int, prompt_id: int, texts: Iterable[str]) -> int | None:
        """The place in a set at which these texts are the candidates of a prompt, in whatever order."""
        return self._place_of(set_id, prompt_id, _key(dict.fromkeys(texts)))

    # -- work --------------------------------------------------------------------------------------------------------

    def next(self, set_id: int, annotator: str, *, after: int = -1) -> Shown | None:
        """The next prompt for this person, from beyond place `after` and then from the start; None when all is done.

        It is leased to this connection: nobody else is given it meanwhile. The same person may see one again, at the
        set's `repeat_share` (chosen by hash of the label), some while after the first time.
        """
        with self._writing():
            self._db.execute("DELETE FROM leases WHERE until < ? OR holder = ?", (time.time(), self._holder))
            repeated = self._to_repeat(set_id, annotator)
            if repeated is not None:
                return self._shown(set_id, *repeated)
            row = self._free(set_id, annotator, after) or self._free(set_id, annotator, -1)
            if row is None:
                return None
            lease = (set_id, row[0], annotator, self._holder, time.time() + LEASE)
            self._db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", lease)
            return self._shown(set_id, *row)

    def at(self, set_id: int, place: int) -> Shown | None:
        """The prompt at a place of a set, labelled or not."""
        row = self._db.execute(
            "SELECT place, prompt, candidates FROM set_prompts WHERE set_id = ? AND place = ?", (set_id, place)
        ).fetchone()
        return self._shown(set_id, *row) if row else None

    def shown_as(self, label: Label) -> Shown:
        """The prompt of a label with the completions in the order in which they were shown then."""
        return Shown(
            set_id=label.set_id,
            place=label.place,
            prompt_id=label.prompt_id,
            prompt=self.prompt(label.prompt_id),
            completions=self.completions(label.shown),
            repeats=label.repeats,
        )

    def save(self, label: Label) -> Label:
        """Store one act, made by `Shown.label`; it is on the disk when this returns, with its id."""
        with self._writing():
            return self._insert(label)

    def save_all(self, labels: Iterable[Label]) -> int:
        """Store many at once, all or none; how many there were."""
        with self._writing():
            return len([self._insert(label) for label in labels])

    def add_prompts(self, prompts: Iterable[Prompt]) -> list[int]:
        """The ids of prompts, in order."""
        with self._writing():
            return [self._add_prompt(prompt) for prompt in prompts]

    def write(self, shown: Shown, annotator: str, text: str, *, best: bool, seconds: float = 0.0) -> list[Label]:
        """Store an answer that a person wrote. With `best` it is ranked above all completions that were shown, too."""
        with self._writing():
            run = f"written:{annotator}"
            k = self._one(
                "SELECT coalesce(max(k) + 1, 0) FROM completions WHERE run = ? AND prompt = ?", run, shown.prompt_id
            )
            id_ = self._add_completion(shown.prompt_id, Candidate(run=run, k=k, text=text, author=annotator))
            written = shown.label("write", annotator, completion=id_, seconds=seconds)
            if not best or not shown.completions:
                return [self._insert(written)]
            mine = Completion(id=id_, text=text, checkpoint="", ended="end", author=annotator)
            wider = msgspec.structs.replace(shown, completions=[mine, *shown.completions])
            ranks = [1] + [2] * len(shown.completions)
            return [self._insert(wider.label("rank", annotator, ranks=ranks)), self._insert(written)]

    def undo(self, label: Label) -> None:
        """Take a label back. It stays in the file, with a row that says so."""
        undone = Label(
            id=0,
            kind="undo",
            set_id=label.set_id,
            place=label.place,
            prompt_id=label.prompt_id,
            annotator=label.annotator,
            supersedes=label.id,
        )
        with self._writing():
            self._insert(undone)

    # -- reading -----------------------------------------------------------------------------------------------------

    def labels(self, set_id: int | None = None, *, annotator: str | None = None, history: bool = False) -> list[Label]:
        """Labels in the order in which they were given: those in force, or with `history` every row."""
        wheres = {"set_id = ?": set_id, "annotator = ?": annotator}
        chosen = {where: value for where, value in wheres.items() if value is not None}
        condition = " AND ".join(["1", *chosen])
        table = "labels" if history else "in_force"
        rows = self._db.execute(f"SELECT {COLUMNS} FROM {table} WHERE {condition} ORDER BY id", (*chosen.values(),))
        return [label_of(row) for row in rows]

    def label_of(self, set_id: int, place: int, annotator: str) -> Label | None:
        """What this person's latest judgement of what stands at a place says, if it is in force."""
        which = "set_id = ? AND place = ? AND annotator = ? AND kind <> 'flag'"
        row = self._db.execute(
            f"SELECT {COLUMNS} FROM in_force WHERE {which} ORDER BY id DESC LIMIT 1", (set_id, place, annotator)
        ).fetchone()
        return label_of(row) if row else None

    def last(self, set_id: int, annotator: str) -> Label | None:
        """The latest label of this person in a set that is in force."""
        row = self._db.execute(
            f"SELECT {COLUMNS} FROM in_force WHERE set_id = ? AND annotator = ? ORDER BY id DESC LIMIT 1",
            (set_id, annotator),
        ).fetchone()
        return label_of(row) if row else None

    def count(self, set_id: int, annotator: str | None = None) -> int:
        """Prompts of a set that are judged, by this person or by as many as the set asks for."""
        if annotator is not None:
            return self._one(
                "SELECT count(DISTINCT place) FROM in_force WHERE set_id = ? AND annotator = ? AND kind <> 'flag'",
                set_id,
                annotator,
            )
        return self._one(
            "SELECT count(*) FROM (SELECT 1 FROM in_force WHERE set_id = ?1 AND kind <> 'flag' AND origin = '' "
            "GROUP BY place HAVING count(DISTINCT annotator) >= (SELECT people FROM sets WHERE id = ?1))",
            set_id,
        )

    def count_all(self) -> int:
        """All judgements and answers that people gave here and did not take back."""
        return self._one("SELECT count(*) FROM in_force WHERE kind NOT IN ('flag', 'skip') AND origin = ''")

    def prompts_of_run(self, run: str) -> int:
        """Prompts of which completions by this run have been taken in."""
        return self._one("SELECT count(DISTINCT prompt) FROM completions WHERE run = ?", run)

    def prompt(self, prompt_id: int) -> Prompt:
        """A prompt by its id."""
        messages, part, answer, source, meta = self._db.execute(
            "SELECT messages, part, answer, source, meta FROM prompts WHERE id = ?", (prompt_id,)
        ).fetchone()
        turns = msgspec.json.decode(messages, type=list[Message])
        return Prompt(messages=turns, part=part, answer=answer, source=source, meta=msgspec.json.decode(meta))

    def completions(self, ids: Sequence[int]) -> list[Completion]:
        """Completions by their ids, in that order."""
        marks = ", ".join("?" * len(ids))
        rows = self._db.execute(
            f"SELECT id, text, checkpoint, ended, author FROM completions WHERE id IN ({marks})", (*ids,)
        )
        found = {
            id_: Completion(id=id_, text=text, checkpoint=checkpoint, ended=ended, author=author)
            for id_, text, checkpoint, ended, author in rows
        }
        return [found[id_] for id_ in ids]

    # -- the inside --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction that holds the file for writing from its start."""
        with _trouble(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _one(self, sql: str, *values: Any) -> int:
        return int(self._db.execute(sql, values).fetchone()[0])

    def _add_prompt(self, prompt: Prompt) -> int:
        messages = as_json(prompt.messages)
        key = hashlib.sha256(messages.encode()).hexdigest()
        row = self._db.execute("SELECT id FROM prompts WHERE key = ?", (key,)).fetchone()
        if row:
            return int(row[0])
        values = (key, messages, prompt.part, prompt.answer, prompt.source, as_json(prompt.meta), time.time())
        columns = "key, messages, part, answer, source, meta, created"
        return new_id(self._db.execute(f"INSERT INTO prompts ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", values))

    def _add_completion(self, prompt_id: int, one: Candidate) -> int:
        values = (prompt_id, one.run, one.k, one.text, one.checkpoint, as_json(one.sampling), one.ended, one.author)
        self._db.execute(
            "INSERT OR IGNORE INTO completions (prompt, run, k, text, checkpoint, sampling, ended, author, created) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, time.time()),
        )
        key = (one.run, prompt_id, one.k)
        return self._one("SELECT id FROM completions WHERE run = ? AND prompt = ? AND k = ?", *key)

    def _place_of(self, set_id: int, prompt_id: int, key: str) -> int | None:
        row = self._db.execute(
            "SELECT place FROM set_prompts WHERE set_id = ? AND prompt = ? AND key = ?", (set_id, prompt_id, key)
        ).fetchone()
        return row[0] if row else None

    def _free(self, set_id: int, annotator: str, after: int) -> tuple[int, int, str] | None:
        """The first place beyond `after` that this person has not judged and that enough others are not at."""
        done = "set_id = ?1 AND place = s.place AND kind <> 'flag'"
        row = self._db.execute(
            "SELECT place, prompt, candidates FROM set_prompts AS s WHERE set_id = ?1 AND place > ?3 "
            f"AND NOT EXISTS (SELECT 1 FROM in_force WHERE {done} AND annotator = ?2) "
            f"AND (SELECT count(*) FROM (SELECT annotator FROM in_force WHERE {done} AND origin = '' UNION "
            "  SELECT annotator || holder FROM leases WHERE set_id = ?1 AND place = s.place)) "
            "  < (SELECT people FROM sets WHERE id = ?1) ORDER BY place LIMIT 1",
            (set_id, annotator, after),
        ).fetchone()
        return row if row is None else (row[0], row[1], row[2])

    def _to_repeat(self, set_id: int, annotator: str) -> tuple[int, int, str, int] | None:
        """What this person judged and is due to be asked again: (place, prompt, candidates, the old label)."""
        share = self._db.execute("SELECT repeat_share FROM sets WHERE id = ?", (set_id,)).fetchone()[0]
        row = self._db.execute(
            "SELECT s.place, s.prompt, candidates, old.id FROM (SELECT * FROM labels WHERE annotator = ? "
            "  AND set_id = ? AND kind IN ('rank', 'pair', 'rate') ORDER BY id DESC LIMIT ? OFFSET ?) AS old "
            "JOIN set_prompts AS s ON s.set_id = old.set_id AND s.place = old.place "
            "WHERE repeats IS NULL AND old.id * 2654435761 % 4294967296 < ? * 4294967296.0 "
            "AND NOT EXISTS (SELECT 1 FROM labels WHERE repeats = old.id) "
            "AND NOT EXISTS (SELECT 1 FROM labels WHERE supersedes = old.id) ORDER BY old.id LIMIT 1",
            (annotator, set_id, REPEAT_WITHIN, REPEAT_AFTER, share),
        ).fetchone()
        return row if row is None else (row[0], row[1], row[2], row[3])

    def _shown(self, set_id: int, place: int, prompt_id: int, candidates: str, repeats: int | None = None) -> Shown:
        ids = msgspec.json.decode(candidates, type=list[int])
        random.SystemRandom().shuffle(ids)  # blind: the order says nothing of who wrote what
        return Shown(
            set_id=set_id,
            place=place,
            prompt_id=prompt_id,
            prompt=self.prompt(prompt_id),
            completions=self.completions(ids),
            repeats=repeats,
        )

    def _insert(self, label: Label) -> Label:
        _check(label)
        stored = insert_label(self._db, msgspec.structs.replace(label, created=time.time()))
        lease = (label.set_id, label.place, self._holder)
        self._db.execute("DELETE FROM leases WHERE set_id = ? AND place = ? AND holder = ?", lease)
        return stored


def _check(label: Label) -> None:
    """A label that does not fit what was shown is a mistake of ours."""
    for values in (label.ranks, label.scores):
        assert values is None or len(values) == len(label.shown), "a value for each completion that was shown"
    assert label.kind not in ("rank", "pair", "rate") or label.ranks is not None, "a judgement has ranks"


def _key(texts: Iterable[str]) -> str:
    """The same for the same texts in any order."""
    return hashlib.sha256(msgspec.json.encode(sorted(texts))).hexdigest()


def _text(candidate: Candidate) -> str:
    return candidate.text


def _signed(candidate: Candidate) -> str:
    """A text with who wrote it."""
    return as_json([candidate.checkpoint, candidate.text])


def part_for(messages: Sequence[Message], meta: dict[str, Any]) -> Part:
    """The part of a prompt: the one that its record names, else by hash."""
    named: Part | None = next((part for part in get_args(Part) if meta.get("part") == part), None)
    return named or part_of(list(messages))


@contextlib.contextmanager
def _trouble(path: Path) -> Iterator[None]:
    """SQLite's errors as sentences."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise WorkFailed(f"{path} was busy for {PATIENCE:.0f} seconds.", "Close what else is using it.") from error
        hint = "The label was not saved; nothing saved before is lost."
        where = f"{path} ({os.statvfs(path.parent).f_bavail * os.statvfs(path.parent).f_frsize / 1e6:,.0f} MB free)"
        raise WorkFailed(f"{where} cannot be written: {error}.", hint) from error
    except sqlite3.DatabaseError as error:
        raise WorkFailed(f"{path} is damaged: {error}.", "Restore a backup: `workbench labels restore`.") from error
