"""labels.db: what people judged, kept such that an acknowledged label is never lost.

Every method that writes returns only when the row is on the disk: rollback journal, synchronous=EXTRA (SQLite before
3.51.3 can lose commits in WAL mode with several writers). Two processes may write at once; the second waits a moment.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from stages.store.errors import UserError
from stages.store.labels import giving, spans
from stages.store.labels.migration import prepare
from stages.store.labels.records import Candidate, Completion, Label, LabelSet, Mode, Prompt, Shown
from stages.store.labels.rows import COLUMNS, as_json, insert_label, label_of, new_id
from stages.store.labels.trouble import PATIENCE, begin_writing, trouble
from stages.store.names import check_name, nearest
from stages.store.records import Message, Part, part_of


def open_labels(path: Path) -> Labels:
    """The labels at `path`, made where there are none, and brought up to date where they are of an older version.

    UserError when they cannot be opened, or are damaged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"{path} cannot be opened: {error}.", "Is its folder there, and yours to write?") from error
    try:
        with trouble(path):
            for pragma in ("journal_mode = DELETE", "synchronous = EXTRA", "foreign_keys = ON"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return Labels(path, connection)


class Labels:
    """One connection to labels.db. A context manager; to be used by one thread at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = connection
        self._holder = giving.new_holder()

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
        return [_set_of(row) for row in self._rows(f"{_SETS} ORDER BY created DESC, id DESC")]

    def find_set(self, name: str) -> LabelSet:
        """The set of this name; UserError naming the nearest otherwise."""
        rows = self._rows(f"{_SETS} WHERE name = ?", name)
        if not rows:
            names = [one for (one,) in self._rows("SELECT name FROM sets")]
            raise UserError(f"There is no label set {name!r}.", nearest(name, names))
        return _set_of(rows[0])

    def place_by_writer(self, set_id: int, prompt_id: int, candidates: Iterable[Candidate]) -> int | None:
        """The place at which `add_set` with `by_writer` has put these candidates, all of them distinct."""
        with trouble(self.path):
            return self._place_of(set_id, prompt_id, _key(map(_signed, candidates)))

    def place_of(self, set_id: int, prompt_id: int, texts: Iterable[str]) -> int | None:
        """The place in a set at which these texts are the candidates of a prompt, in whatever order."""
        with trouble(self.path):
            return self._place_of(set_id, prompt_id, _key(dict.fromkeys(texts)))

    # -- work --------------------------------------------------------------------------------------------------------

    def next(self, set_id: int, annotator: str, *, after: int = -1) -> Shown | None:
        """The next prompt for this person, from beyond place `after` and then from the start; None when all is done.

        It is leased to this connection: nobody else is given it meanwhile. The same person may see one again, at the
        set's `repeat_share` (chosen by hash of the label), some while after the first time.
        """
        with self._writing():
            giving.end_leases(self._db, self._holder)
            again = giving.to_repeat(self._db, set_id, annotator)
            if again is not None:
                place, repeats = again
                return self._shown(set_id, place, repeats)
            free = giving.free_place(self._db, set_id, annotator, after)
            if free is None:
                return None
            giving.lease(self._db, set_id, free, annotator, self._holder)
            return self._shown(set_id, free)

    def at(self, set_id: int, place: int) -> Shown | None:
        """The prompt at a place of a set, labelled or not."""
        with trouble(self.path):
            there = self._rows("SELECT 1 FROM set_prompts WHERE set_id = ? AND place = ?", set_id, place)
            return self._shown(set_id, place) if there else None

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

    def write(
        self,
        shown: Shown,
        annotator: str,
        text: str,
        *,
        best: bool,
        others: Sequence[int] | None = None,
        **fields: Any,
    ) -> list[Label]:
        """Store an answer that a person wrote. With `best` it is also ranked above all completions that were shown.

        `others` are the ranks of those among each other; left out, they are tied. `fields` are those of Label, for the
        ranking where there is one.
        """
        with self._writing():
            run = f"written:{annotator}"
            k = self._one(
                "SELECT coalesce(max(k) + 1, 0) FROM completions WHERE run = ? AND prompt = ?", run, shown.prompt_id
            )
            id_ = self._add_completion(shown.prompt_id, Candidate(run=run, k=k, text=text, author=annotator))
            if not best or not shown.completions:
                return [self._insert(shown.label("write", annotator, completion=id_, **fields))]
            mine = Completion(id=id_, text=text, checkpoint="", ended="end", author=annotator)
            wider = msgspec.structs.replace(shown, completions=[mine, *shown.completions])
            ranks = [1, *(1 + rank for rank in others or [1] * len(shown.completions))]
            ranking = self._insert(wider.label("rank", annotator, ranks=ranks, **fields))
            return [ranking, self._insert(shown.label("write", annotator, completion=id_))]

    def undo(self, label: Label) -> list[Label]:
        """Take a label back, and with an answer the ranking that it is the best of, which is returned.

        They stay in the file, with rows that say so; what they had replaced is in force again.
        """
        with self._writing():
            together = self._ranked_with(label)
            for one in (label, *together):
                undone = Label(
                    id=0,
                    kind="undo",
                    set_id=one.set_id,
                    place=one.place,
                    prompt_id=one.prompt_id,
                    annotator=one.annotator,
                    supersedes=one.id,
                )
                self._insert(undone)
        return together

    def _ranked_with(self, label: Label) -> list[Label]:
        """The ranking that was stored together with a written answer, if that was to be the best."""
        if label.kind != "write":
            return []
        which = "id = ? AND kind = 'rank' AND annotator = ? AND EXISTS (SELECT 1 FROM json_each(shown) WHERE value = ?)"
        values = (label.id - 1, label.annotator, label.completion)
        rows = self._rows(f"SELECT {COLUMNS} FROM in_force WHERE {which}", *values)
        return [label_of(row) for row in rows]

    # -- reading -----------------------------------------------------------------------------------------------------

    def labels(self, set_id: int | None = None, *, annotator: str | None = None, history: bool = False) -> list[Label]:
        """Labels in the order in which they were given: those in force, or with `history` every row."""
        wheres = {"set_id = ?": set_id, "annotator = ?": annotator}
        chosen = {where: value for where, value in wheres.items() if value is not None}
        condition = " AND ".join(["1", *chosen])
        table = "labels" if history else "in_force"
        rows = self._rows(f"SELECT {COLUMNS} FROM {table} WHERE {condition} ORDER BY id", *chosen.values())
        return [label_of(row) for row in rows]

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

    # -- the inside --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction that holds the file for writing from its start."""
        with trouble(self.path):
            begin_writing(self._db)
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

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

    def _shown(self, set_id: int, place: int, repeats: int | None = None) -> Shown:
        sql = "SELECT prompt, candidates FROM set_prompts WHERE set_id = ? AND place = ?"
        ((prompt_id, candidates),) = self._rows(sql, set_id, place)
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
        if label.supersedes is not None and not self._rows("SELECT 1 FROM in_force WHERE id = ?", label.supersedes):
            raise UserError("That label was taken back or replaced meanwhile.", "Go to its prompt again to see it.")
        stored = insert_label(self._db, msgspec.structs.replace(label, created=time.time()))
        spans.refresh(self._db, label.set_id, label.place, label.annotator)
        lease = (label.set_id, label.place, self._holder)
        self._db.execute("DELETE FROM leases WHERE set_id = ? AND place = ? AND holder = ?", lease)
        return stored


_SETS = (
    "SELECT id, name, mode, people, repeat_share, created, "
    "(SELECT coalesce(max(place) + 1, 0) FROM set_prompts WHERE set_id = sets.id) FROM sets"
)


def _set_of(row: tuple[Any, ...]) -> LabelSet:
    id_, name, mode, people, share, created, prompts = row
    return LabelSet(id=id_, name=name, mode=mode, people=people, repeat_share=share, created=created, prompts=prompts)


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
