"""`workbench labels by-model` and `ask`: a reward model labels in a person's place, or says what to ask a person."""

from __future__ import annotations

from typing import get_args

import click

from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.names import check_name
from stages.store.rundir import RunDir
from stages.store.specs.label import Label
from workbench.cli.common import Environment, SpecCommand, pass_environment, run_stage, say, set_option, stage_settings
from workbench.evaluating import name_for
from workbench.judging.model_labels import By, ask_next, take_in_scores

reward_option = click.option("--reward", "checkpoint", required=True, metavar="CKPT", help="The reward model.")


@click.command("by-model", cls=SpecCommand, spec=Label)
@click.argument("name", metavar="SET")
@reward_option
@set_option
@pass_environment
def by_model(env: Environment, name: str, checkpoint: str, pairs: tuple[str, ...]) -> None:
    """Have a reward model rank what nobody has judged yet, as labels of the annotator model:NAME@STEP.

    Figures, exports and datasets leave such labels out unless --models asks for them, and people are still asked.
    """
    run = _scored(env, name, checkpoint, stage_settings(env, "label", pairs, label_set=name))
    with open_labels(env.workspace.labels) as labels:
        count = take_in_scores(labels, run)
    say(f"{count:,} rankings of {name} are in the name of model:{run.state().result['annotator']}.")


@click.command(cls=SpecCommand, spec=Label)
@click.argument("name", metavar="SET")
@reward_option
@click.option("--name", "new", required=True, help="Name of the label set to make.")
@click.option("--by", type=click.Choice(get_args(By)), default="uncertain", show_default=True, help="What is worth it.")
@click.option("--most", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Prompts, at most.")
@set_option
@pass_environment
def ask(env: Environment, name: str, checkpoint: str, new: str, by: By, most: int, pairs: tuple[str, ...]) -> None:
    """Make a label set of the prompts of SET that teach a reward model most, the most telling first.

    uncertain: those that nobody has judged and whose order it is least sure of. disagreement: those that people have
    judged and where it contradicts them most, to be judged once more.
    """
    check_name(new, "name of a label set")
    with open_labels(env.workspace.ensure().labels) as labels:
        if new in {one.name for one in labels.sets()}:
            raise UserError(f"There is already a label set {new!r}.", "Choose another name.")
    settings = stage_settings(env, "label", pairs, label_set=name, judged=by == "disagreement")
    run = _scored(env, name, checkpoint, settings)
    with open_labels(env.workspace.labels) as labels:
        made = ask_next(labels, run, new, by, most)
    say(f"Made the label set {new} of {made.prompts:,} prompts. Judge it in the app: K, enter.")


def _scored(env: Environment, name: str, checkpoint: str, settings: dict[str, object]) -> RunDir:
    with open_labels(env.workspace.ensure().labels) as labels:
        labels.find_set(name)
    chosen = name_for(f"{checkpoint}-labels", name)
    return run_stage(env, "label", chosen, settings, checkpoint=checkpoint, detach=False)
