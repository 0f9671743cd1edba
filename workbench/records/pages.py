"""Rows of something long, fetched a page at a time: first those in view, then their neighbours."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Generic, TypeVar

from stages.store.errors import UserError

PAGE = 64
"""Rows of a page."""
KEPT = 64
"""Pages that are kept."""

Row = TypeVar("Row")


class Pages(Generic[Row]):
    """Keeps pages by number and fetches what is wanted, one at a time: the newest wish is always the next."""

    def __init__(
        self,
        total: int,
        fetch: Callable[[int, int], Awaitable[Sequence[Row]]],
        arrived: Callable[[], object],
        failed: Callable[[UserError], object],
    ) -> None:
        """`fetch(start, count)` brings rows; `arrived` is called after each page, `failed` when one cannot be had."""
        self.total = total
        self._fetch, self._arrived, self._failed = fetch, arrived, failed
        self._kept: OrderedDict[int, Sequence[Row]] = OrderedDict()
        self._wanted = (0, 0)
        self._ahead = 1
        self._task: asyncio.Task[None] | None = None

    def row(self, at: int) -> Row | None:
        """The row at a place, if it is here."""
        page, offset = divmod(at, PAGE)
        rows = self._kept.get(page, ())
        return rows[offset] if offset < len(rows) else None

    def want(self, first: int, last: int) -> None:
        """See to it that the rows from `first` to `last` come, and then what one may look at next."""
        if first != self._wanted[0]:
            self._ahead = 1 if first > self._wanted[0] else -1
        self._wanted = (first, last)
        if (self._task is None or self._task.done()) and next(self._missing(), None) is not None:
            self._task = asyncio.create_task(self._load())

    def close(self) -> None:
        """Fetch no more."""
        if self._task is not None:
            self._task.cancel()

    async def _load(self) -> None:
        while (page := next(self._missing(), None)) is not None:
            try:
                self._kept[page] = await self._fetch(page * PAGE, PAGE)
            except UserError as error:
                self._failed(error)
                return
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            self._arrived()

    def _missing(self) -> Iterator[int]:
        """Pages to fetch: those in view, then the next in the direction of reading, then the other neighbour."""
        first, last = (max(0, min(at, self.total - 1)) // PAGE for at in self._wanted)
        if self.total <= 0:
            return
        view = range(first, last + 1)
        ahead, behind = (last + 1, first - 1) if self._ahead > 0 else (first - 1, last + 1)
        for page in (*view, ahead, behind):
            if page in self._kept:
                self._kept.move_to_end(page)
            elif 0 <= page * PAGE < self.total:
                yield page
