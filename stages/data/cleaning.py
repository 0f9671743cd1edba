"""Cleaning records of every kind: changes to their texts, then reasons to drop them; each with its counts.

Everything is in the order of the records and depends on nothing else, so that the same records give the same result.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from stages.data.contamination import Contamination, evaluation_records
from stages.data.judging import answers_of, has_empty_answer, longest_line, prefers_nothing, prompt_of, wrong_roles
from stages.data.near_duplicates import NearDuplicates
from stages.data.quality import Page, Rule, rules
from stages.data.rewriting import changes, rewritten
from stages.data.seen import Seen, digest, record_digest
from stages.store.datasets import Filter
from stages.store.records import Record, texts_in
from stages.store.specs.build import Build
from stages.store.workspace import Workspace

EXAMPLES, SHOWN = 3, 80

Drops = Callable[[Record], bool]


class FilterCounts:
    """What one filter did, for the report."""

    def __init__(self, name: str, sentence: str) -> None:
        self._name, self.sentence = name, sentence
        self._removed = self._changed = 0
        self._examples: list[str] = []

    def removed(self, text: str) -> None:
        """Count a record that was dropped."""
        self._removed += 1
        self._show(text, 0)

    def changed(self, before: str, after: str) -> None:
        """Count a record that was altered; the example shows where that begins, as it was."""
        self._changed += 1
        if len(self._examples) < EXAMPLES:
            self._show(before, _first_difference(before, after))

    def filter(self) -> Filter:
        """The line of the report."""
        return Filter(self._name, self.sentence, self._removed, self._changed, self._examples)

    def _show(self, text: str, place: int) -> None:
        if len(self._examples) < EXAMPLES:
            self._examples.append(excerpt(text, place))


class Cleaner:
    """Cleans one record after the other and keeps count. What it must remember beyond memory goes into `folder`.

    `workspace` is where the datasets of `decontaminate` are. Raises UserError for one that there is not.
    """

    def __init__(self, settings: Build, folder: Path | None = None, workspace: Workspace | None = None) -> None:
        self._settings = settings
        self._folder = folder or Path(tempfile.gettempdir())
        self._closing: list[Callable[[], None]] = []
        self._near: tuple[FilterCounts, NearDuplicates] | None = None
        self._changes = [(FilterCounts(name, sentence), change) for name, sentence, change in changes(settings)]
        self._drops: list[tuple[FilterCounts, Drops]] = []
        self._drop_unfit(settings)
        self._drop_contaminated(settings, workspace)
        self._drop_known(settings)

    def clean(self, record: Record) -> Record | None:
        """The cleaned record, or None when it is dropped."""
        for counts, change in self._changes:
            after = rewritten(record, change)
            if after is not record:
                counts.changed(shown_text(record), shown_text(after))
                record = after
        for counts, drops in self._drops:
            if drops(record):
                counts.removed(shown_text(record))
                return None
        return record

    def filters(self) -> list[Filter]:
        """What each filter that was on has done, in their order."""
        if self._near is not None and (skipped := self._near[1].not_compared):
            counts = self._near[0]
            limit = self._settings.near_duplicate_limit
            counts.sentence = f"{_near_sentence(self._settings)} Off after {limit:,} records: {skipped:,} not compared."
        return [counts.filter() for counts, _ in [*self._changes, *self._drops]]

    def close(self) -> None:
        """Remove what was kept on disk."""
        for close in self._closing:
            close()

    def _add(self, name: str, sentence: str, drops: Drops) -> FilterCounts:
        counts = FilterCounts(name, sentence)
        self._drops.append((counts, drops))
        return counts

    def _drop_unfit(self, settings: Build) -> None:
        self._add("length", _length_sentence(settings), lambda record: not self._fits(texts_in(record)))
        if (longest := settings.max_line) is not None:
            sentence = f"Dropped records with a line of more than {longest:,} characters."
            self._add("long lines", sentence, lambda record: longest_line(texts_in(record)) > longest)
        if settings.drop_empty_answers:
            self._add("empty answers", "Dropped records with an empty answer or completion.", has_empty_answer)
        if settings.drop_bad_roles:
            sentence = "Dropped conversations without an answer, or whose turns do not alternate."
            self._add("roles", sentence, lambda record: bool(wrong_roles(record)))
        if settings.drop_ties:
            self._add("ties", "Dropped rankings that prefer nothing.", prefers_nothing)
        for rule in rules(settings):
            self._add(rule.name, rule.sentence, _breaks(rule))

    def _drop_contaminated(self, settings: Build, workspace: Workspace | None) -> None:
        if not settings.decontaminate:
            return
        n = settings.decontaminate_ngram
        found = Contamination(evaluation_records(settings.decontaminate, workspace), n)
        sentence = f"Dropped records that share {n} words in a row, or a shorter prompt, with "
        self._add(
            "contamination",
            f"{sentence}{', '.join(settings.decontaminate)}.",
            lambda record: bool(found.found(record)),
        )

    def _drop_known(self, settings: Build) -> None:
        if settings.deduplicate:
            seen = self._seen("exact")
            self._add(
                "duplicates",
                "Dropped records that are exactly like an earlier one.",
                lambda record: seen.add(record_digest(record)),
            )
        if settings.near_duplicates:
            self._drop_near(settings)
        if settings.unique_prompts:
            prompts = self._seen("prompts")
            self._add(
                "prompts",
                "Dropped records whose prompt had come before.",
                lambda record: bool(prompt := prompt_of(record)) and prompts.add(digest(prompt)),
            )
        if (most := settings.max_same_answer) is not None:
            same = SameAnswers(most)
            self._add("same answers", f"Kept {most:,} records with one and the same answer.", same.too_many)

    def _drop_near(self, settings: Build) -> None:
        near = NearDuplicates(
            self._folder / ".near-duplicates",
            settings.near_duplicate_threshold,
            settings.near_duplicate_ngram,
            settings.near_duplicate_limit,
        )
        self._closing.append(near.close)
        counts = self._add(
            "near duplicates", _near_sentence(settings), lambda record: near.is_known("\n".join(texts_in(record)))
        )
        self._near = counts, near

    def _seen(self, name: str) -> Seen:
        seen = Seen(self._folder / f".seen-{name}")
        self._closing.append(seen.close)
        return seen

    def _fits(self, texts: list[str]) -> bool:
        longest = self._settings.max_characters
        visible = sum(len(text.strip()) for text in texts)
        fits = longest is None or sum(map(len, texts)) <= longest
        return visible >= max(1, self._settings.min_characters) and fits


class SameAnswers:
    """Counts answers, and says when a record's answer has been given often enough."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._given: Counter[bytes] = Counter()

    def too_many(self, record: Record) -> bool:
        """Whether each answer of the record has been kept as often as is allowed; if not, they are counted."""
        given = [digest(answer) for answer in answers_of(record)]
        if given and all(self._given[answer] >= self._most for answer in given):
            return True
        self._given.update(given)
        return False


def shown_text(record: Record) -> str:
    """A record's texts as one, for an example."""
    return "\n".join(texts_in(record))


def excerpt(text: str, place: int) -> str:
    """About SHOWN characters around `place`, on one line."""
    start = max(0, place - SHOWN // 2)
    part = text[start : start + SHOWN].replace("\n", "⏎")
    return ("…" if start else "") + part + ("…" if start + SHOWN < len(text) else "")


def _breaks(rule: Rule) -> Drops:
    return lambda record: rule.breaks(Page(shown_text(record)))


def _first_difference(before: str, after: str) -> int:
    pairs = enumerate(zip(before, after, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(before), len(after)))


def _near_sentence(settings: Build) -> str:
    similar, n = settings.near_duplicate_threshold, settings.near_duplicate_ngram
    return f"Dropped records that share {similar:.0%} of their {n}-character runs with an earlier one (MinHash)."


def _length_sentence(settings: Build) -> str:
    if settings.min_characters <= 1:
        sentence = "Dropped records that are empty, or spaces alone"
    else:
        sentence = f"Dropped records of fewer than {settings.min_characters:,} characters, spaces around not counted"
    longest = settings.max_characters
    return sentence + (f", or more than {longest:,}." if longest is not None else ".")
