"""What the data doctor looks for: each finding counts the records that show it, and keeps a few with their places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.data.cleaning import excerpt
from stages.data.contamination import Contamination
from stages.data.judging import answers_of, has_empty_answer, labels_of, longest_line, prefers_nothing, prompt_of
from stages.data.judging import wrong_roles as roles_of
from stages.data.near_duplicates import NearDuplicates
from stages.data.rewriting import CONTROL, MOJIBAKE, repair_mojibake
from stages.data.seen import Seen, digest, record_digest
from stages.store.checks import Example, Finding
from stages.store.records import Record, texts_in

EXAMPLES = 5
LONG_LINE = 10_000
"""Characters of a line that is suspicious; prose and code have far shorter ones."""
COMMON = 0.05
"""Share of all answers from which one and the same answer is suspicious."""
COMMON_LEAST = 10
LOPSIDED = 10
"""How many times as frequent as the rarest label the most frequent one may be."""
COUNTED = 500_000
"""Different answers that are counted; those that first appear later are not."""
LABELS = 10_000
NEAR_LIMIT = 200_000
"""Records between which near duplicates are looked for."""

Look = Callable[[Record], str | None]
"""What is wrong with a record, as text to show; None when nothing is."""


class Watch:
    """Looks at every record for one thing."""

    def __init__(self, name: str, sentence: str, look: Look, *, advice: str = "", **fix: Any) -> None:
        self._name, self._sentence, self._look = name, sentence, look
        self._advice, self._fix = advice, fix
        self._count = 0
        self._examples: list[Example] = []

    def see(self, place: str, record: Record) -> None:
        """Look at a record."""
        shown = self._look(record)
        if shown is not None:
            self._count += 1
            if len(self._examples) < EXAMPLES:
                self._examples.append(Example(place, shown))

    def finding(self) -> Finding | None:
        """What was found, if anything was."""
        if not self._count:
            return None
        return Finding(self._name, self._sentence, self._count, self._examples, self._fix, self._advice)


def plain_watches() -> list[Watch]:
    """What can be seen in a record by itself."""
    return [
        Watch("empty records", "There is no text in them.", _empty, advice="A build drops them in any case."),
        Watch("empty answers", "An answer or a completion is empty.", _empty_answer, drop_empty_answers=True),
        Watch("roles", "A role is missing, or the turns do not alternate.", _roles, drop_bad_roles=True),
        Watch("ties", "All ranks are tied, or all completions equal: nothing is preferred.", _ties, drop_ties=True),
        Watch("mojibake", "UTF-8 was once read as Windows-1252: é became Ã©.", _mojibake, repair_mojibake=True),
        Watch(
            "replacement characters",
            "They hold U+FFFD: bytes that could not be decoded were lost before.",
            _replacement,
            advice="Read the original again with its right encoding.",
        ),
        Watch(
            "control characters",
            "They hold control characters other than newline and tab.",
            _control,
            control_characters=True,
        ),
        Watch("long lines", f"A line has more than {LONG_LINE:,} characters.", _long_line, max_line=LONG_LINE),
    ]


def duplicate_watches(folder: Path, seen: Seen, threshold: float, n: int) -> tuple[list[Watch], NearDuplicates]:
    """Exact duplicates, and near ones that are not exact. The index is in `folder`; close both."""
    near = NearDuplicates(folder / "near", threshold, n, NEAR_LIMIT)
    exact = False

    def is_exact(record: Record) -> str | None:
        nonlocal exact
        exact = seen.add(record_digest(record))
        return _shown(record) if exact else None

    def is_near(record: Record) -> str | None:
        return _shown(record) if not exact and near.is_known("\n".join(texts_in(record))) else None

    sentence = f"They share {threshold:.0%} of their {n}-character runs with an earlier record."
    watches = [
        Watch("duplicates", "They are exactly like an earlier record.", is_exact, deduplicate=True),
        Watch("near duplicates", sentence, is_near, near_duplicates=True),
    ]
    return watches, near


def contamination_watch(found: Contamination, names: list[str], n: int) -> Watch:
    """Records that repeat what evaluation sets ask."""

    def look(record: Record) -> str | None:
        return found.found(record) or None

    sentence = f"They share {n} words in a row, or a shorter prompt, with {', '.join(names)}."
    return Watch("contamination", sentence, look, decontaminate=names, decontaminate_ngram=n)


class Prompts:
    """Prompts that stand in several records, or, in a dataset, in several splits."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def repeated(self) -> Watch:
        """For sources: a prompt that came before, with another answer or the same."""

        def look(record: Record) -> str | None:
            prompt = prompt_of(record)
            return excerpt(prompt, 0) if prompt and self._seen.add(digest(prompt)) else None

        sentence = "Their prompt came before in another record."
        advice = "Several answers to one prompt are often meant; a split by documents keeps them together."
        return Watch("repeated prompts", sentence, look, advice=advice, unique_prompts=True)

    def shared(self, split: Callable[[], str]) -> Watch:
        """For a dataset whose splits are read validation first: prompts of training that validation has as well."""

        def look(record: Record) -> str | None:
            prompt = prompt_of(record)
            if not prompt:
                return None
            if split() != "train":
                self._seen.add(digest(prompt))
                return None
            return excerpt(prompt, 0) if digest(prompt) in self._seen else None

        sentence = "Their prompt stands in validation as well, which then measures memory."
        return Watch("shared prompts", sentence, look, unique_prompts=True)


class Answers:
    """One answer to many prompts."""

    def __init__(self) -> None:
        self._given: Counter[bytes] = Counter()
        self._first: dict[bytes, Example] = {}
        self._all = 0

    def see(self, place: str, record: Record) -> None:
        """Count a record's answers."""
        for answer in answers_of(record):
            self._all += 1
            key = digest(answer)[:8]
            if key in self._given or len(self._given) < COUNTED:
                self._given[key] += 1
                if self._given[key] == COMMON_LEAST:
                    self._first[key] = Example(place, excerpt(answer, 0))

    def finding(self) -> Finding | None:
        """The answers that are given too often, with how often."""
        most = max(COMMON_LEAST, int(COMMON * self._all))
        common = [(key, count) for key, count in self._given.most_common(EXAMPLES * 4) if count > most]
        if not common:
            return None
        examples = [
            Example(self._first[key].place, f"{count:,} ×  {self._first[key].text}") for key, count in common[:EXAMPLES]
        ]
        sentence = f"One answer is given to more than {COMMON:.0%} of the prompts."
        advice = "Where the answers are few by nature (yes and no), leave them."
        return Finding(
            "same answers", sentence, sum(count for _, count in common), examples, {"max_same_answer": most}, advice
        )


class Labels:
    """How often each label occurs."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def see(self, place: str, record: Record) -> None:
        """Count a record's labels."""
        for label in labels_of(record):
            if label in self.counts or len(self.counts) < LABELS:
                self.counts[label] += 1
                self._first.setdefault(label, place)

    def finding(self) -> Finding | None:
        """Labels that are rare beside the most frequent one."""
        if len(self.counts) < 2:
            return None
        most = self.counts.most_common(1)[0][1]
        rare = [(label, count) for label, count in reversed(self.counts.most_common()) if count * LOPSIDED < most]
        if not rare:
            return None
        examples = [Example(self._first[label], f"{count:,} ×  {label[:80]}") for label, count in rare[:EXAMPLES]]
        sentence = f"Labels less than a {LOPSIDED}th as frequent as the most frequent one ({most:,})."
        return Finding("rare labels", sentence, sum(count for _, count in rare), examples, {}, "Add examples of them.")


def _shown(record: Record) -> str:
    return excerpt("\n".join(texts_in(record)), 0)


def _empty(record: Record) -> str | None:
    return repr(_shown(record)) if not any(text.strip() for text in texts_in(record)) else None


def _empty_answer(record: Record) -> str | None:
    return _shown(record) if has_empty_answer(record) else None


def _roles(record: Record) -> str | None:
    wrong = roles_of(record)
    return f"{wrong} {_shown(record)}" if wrong else None


def _ties(record: Record) -> str | None:
    return _shown(record) if prefers_nothing(record) else None


def _mojibake(record: Record) -> str | None:
    for text in texts_in(record):
        if not text.isascii() and (found := MOJIBAKE.search(text)) and repair_mojibake(text) != text:
            return excerpt(text, found.start())
    return None


def _replacement(record: Record) -> str | None:
    return next((excerpt(t, t.index("\ufffd")) for t in texts_in(record) if "\ufffd" in t), None)


def _control(record: Record) -> str | None:
    for text in texts_in(record):
        plain = text.replace("\r\n", "\n")
        if found := CONTROL.search(plain):
            return excerpt(plain, found.start())
    return None


def _long_line(record: Record) -> str | None:
    texts = texts_in(record)
    if sum(map(len, texts)) <= LONG_LINE or (longest := longest_line(texts)) <= LONG_LINE:
        return None
    return f"{longest:,} characters: {_shown(record)}"
