"""`workbench card CKPT`: a model card in Markdown."""

from __future__ import annotations

from pathlib import Path

import click

from stages.store.checkpoints import resolve_checkpoint
from workbench.cli.common import House, pass_house, say


@click.command()
@click.argument("checkpoint", metavar="CKPT")
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Write it there.")
@pass_house
def card(house: House, checkpoint: str, folder: Path | None) -> None:
    """Print a checkpoint's model card: what it was made from, its recipe, its curves, how good it is.

    With --to DIR the card is written as README.md, with the curves as a picture beside it.
    """
    from workbench.models.model_card import card_of, write_card

    made = card_of(house.workspace, resolve_checkpoint(house.workspace, checkpoint))
    if folder is None:
        click.echo(made.markdown, nl=False)
        return
    write_card(made, folder)
    say(f"The card is in {folder}.")
