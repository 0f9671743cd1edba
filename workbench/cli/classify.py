"""`workbench classify` and `workbench classified`: what a model that labels says of a text, and how well it does."""

from __future__ import annotations

import click
import msgspec

from stages.store.checkpoints import resolve_checkpoint
from stages.store.classifiers import Classified, read_classified
from stages.store.specs.assess import Assess
from workbench.cli.common import (
    Environment,
    SpecCommand,
    json_option,
    judged,
    pass_environment,
    say,
    say_facts,
    say_json,
    say_table,
    set_option,
)
from workbench.display import displayable, shortened
from workbench.talking.classified import answered, asked, confusions, facts

WIDEST = 12
"""Classes that a confusion matrix is printed for; of more, what is mistaken most."""
SHOWN = 8
"""Worst examples that are printed, and mistakes where there is no matrix."""


@click.command()
@click.argument("checkpoint", metavar="CKPT")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT…")
@json_option
@pass_environment
def classify(env: Environment, checkpoint: str, texts: tuple[str, ...], as_json: bool) -> None:
    """What a model that labels says of TEXT, with probabilities.

    Two texts for a model of pairs; a question and its options for multiple choice; a sentence to label its words.
    """
    from workbench.talking.desk_client import ask_once

    folder = str(resolve_checkpoint(env.workspace, checkpoint).path)
    found = ask_once(env.workspace, "classify.of", checkpoint=folder, texts=list(texts))
    if as_json:
        say_json(found)
        return
    if found["cut"]:
        say("The text is longer than the model sees: its end is cut.")
    for row in found.get("labels", ()):
        say(f"{row['probability']:6.1%}  {displayable(row['label'])}")
    columns = {"word": "word", "label": "label", "probability": "probability"}
    if "words" in found:
        rows = [row | {"probability": f"{row['probability']:.1%}"} for row in found["words"]]
        say_table(rows, columns, as_json=False, empty="There is no word.")


@click.command(cls=SpecCommand, spec=Assess)
@click.argument("checkpoint", metavar="CKPT")
@click.option("--data", "dataset", metavar="NAME", help="Records to label; left out: what the training run held out.")
@set_option
@json_option
@pass_environment
def classified(env: Environment, checkpoint: str, dataset: str | None, pairs: tuple[str, ...], as_json: bool) -> None:
    """How well a model labels: accuracy with its interval, F1, the confusion matrix, the worst examples.

    Without --data it shows what a training run found at its end, or an earlier judgement by its name.
    """
    found = read_classified(judged(env, "assess", "labels", checkpoint, dataset, pairs))
    if as_json:
        say_json(msgspec.to_builtins(found))
    else:
        say_classified(found)


def say_classified(found: Classified) -> None:
    """The figures, the classes, what is taken for what, and some of the worst examples."""
    say_facts(facts(found))
    rows = [
        {"class": one.label, "f1": one.f1, "precision": one.precision, "recall": one.recall, "count": one.count}
        for one in found.classes
    ]
    say("")
    headings = ("class", "f1", "precision", "recall", "count")
    say_table(rows, dict(zip(headings, headings, strict=True)), as_json=False, empty="There is no class.")
    say("")
    if len(found.labels) <= WIDEST:
        _say_matrix(found)
    else:
        for mistake in confusions(found)[:SHOWN]:
            say(str(mistake))
    say("")
    for one in found.worst[:SHOWN]:
        say(f"{100 * one.probability:5.1f} %  {shortened(answered(one), 50)}  {shortened(asked(one), 60)}")


def _say_matrix(found: Classified) -> None:
    """Rows are what is right, columns by number what was said."""
    columns = {"label": "right \\ said"} | {str(n): str(n) for n in range(1, len(found.labels) + 1)}
    rows = [
        {"label": f"{number} {label}", **{str(n): count for n, count in enumerate(counts, 1)}}
        for number, (label, counts) in enumerate(zip(found.labels, found.confusion, strict=True), 1)
    ]
    say_table(rows, columns, as_json=False, empty="There is no class.")
