"""`workbench serve CKPT`: a checkpoint behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import os
import sys

import click

from stages.store.checkpoints import resolve_checkpoint
from stages.store.workspace import worker_environment
from workbench.cli.common import Environment, pass_environment
from workbench.talking.serving import TOKEN, serve_command


@click.command()
@click.argument("checkpoint", metavar="CKPT")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is every network.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, help="0: any that is free.")
@click.option("--token", envvar=TOKEN, help="What clients must send; without it, one is made up.")
@click.option("--slots", type=click.IntRange(1, 1024), default=64, show_default=True, help="Requests answered at once.")
@click.option(
    "--max-length", type=click.IntRange(2), help="Tokens of a text, prompt included; without it, all it sees."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="CPU threads; without it, as many as help.")
@pass_environment
def serve(
    env: Environment,
    checkpoint: str,
    host: str,
    port: int,
    token: str | None,
    slots: int,
    max_length: int | None,
    device: str,
    threads: int | None,
) -> None:
    """Serve a checkpoint to other programs, as OpenAI's API: models, completions, chat completions.

    CKPT is a run's name (its last checkpoint), run@step, or a model folder; clients call it so too. Only this machine
    is heard, and every request needs the token that is printed. A client is pointed at it like this:

    \b
      export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=<the token>
      lm_eval --model local-completions --tasks … \\
        --model_args model=CKPT,base_url=$OPENAI_BASE_URL/completions,tokenizer=<folder>,max_length=<what it sees>
    """
    found = resolve_checkpoint(env.workspace, checkpoint)
    options = ["--name", checkpoint, "--host", host, "--port", str(port), "--slots", str(slots), "--device", device]
    options += ["--max-length", str(max_length)] if max_length else []
    options += ["--threads", str(threads)] if threads else []
    environment = worker_environment()
    if token:
        environment[TOKEN] = token
    command = serve_command(found.path, options)
    sys.stdout.flush()
    os.execve(command[0], command, environment)
