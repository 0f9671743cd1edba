"""`workbench fill`: what an encoder would put in a blank."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click
import msgspec

from stages.store.checkpoints import resolve_checkpoint
from stages.store.errors import UserError
from stages.store.workspace import installation_root
from workbench.cli_common import House, json_option, pass_house, say, say_json
from workbench.display import displayable


@click.command()
@click.argument("checkpoint", metavar="CKPT")
@click.argument("text")
@click.option("-n", "count", type=click.IntRange(1, 1_000), default=5, show_default=True, help="Candidates a blank.")
@json_option
@pass_house
def fill(house: House, checkpoint: str, text: str, count: int, as_json: bool) -> None:
    """Fill the blanks of TEXT, written ___ or [MASK], by an encoder such as BERT.

    Each blank is answered by itself; candidates come with their probabilities.
    """
    folder = resolve_checkpoint(house.workspace, checkpoint).path
    found = ask(str(folder), text, count)
    if as_json:
        say_json(found)
        return
    say(displayable(found["text"]))
    for number, candidates in enumerate(found["blanks"], 1):
        say(f"blank {number}")
        for candidate in candidates:
            say(f"  {candidate['probability']:6.1%}  {displayable(candidate['text'])}")


def ask(folder: str, text: str, count: int) -> dict[str, Any]:
    """{text, blanks: [[{text, probability}]]}, worked out in a process of its own, for torch is none of the app's."""
    command = [sys.executable, "-P", "-m", "stages.fill", folder, str(count)]
    done = subprocess.run(
        command, cwd=installation_root(), input=text.encode(errors="replace"), capture_output=True, check=False
    )
    try:
        answer: dict[str, Any] = msgspec.json.decode(done.stdout)
    except msgspec.DecodeError as error:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise UserError(f"The model could not be asked: {''.join(last) or 'its process ended'}.") from error
    if "error" in answer:
        raise UserError(answer["error"], answer["hint"])
    return answer
