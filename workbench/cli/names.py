"""Names that a shell completes: of what is in the workspace, by the word that stands for it in the help."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

from stages.store.bin import list_bin
from stages.store.checkpoints import list_checkpoints
from stages.store.datasets import list_datasets
from stages.store.errors import UserError
from stages.store.groups import group_names, list_groups
from stages.store.labels import open_labels
from stages.store.models import list_models
from stages.store.planned import list_planned
from stages.store.presets import list_presets
from stages.store.rundir import RunDir, list_runs
from stages.store.tokenizers import list_tokenizers
from stages.store.workspace import Workspace


class NameType(StringParamType):
    """Text that is one of the names that `names` finds; nothing else is taken for wrong."""

    def __init__(self, names: Callable[[Workspace], Iterable[str]]) -> None:
        self.names = names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin so. None where the workspace or its settings cannot be read: a shell shows no error."""
        from workbench.cli.common import Environment

        try:
            found = sorted(set(self.names(Environment().workspace)))
        except UserError:
            return []
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def complete_names(command: click.Command) -> None:
    """Let every parameter of a command, and of those below it, complete the names that it stands for."""
    for parameter in command.params:
        if (names := _names_for(parameter)) is not None:
            parameter.type = NameType(names)
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        complete_names(below)


def _names_for(parameter: click.Parameter) -> Callable[[Workspace], Iterable[str]] | None:
    """By the word that stands for it in the help, or by the option."""
    if not isinstance(parameter.type, StringParamType):
        return None
    word = re.match(r"\[?([A-Z]+)", parameter.metavar or "")
    by_option = next((OPTIONS[option] for option in parameter.opts if option in OPTIONS), None)
    return by_option or WORDS.get(word[1] if word else "")


def _runs(workspace: Workspace) -> list[str]:
    return [name for _, name in _named(workspace)]


def _checkpoints(workspace: Workspace) -> list[str]:
    """Runs that have one, which stand for their last; each as RUN@STEP; imported models."""
    found = [model.name for model in list_models(workspace)]
    for run, name in _named(workspace):
        steps = [f"{name}@{checkpoint.step}" for checkpoint in list_checkpoints(run)]
        found += [name, *steps] if steps else []
    return found


def _named(workspace: Workspace) -> list[tuple[RunDir, str]]:
    """The runs whose name can be read."""
    found = []
    for run in list_runs(workspace):
        try:
            found.append((run, run.spec().name))
        except UserError:
            continue
    return found


def _datasets(workspace: Workspace) -> list[str]:
    return [dataset.name for dataset in list_datasets(workspace)]


def _tokenizers(workspace: Workspace) -> list[str]:
    return [tokenizer.name for tokenizer in list_tokenizers(workspace)]


def _imported(workspace: Workspace) -> list[str]:
    return [model.name for model in list_models(workspace)]


def _presets(workspace: Workspace) -> list[str]:
    return list_presets()


def _models(workspace: Workspace) -> list[str]:
    """All that `models show` tells of."""
    return [*list_presets(), *list_planned(), *_imported(workspace)]


def _label_sets(workspace: Workspace) -> list[str]:
    if not workspace.labels.is_file():
        return []
    with open_labels(workspace.labels) as labels:
        return [each.name for each in labels.sets()]


def _studies(workspace: Workspace) -> list[str]:
    return [group.name for group in list_groups(workspace) if group.kind == "scale"]


def _thrown(workspace: Workspace) -> list[str]:
    return [thrown.title for thrown in list_bin(workspace)]


WORDS = {
    "RUN": _runs,
    "CKPT": _checkpoints,
    "DATASET": _datasets,
    "TOKENIZER": _tokenizers,
    "MODEL": _models,
    "IMPORTED": _imported,
    "SET": _label_sets,
    "SWEEP": group_names,
    "STUDY": _studies,
    "DELETED": _thrown,
}
OPTIONS = {
    "--data": _datasets,
    "--prompts": _datasets,
    "--pretraining": _datasets,
    "--tokenizer": _tokenizers,
    "--label-set": _label_sets,
    "--preset": _presets,
    "--teacher": _checkpoints,
    "--reward": _checkpoints,
    "--reference": _checkpoints,
}
