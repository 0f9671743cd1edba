"""labels.db: what people judged, kept such that an acknowledged label is never lost.

Every method that writes returns only when the row is on the disk: rollback journal, synchronous=EXTRA (SQLite before
3.51.3 can lose commits in WAL mode with several writers). Two processes may write at once; the second waits a moment.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stages.store.errors import UserError
from stages.store.labels import adding, giving, spans
from stages.store.labels.migration import prepare
from stages.store.labels.reading import LabelReader
from stages.store.labels.records import Candidate, Completion, Label, LabelSet, Mode, Prompt, Shown
from stages.store.labels.rows import insert_label, new_id
from stages.store.labels.trouble import PATIENCE, begin_writing, trouble
from stages.store.names import check_name


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


class Labels(LabelReader):
    """One connection to labels.db, to read and to write. A context manager; to be used by one thread at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        super().__init__(path, connection)
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

    def add_prompt(self, prompt: Prompt) -> int:
        """The id of a prompt; a conversation that is there already keeps its row."""
        with self._writing():
            return adding.add_prompt(self._db, prompt)

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
            adding.add_places(self._db, set_id, tasks, by_writer=by_writer)
        return self.find_set(name)

    def place_by_writer(self, set_id: int, prompt_id: int, candidates: Iterable[Candidate]) -> int | None:
        """The place at which `add_set` with `by_writer` has put these candidates, all of them distinct."""
        with trouble(self.path):
            return adding.place_of(self._db, set_id, prompt_id, adding.key_of_writers(candidates))

    def place_of(self, set_id: int, prompt_id: int, texts: Iterable[str]) -> int | None:
        """The place in a set at which these texts are the candidates of a prompt, in whatever order."""
        with trouble(self.path):
            return adding.place_of(self._db, set_id, prompt_id, adding.key_of(dict.fromkeys(texts)))

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
                return self._blind(set_id, place, repeats)
            free = giving.free_place(self._db, set_id, annotator, after)
            if free is None:
                return None
            giving.lease(self._db, set_id, free, annotator, self._holder)
            return self._blind(set_id, free)

    def at(self, set_id: int, place: int) -> Shown | None:
        """The prompt at a place of a set, labelled or not."""
        with trouble(self.path):
            there = self._rows("SELECT 1 FROM set_prompts WHERE set_id = ? AND place = ?", set_id, place)
            return self._blind(set_id, place) if there else None

    def shown_as(self, label: Label) -> Shown:
        """The prompt of a label with the completions in the order in which they were shown then."""
        return self._shown(label.set_id, label.place, label.prompt_id, label.shown, label.repeats)

    def save(self, label: Label) -> Label:
        """Store one act, made by `Shown.label`; it is on the disk when this returns, with its id.

        What the same person said of the same place meanwhile, on another screen, is superseded: nobody counts twice.
        """
        with self._writing():
            return self._insert(self._in_its_place(label))

    def save_all(self, labels: Iterable[Label]) -> int:
        """Store many at once, all or none; how many there were."""
        with self._writing():
            return len([self._insert(label) for label in labels])

    def add_prompts(self, prompts: Iterable[Prompt]) -> list[int]:
        """The ids of prompts, in order."""
        with self._writing():
            return [adding.add_prompt(self._db, prompt) for prompt in prompts]

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
            id_ = adding.add_completion(self._db, shown.prompt_id, Candidate(run=run, k=k, text=text, author=annotator))
            if not best or not shown.completions:
                written = shown.label("write", annotator, completion=id_, **fields)
                return [self._insert(self._in_its_place(written))]
            mine = Completion(id=id_, text=text, checkpoint="", ended="end", author=annotator)
            wider = msgspec.structs.replace(shown, completions=[mine, *shown.completions])
            ranks = [1, *(1 + rank for rank in others or [1] * len(shown.completions))]
            ranking = self._insert(self._in_its_place(wider.label("rank", annotator, ranks=ranks, **fields)))
            written = self._in_its_place(shown.label("write", annotator, completion=id_), beside_ranking=True)
            return [ranking, self._insert(written)]

    def undo(self, label: Label) -> list[Label]:
        """Take a label back, and with an answer the ranking that it is the best of, which is returned.

        They stay in the file, with rows that say so; what they had replaced is in force again.
        """
        with self._writing():
            ranking = self.ranked_with(label)
            together = [ranking] if ranking is not None else []
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

    def ranked_with(self, label: Label) -> Label | None:
        """The ranking that was stored together with a written answer, if that was to be the best and it stands."""
        if label.kind != "write":
            return None
        which = "id = ? AND kind = 'rank' AND annotator = ? AND EXISTS (SELECT 1 FROM json_each(shown) WHERE value = ?)"
        return self._latest(which, label.id - 1, label.annotator, label.completion)

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

    def _blind(self, set_id: int, place: int, repeats: int | None = None) -> Shown:
        """What stands at a place, its completions shuffled: their order says nothing of who wrote what."""
        sql = "SELECT prompt, candidates FROM set_prompts WHERE set_id = ? AND place = ?"
        ((prompt_id, candidates),) = self._rows(sql, set_id, place)
        ids = msgspec.json.decode(candidates, type=list[int])
        random.SystemRandom().shuffle(ids)
        return self._shown(set_id, place, prompt_id, ids, repeats)

    def _shown(self, set_id: int, place: int, prompt_id: int, ids: Sequence[int], repeats: int | None) -> Shown:
        return Shown(
            set_id=set_id,
            place=place,
            prompt_id=prompt_id,
            prompt=self.prompt(prompt_id),
            completions=self.completions(ids),
            repeats=repeats,
        )

    def _in_its_place(self, label: Label, *, beside_ranking: bool = False) -> Label:
        """The label, in the place of what the same person said here and of which whoever gave this one did not know.

        An answer takes the place of an answer, a judgement that of a judgement; each that of the other only where it
        stands alone, and not `beside_ranking`. What was asked again, or settles a disagreement, stands beside the rest.
        """
        beside = label.kind in ("flag", "undo") or label.origin or label.repeats is not None or label.settles
        if beside or label.supersedes is not None:
            return label
        which = "set_id = ? AND place = ? AND annotator = ? AND kind <> 'flag' AND origin = '' AND repeats IS NULL"
        where = (label.set_id, label.place, label.annotator)
        alike = "kind = 'write'" if label.kind == "write" else "kind <> 'write'"
        standing = self._latest(f"{which} AND {alike}", *where)
        if standing is None and not beside_ranking:
            standing = self._latest(which, *where)
        return label if standing is None else msgspec.structs.replace(label, supersedes=standing.id)

    def _insert(self, label: Label) -> Label:
        _check(label)
        if label.supersedes is not None and not self._rows("SELECT 1 FROM in_force WHERE id = ?", label.supersedes):
            raise UserError("That label was taken back or replaced meanwhile.", "Go to its prompt again to see it.")
        stored = insert_label(self._db, msgspec.structs.replace(label, created=time.time()))
        spans.refresh(self._db, label.set_id, label.place, label.annotator)
        lease = (label.set_id, label.place, self._holder)
        self._db.execute("DELETE FROM leases WHERE set_id = ? AND place = ? AND holder = ?", lease)
        return stored


def _check(label: Label) -> None:
    """A label that does not fit what was shown is a mistake of ours."""
    for values in (label.ranks, label.scores):
        assert values is None or len(values) == len(label.shown), "a value for each completion that was shown"
    assert label.kind not in ("rank", "pair", "rate") or label.ranks is not None, "a judgement has ranks"
