"""What a person has said of the candidates before them so far: an order with ties, or a rating for each."""

from __future__ import annotations

from collections.abc import Sequence

from stages.store.labels.records import BEST, WORST

ORDINALS = ("1st", "2nd", "3rd", *(f"{number}th" for number in range(4, 10)))


class Order:
    """An order of `count` candidates, best first. Digits append, a tie joins the next digit to the group before."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.groups: list[list[int]] = []
        """Candidates by number from 0, in groups that are tied."""
        self.tying = False

    @property
    def ranked(self) -> list[int]:
        return [one for group in self.groups for one in group]

    @property
    def left(self) -> list[int]:
        """The candidates that have no rank yet."""
        ranked = set(self.ranked)
        return [one for one in range(self.count) if one not in ranked]

    def append(self, candidate: int) -> bool:
        """Put a candidate next; False when there is none of that number, or it is ranked already."""
        if candidate not in self.left:
            return False
        if self.tying:
            self.groups[-1].append(candidate)
        else:
            self.groups.append([candidate])
        self.tying = False
        return True

    def tie(self) -> bool:
        """Have the next candidate share the rank of the last; a second time not. False with nothing to tie."""
        self.tying = bool(self.groups) and bool(self.left) and not self.tying
        return bool(self.groups)

    def back(self) -> bool:
        """Take the last step back; False when there is none."""
        if self.tying:
            self.tying = False
        elif self.groups:
            self.groups[-1].pop()
            if not self.groups[-1]:
                self.groups.pop()
        else:
            return False
        return True

    def only(self, candidate: int) -> None:
        """This one is the best, of the others nothing is said."""
        self.groups, self.tying = [[candidate]], False

    def ranks(self) -> list[int]:
        """The rank of each candidate: 1 is best, ties are equal, and what is unranked comes last, tied."""
        ranks = [len(self.groups) + 1] * self.count
        for rank, group in enumerate(self.groups, 1):
            for candidate in group:
                ranks[candidate] = rank
        return ranks

    def standing(self, candidate: int) -> str:
        """Where a candidate stands, as `2nd`, or `=2nd` when it is tied; empty while it has no rank."""
        for rank, group in enumerate(self.groups, 1):
            if candidate in group:
                return f"{'=' if len(group) > 1 else ''}{ORDINALS[rank - 1]}"
        return ""

    def restore(self, ranks: Sequence[int]) -> None:
        """Stand as when these ranks were given."""
        best = sorted(set(ranks))
        self.groups = [[one for one, rank in enumerate(ranks) if rank == value] for value in best]
        self.tying = False

    def __str__(self) -> str:
        told = " > ".join(" = ".join(str(one + 1) for one in group) for group in self.groups)
        return f"{told} = …" if self.tying else told


class Ratings:
    """A rating from WORST to BEST for each candidate, given to one after the other."""

    def __init__(self, count: int) -> None:
        self.scores: list[int | None] = [None] * count
        self.current = 0

    @property
    def complete(self) -> bool:
        return None not in self.scores

    def rate(self, score: int) -> bool:
        """Rate the current candidate and go on to the next that has none; False for what is off the scale."""
        if not WORST <= score <= BEST:
            return False
        self.scores[self.current] = score
        self.current = next((one for one, given in enumerate(self.scores) if given is None), self.current)
        return True

    def back(self) -> bool:
        """Take the rating of the current candidate back, or the last that was given."""
        given = [one for one, score in enumerate(self.scores) if score is not None]
        if not given:
            return False
        self.current = self.current if self.scores[self.current] is not None else given[-1]
        self.scores[self.current] = None
        return True

    def ranks(self) -> list[int]:
        """Ranks that follow from the ratings, equal ones tied. To be asked for when all are there."""
        order = sorted({score for score in self.scores if score is not None}, reverse=True)
        return [order.index(score) + 1 for score in self.scores if score is not None]
