"""`workbench fill`: what BERT or T5 would put in a blank."""

from __future__ import annotations

import click

from workbench.cli.common import Environment, json_option, pass_environment, say, say_json
from workbench.display import displayable
from workbench.talking.desk_client import ask_once


@click.command()
@click.argument("checkpoint", metavar="CKPT")
@click.argument("text")
@click.option("-n", "count", type=click.IntRange(1, 1_000), default=5, show_default=True, help="Candidates a blank.")
@json_option
@pass_environment
def fill(env: Environment, checkpoint: str, text: str, count: int, as_json: bool) -> None:
    """Fill the blanks of TEXT, written ___, by BERT or T5.

    BERT answers each blank by itself, a token each; T5 one after the other, at any length. Candidates come with their
    probabilities.
    """
    found = ask_once(env.workspace, "fill.of", checkpoint=checkpoint, text=text, count=count)
    if as_json:
        say_json(found)
        return
    say(displayable(found["text"]))
    for number, candidates in enumerate(found["blanks"], 1):
        say(f"blank {number}")
        for candidate in candidates:
            say(f"  {candidate['probability']:6.1%}  {displayable(candidate['text'])}")
