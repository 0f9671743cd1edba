"""What a workspace holds: datasets, tokenizers and runs, read cheaply enough to be asked every second."""

from __future__ import annotations

import threading
from typing import NamedTuple

from stages.store.datasets import Dataset, list_datasets
from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.rundir import RunDir, RunSpec, RunState, Status, list_runs
from stages.store.tokenizers import Tokenizer, list_tokenizers
from stages.store.workspace import Workspace


class RunFacts(NamedTuple):
    """A run as it stood when it was last looked at."""

    run: RunDir
    spec: RunSpec
    state: RunState
    status: Status

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def working(self) -> bool:
        """Whether a worker has it."""
        return self.status in ("queued", "running")

    @property
    def share(self) -> float | None:
        """How much is done, from 0 to 1; None when that is not known."""
        return min(1.0, self.state.step / self.state.total) if self.state.total else None

    def digest(self, role: str) -> str:
        """The digest of the parent in `role`, or nothing."""
        parent = self.spec.parents.get(role)
        return parent.digest if parent else ""


class Judged(NamedTuple):
    """What there is of labels: the newest set, its prompts, and all judgements that people gave here."""

    newest: str = ""
    prompts: int = 0
    labels: int = 0


class Inventory(NamedTuple):
    """All there is, at one moment."""

    datasets: list[Dataset]
    tokenizers: list[Tokenizer]
    runs: list[RunFacts]
    """The newest first."""
    judged: Judged = Judged()

    @property
    def empty(self) -> bool:
        return not (self.datasets or self.tokenizers or self.runs)


class Survey:
    """Looks at one workspace again and again. A run's spec never changes, so it is read once.
    Threads take turns.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._turn = threading.Lock()
        self._specs: dict[str, RunSpec] = {}
        self._states: dict[str, tuple[int, RunState]] = {}
        self._judged: tuple[int, Judged] = (0, Judged())

    def look(self) -> Inventory:
        """What is there now. Runs and folders that cannot be read are left out."""
        with self._turn:
            runs = [facts for run in list_runs(self.workspace) if (facts := self._facts(run))]
            judged = self._labels()
        return Inventory(list_datasets(self.workspace), list_tokenizers(self.workspace), runs, judged)

    def _labels(self) -> Judged:
        """Read anew only when the file has changed. A file that cannot be read is for the Rank screen to tell of."""
        path = self.workspace.labels
        try:
            written = path.stat().st_mtime_ns
            if written != self._judged[0]:
                with open_labels(path) as labels:
                    sets = labels.sets()
                    first = (sets[0].name, sets[0].prompts) if sets else ("", 0)
                    self._judged = (written, Judged(*first, labels.count_all()))
        except (OSError, UserError):
            return Judged()
        return self._judged[1]

    def _facts(self, run: RunDir) -> RunFacts | None:
        try:
            spec = self._specs.get(run.id) or self._specs.setdefault(run.id, run.spec())
            state = self._state(run)
            return RunFacts(run, spec, state, run.status(state))
        except (UserError, OSError):
            return None

    def _state(self, run: RunDir) -> RunState:
        written = (run.path / "state.json").stat().st_mtime_ns
        known = self._states.get(run.id)
        if known is None or known[0] != written:
            known = self._states[run.id] = (written, run.state())
        return known[1]
