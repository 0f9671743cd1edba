"""`workbench card CKPT`: a model card in Markdown."""

from __future__ import annotations

from pathlib import Path

import click

from stages.store.checkpoints import resolve_checkpoint
from workbench.cli.common import Environment, pass_environment, say


@click.command()
@click.argument("checkpoint", metavar="CKPT")
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Write it there.")
@pass_environment
def card(env: Environment, checkpoint: str, folder: Path | None) -> None:
    """Print a checkpoint's model card: what it was made from, its recipe, its curves, how good it is.

    With --to DIR the card is written as README.md, with the curves as a picture beside it.
    """
    from workbench.models.model_card import card_of, write_card

    made = card_of(env.workspace, resolve_checkpoint(env.workspace, checkpoint))
    if folder is None:
        click.echo(made.markdown, nl=False)
        return
    write_card(made, folder)
    say(f"The card is in {folder}.")
