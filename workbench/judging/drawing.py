"""Prompts drawn from a dataset: in random order, each once before any comes again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from stages.store.labels import Prompt
from workbench.judging.label_sets import decoded, tasks_of

if TYPE_CHECKING:
    from workbench.talking.desk_client import DeskClient


class Drawing:
    """One dataset in one sitting. The desk reads the records."""

    def __init__(self, desk: DeskClient, dataset: str) -> None:
        self._desk, self.dataset = desk, dataset
        self._left: list[int] = []
        """Places of the records that were not drawn yet, the next one last."""

    async def draw(self) -> Prompt:
        """The next prompt; records that ask nothing are passed over. UserError when the dataset cannot be read."""
        while True:
            if not self._left:
                total = (await self._desk.ask("records.slice", dataset=self.dataset, start=0, count=1))["total"]
                self._left = random.SystemRandom().sample(range(total), total)
            place = self._left.pop()
            page = await self._desk.ask("records.slice", dataset=self.dataset, start=place, count=1)
            records = decoded(page["kind"], page["records"])
            found = [prompt for prompt, _ in tasks_of(records, f"dataset:{self.dataset}", place)]
            if found and found[0].messages:
                return found[0]
