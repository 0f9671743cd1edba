"""The starter life: dataset, tokenizer, tiny model and its tuning, one detached run after the other."""

from __future__ import annotations

from typing import Literal, NamedTuple

from stages.store.workspace import Workspace
from workbench.board.survey import Survey
from workbench.life.steps import Life, Step, lives
from workbench.settings import Settings

STEPS = ("data", "tokenizer", "pretrain", "sft")
"""The steps that the app takes on its own."""
PARENTS = ("dataset", "tokenizer", "checkpoint")


class Advance(NamedTuple):
    """What one look at the starter life came to."""

    outcome: Literal["launched", "waiting", "halted", "done"]
    step: Step
    """The step launched, at work, or halted at; the last one when all is done."""


class StarterLife:
    """Takes the life of one starter dataset further. Nothing is stored: a new app may go on where another left off."""

    def __init__(self, workspace: Workspace, settings: Settings, dataset: str | None = None) -> None:
        self.workspace = workspace
        self.settings = settings
        self.dataset = dataset
        """The dataset's name; a free one is chosen when the first step is launched."""
        self._survey = Survey(workspace)

    def advance(self, *, again: bool = False) -> Advance:
        """Launch the next step unless one is at work. With `again`, a step that halted is started anew.

        Reads files and starts processes: not for the UI's thread. Raises UserError when a launch is refused.
        """
        life = self._life()
        for step in (life.step(key) for key in STEPS):
            if step.state == "running":
                return Advance("waiting", step)
            if step.state in ("failed", "stopped", "paused"):
                if not again or step.run is None:
                    return Advance("halted", step)
                self._restart(step)
                return Advance("launched", step)
            if step.state == "next":
                self._launch(step)
                return Advance("launched", step)
        return Advance("done", life.step(STEPS[-1]))

    def _life(self) -> Life:
        from workbench.runs import unique_name

        inventory = self._survey.look()
        if self.dataset is None:
            taken = {found.name for found in inventory.datasets} | {facts.name for facts in inventory.runs}
            self.dataset = unique_name(taken, "world")
        found = lives(inventory)
        fresh = lives(inventory._replace(datasets=[], tokenizers=[], runs=[]))[0]
        return next((life for life in found if life.starter and life.step("data").name == self.dataset), fresh)

    def _launch(self, step: Step) -> None:
        from workbench.runs import launch

        values = dict(step.values)
        name = str(values.pop("name"))
        parents = {role: values.pop(role, None) for role in PARENTS}
        settings = {**values, **self.settings.stage(step.stage)}
        if "sources" in values:  # what the settings say of sources is not meant for these
            settings["sources"] = values["sources"]
        if step.key == "data":
            name = str(self.dataset)
        width = self.settings.queue.cpu_width
        launch(self.workspace, step.stage, name, settings, cpu_width=width, **parents)

    def _restart(self, step: Step) -> None:
        from workbench.runs import start

        assert step.run is not None
        start(step.run.run, cpu_width=self.settings.queue.cpu_width)
