"""What a workspace holds: datasets, tokenizers and runs, read cheaply enough to be asked every second."""

from __future__ import annotations

import threading
from typing import NamedTuple

from stages.store.datasets import Dataset, list_datasets
from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.tokenizers import Tokenizer, list_tokenizers
from stages.store.workspace import Workspace
from workbench.board.run_board import Board, Entry


class LabelCounts(NamedTuple):
    """What there is of labels: the newest set, its prompts, all judgements that people gave here, and finished sets."""

    newest: str = ""
    prompts: int = 0
    labels: int = 0
    finished: frozenset[str] = frozenset()
    """Names of the sets of which every prompt has been judged, by as many people as the set asks for."""


class Inventory(NamedTuple):
    """All there is, at one moment."""

    datasets: list[Dataset]
    tokenizers: list[Tokenizer]
    runs: list[Entry]
    """The newest first."""
    judged: LabelCounts = LabelCounts()

    @property
    def empty(self) -> bool:
        return not (self.datasets or self.tokenizers or self.runs)


class Survey:
    """Looks at one workspace again and again. Threads take turns."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._turn = threading.Lock()
        self._board = Board(workspace)
        self._judged: tuple[int, LabelCounts] = (0, LabelCounts())

    def look(self) -> Inventory:
        """What is there now. Runs and folders that cannot be read are left out."""
        with self._turn:
            runs, judged = self._board.look(), self._labels()
        return Inventory(list_datasets(self.workspace), list_tokenizers(self.workspace), runs, judged)

    def _labels(self) -> LabelCounts:
        """Read anew only when the file has changed. A file that cannot be read is for the Rank screen to tell of."""
        path = self.workspace.labels
        try:
            written = path.stat().st_mtime_ns
            if written != self._judged[0]:
                with open_labels(path) as labels:
                    sets = labels.sets()
                    first = (sets[0].name, sets[0].prompts) if sets else ("", 0)
                    finished = frozenset(one.name for one in sets if labels.count(one.id) >= one.prompts > 0)
                    self._judged = (written, LabelCounts(*first, labels.count_all(), finished))
        except (OSError, UserError):
            return LabelCounts()
        return self._judged[1]
