"""What sampling runs have written, taken into labels.db as label sets: once, however often it is asked for."""

from __future__ import annotations

from stages.store.completions import judged_by, mode_of, tasks_in
from stages.store.errors import UserError
from stages.store.labels import Labels, LabelSet, open_labels
from stages.store.labels.records import Mode
from stages.store.rundir import RunDir, list_runs
from stages.store.specs.sample import Sample
from stages.store.workspace import Workspace
from workbench.settings import LabelSettings

STAGE = "sample"


def take_in(labels: Labels, run: RunDir, settings: LabelSettings, mode: Mode | None = None) -> LabelSet:
    """The label set of a run's name, with the prompts that the run has completed; what is there already stays.

    Raises UserError when no prompt is complete, or the set is judged in another way.
    """
    name = run.spec().name
    if run.spec().stage != STAGE:
        raise UserError(f"The run {name!r} has sampled nothing.", "Sample some: `workbench sample --help`.")
    tasks = tasks_in(run)
    if not tasks:
        raise UserError(f"The run {name!r} has completed no prompt.", "Sample some: `workbench sample --help`.")
    return labels.add_set(
        name, mode or judged_by(run), tasks, people=settings.people, repeat_share=settings.repeat_share
    )


def refuse_other_mode(workspace: Workspace, name: str, settings: Sample) -> None:
    """A set of that name which is judged in another way could not take the run in: better said before it is run."""
    if not workspace.labels.is_file():
        return
    with open_labels(workspace.labels) as labels:
        if any(one.name == name and one.mode != mode_of(settings) for one in labels.sets()):
            raise UserError(f"The label set {name!r} is judged in another way.", "Choose another name.")


def take_in_finished(workspace: Workspace, settings: LabelSettings, known: set[str]) -> list[LabelSet | UserError]:
    """Take in every sampling run that has finished and is not in labels.db yet; the sets that this made or filled.

    `known` are ids of runs that need no further look; to be kept by whoever asks again. A run that cannot be taken in
    is told as an error, once.
    """
    found: list[LabelSet | UserError] = []
    for run in list_runs(workspace):
        if run.id in known:
            continue
        try:
            if run.spec().stage == STAGE and run.status() != "finished":
                continue
            known.add(run.id)
            if run.spec().stage == STAGE:
                with open_labels(workspace.ensure().labels) as labels:
                    if labels.prompts_of_run(run.id) < run.state().result.get("prompts", 0):
                        found.append(take_in(labels, run, settings))
        except UserError as error:
            known.add(run.id)
            found.append(error)
    return found
