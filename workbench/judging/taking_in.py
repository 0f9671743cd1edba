"""What sampling runs have written, taken into labels.db as label sets: once, however often it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from stages.store.completions import answered_alike, judged_by, mode_of, tasks_in
from stages.store.errors import UserError
from stages.store.labels import Labels, LabelSet, open_labels
from stages.store.labels.records import Candidate, Mode, Prompt
from stages.store.rundir import RunDir, find_run, list_runs
from stages.store.specs.sample import Sample
from stages.store.workspace import Workspace
from workbench.settings import LabelSettings

STAGE = "sample"

COMPARED: tuple[Mode, ...] = ("rank", "pair")
"""Ways of judging by which the answers to a prompt are compared."""

Task = tuple[Prompt, list[Candidate]]


def take_in(labels: Labels, run: RunDir, settings: LabelSettings, mode: Mode | None = None) -> LabelSet:
    """The label set of a run's name, with the prompts that the run has completed; what is there already stays.

    Prompts that all answer alike are left out where answers are compared. Raises UserError when no prompt is left, or
    the set is judged in another way.
    """
    name = run.spec().name
    if run.spec().stage != STAGE:
        raise UserError(f"The run {name!r} has sampled nothing.", "Sample some: `workbench sample --help`.")
    tasks = tasks_in(run)
    if not tasks:
        raise UserError(f"The run {name!r} has completed no prompt.", "Sample some: `workbench sample --help`.")
    mode = mode or judged_by(run)
    if not (compared := comparable(tasks, mode)):
        raise UserError(f"In the run {name!r} every prompt is answered alike: there is nothing to compare.")
    return labels.add_set(name, mode, compared, people=settings.people, repeat_share=settings.repeat_share)


def comparable(tasks: Sequence[Task], mode: Mode) -> list[Task]:
    """The prompts that can be judged: with different answers, where answers are compared with each other."""
    return [task for task in tasks if mode not in COMPARED or not answered_alike(task[1])]


def left_out(run: RunDir, mode: Mode) -> str:
    """How many prompts of a finished run are not in its label set, since they are answered alike; empty for none."""
    alike = run.state().result.get("alike")
    if mode not in COMPARED or not isinstance(alike, int) or not alike:
        return ""
    return f"{alike:,} more answered alike {'is' if alike == 1 else 'are'} left out"


def left_out_of(workspace: Workspace, label_set: LabelSet) -> str:
    """The same of a label set; empty where it is of no run, or of one that is gone."""
    try:
        return left_out(find_run(workspace, label_set.name), label_set.mode)
    except UserError:
        return ""


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
                    if _is_missing(labels, run):
                        found.append(take_in(labels, run, settings))
        except UserError as error:
            known.add(run.id)
            found.append(error)
    return found


def have_set(workspace: Workspace, settings: LabelSettings, name: str) -> None:
    """See to it that there is a label set of this name: take in the sampling run that it is of. UserError if not."""
    found = take_in_finished(workspace, settings, set())
    with open_labels(workspace.ensure().labels) as labels:
        if name not in {one.name for one in labels.sets()}:
            refused = next((one for one in found if isinstance(one, UserError)), None)
            raise refused or UserError(f"There is no label set {name!r}.")


def _is_missing(labels: Labels, run: RunDir) -> bool:
    """Whether something of a run is to be judged that is not in labels.db."""
    there = labels.prompts_of_run(run.id)
    return there < run.state().result.get("prompts", 0) and there < len(comparable(tasks_in(run), judged_by(run)))
