"""Quality of documents by published rules that hold in any language; each compares a share with a limit.

Gopher: Rae et al., Scaling Language Models (arXiv 2112.11446), table A1 (repetition) and appendix A.1.1 (quality). C4:
Raffel et al., Exploring the Limits of Transfer Learning (arXiv 1910.10683), section 2.2. What they judge by English
words or punctuation (stop words, sentences that end in a full stop) is left out; in scripts without spaces a character
counts as a word, and the length of words is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from stages.data.hashing import UNSPACED_CHARACTER, Hashes, ngrams, word_hashes, words
from stages.store.specs.build import Build

LINES, LINE_CHARACTERS = 0.30, 0.20
"""Table A1: lines (or paragraphs) that repeat an earlier one, by number and by characters."""

TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
"""Table A1: characters within the most frequent n-gram of words."""

REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Table A1: characters within n-grams of words that repeat an earlier one."""

SYMBOL = re.compile(r"#|\.\.\.|…")
BULLETS = ("-", "*", "•", "●", "‣", "·")
ELLIPSES = ("...", "…")
UNSPACED_SHARE = 0.2
"""From this share of characters on, a text counts as one without spaces."""


class Page:
    """A document as the rules look at it; what several of them need is computed once."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank, without the space around them."""
        return [line.strip() for line in self.text.split("\n") if line.strip()]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What blank lines part."""
        return [part.strip() for part in re.split(r"\n\s*\n", self.text) if part.strip()]

    @cached_property
    def words(self) -> list[str]:
        """Its words, in order."""
        return words(self.text)

    @cached_property
    def hashes(self) -> Hashes:
        """A hash of each word, in order."""
        return word_hashes(self.words)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Characters of each word."""
        return np.fromiter(map(len, self.words), np.int64, len(self.words))

    @cached_property
    def unspaced(self) -> bool:
        """Whether it is written without spaces between words."""
        return not self.text.isascii() and len(UNSPACED_CHARACTER.findall(self.text)) > UNSPACED_SHARE * len(self.text)


class Rule(NamedTuple):
    """One reason to drop a document."""

    name: str
    sentence: str
    breaks: Callable[[Page], bool]


def rules(settings: Build) -> list[Rule]:
    """The rules that the settings turn on, the cheap ones first; none without `quality`."""
    return [*_word_rules(settings), *_line_rules(settings), *_repetition_rules(settings)] if settings.quality else []


def _word_rules(settings: Build) -> list[Rule]:
    low, high = settings.min_mean_word, settings.max_mean_word
    found = []
    if settings.drop_placeholders:
        found.append(Rule("placeholder text", "Dropped documents with “lorem ipsum” (C4).", _is_placeholder))
    if (fewest := settings.min_words) is not None:
        sentence = f"Dropped documents of fewer than {fewest:,} words (Gopher)."
        found.append(Rule("words", sentence, lambda page: len(page.words) < fewest))
    if low is not None or high is not None:
        least, most = low or 0.0, high or float("inf")
        sentence = f"Dropped documents whose words have fewer than {least:g} or more than {most:g} letters on average"
        found.append(
            Rule("mean word length", f"{sentence} (Gopher).", lambda page: not least <= mean_word(page, least) <= most)
        )
    if (most_symbols := settings.max_symbols) is not None:
        sentence = f"Dropped documents with more than {most_symbols:g} hashes and ellipses a word (Gopher)."
        found.append(Rule("symbols", sentence, lambda page: symbols(page) > most_symbols))
    if (alphabetic := settings.min_alphabetic) is not None:
        sentence = f"Dropped documents of which fewer than {alphabetic:.0%} of the words have a letter (Gopher)."
        found.append(Rule("words without letters", sentence, lambda page: with_letters(page) < alphabetic))
    return found


def _line_rules(settings: Build) -> list[Rule]:
    found = []
    if (bullets := settings.max_bullet_lines) is not None:
        sentence = f"Dropped documents of which more than {bullets:.0%} of the lines start with a bullet (Gopher)."
        found.append(Rule("bullets", sentence, lambda page: share_of(page.lines, _is_bullet) > bullets))
    if (ellipses := settings.max_ellipsis_lines) is not None:
        sentence = f"Dropped documents of which more than {ellipses:.0%} of the lines end in an ellipsis (Gopher)."
        found.append(Rule("ellipses", sentence, lambda page: share_of(page.lines, _is_cut) > ellipses))
    return found


def _repetition_rules(settings: Build) -> list[Rule]:
    times = settings.max_repetition
    if times is None:
        return []
    limits = "Gopher's limits" if times == 1 else f"{times:g} × Gopher's limits"
    return [
        Rule(
            "repeated lines",
            f"Dropped documents whose lines or paragraphs repeat beyond {limits}.",
            lambda page: repeats(page.lines, times) or repeats(page.paragraphs, times),
        ),
        Rule(
            "repeated words",
            f"Dropped documents whose word n-grams (2 to 10) repeat beyond {limits}.",
            lambda page: repeats_ngrams(page, times),
        ),
    ]


def mean_word(page: Page, otherwise: float) -> float:
    """Characters of a word on average; `otherwise` where words cannot be told apart or there are none."""
    return otherwise if page.unspaced or not page.words else float(page.lengths.mean())


def symbols(page: Page) -> float:
    """Hashes and ellipses for each word."""
    return len(SYMBOL.findall(page.text)) / max(1, len(page.words))


def with_letters(page: Page) -> float:
    """The share of words that have a letter."""
    return share_of(page.words, lambda word: word.isalpha() or any(map(str.isalpha, word)), empty=1.0)


def share_of(parts: list[str], is_one: Callable[[str], bool], empty: float = 0.0) -> float:
    """The share of parts of which something holds; `empty` when there are none."""
    return sum(map(is_one, parts)) / len(parts) if parts else empty


def repeats(parts: list[str], times: float) -> bool:
    """Whether lines or paragraphs that repeat an earlier one are too many, or too much of the text."""
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count += 1
            characters += len(part)
        seen.add(part)
    return count > times * LINES * len(parts) or characters > times * LINE_CHARACTERS * sum(map(len, parts))


def repeats_ngrams(page: Page, times: float) -> bool:
    """Whether n-grams of words take too large a share of the characters, spaces not counted."""
    total = int(page.lengths.sum())
    if not total:
        return False
    starts = np.concatenate([[0], np.cumsum(page.lengths)])
    for n, limit in TOP_NGRAM.items():
        if top_ngram(page, starts, n) > times * limit * total:
            return True
    return any(repeated(page, n) > times * limit * total for n, limit in REPEATED_NGRAMS.items())


def top_ngram(page: Page, starts: np.ndarray, n: int) -> int:
    """Characters within all occurrences of the most frequent n-gram; 0 when none occurs twice."""
    _, first, counts = np.unique(ngrams(page.hashes, n), return_index=True, return_counts=True)
    if not len(counts) or counts.max() < 2:
        return 0
    size = starts[first + n] - starts[first]
    return int((size * counts)[counts == counts.max()].max())


def repeated(page: Page, n: int) -> int:
    """Characters of words within an n-gram that occurred before; a word in several is counted once."""
    found = ngrams(page.hashes, n)
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse] != np.arange(len(found)))
    covered = np.zeros(len(page.words) + 1, np.int64)
    np.add.at(covered, again, 1)
    np.add.at(covered, again + n, -1)
    return int(page.lengths[np.cumsum(covered)[:-1] > 0].sum())


def _is_placeholder(page: Page) -> bool:
    return "lorem ipsum" in page.text.lower()


def _is_bullet(line: str) -> bool:
    return line.startswith(BULLETS)


def _is_cut(line: str) -> bool:
    return line.endswith(ELLIPSES)
