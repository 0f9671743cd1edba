"""`workbench chat CKPT`: the chat of the app, or one completion on stdout."""

from __future__ import annotations

import sys

import click
import msgspec

from stages.store.chat import REASONS, Done
from stages.store.checkpoints import resolve_checkpoint
from stages.store.specs.chat import Chat
from workbench.__main__ import on_terminal, show
from workbench.cli_common import House, SpecCommand, parse_pairs, pass_house, set_option
from workbench.display import displayable


@click.command(cls=SpecCommand, spec=Chat)
@click.argument("checkpoint", metavar="CKPT")
@click.option("--once", "text", metavar="TEXT", help="Continue (or answer) TEXT, print the result and leave.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@set_option
@pass_house
def chat(house: House, checkpoint: str, text: str | None, device: str, pairs: tuple[str, ...]) -> None:
    """Chat with a checkpoint.

    CKPT is a run's name (its last checkpoint), run@step, or a model folder. A chat model answers you, a base model
    continues your text. On a terminal this opens the app's chat; with --once, or with text on stdin, what the model
    says goes to stdout.
    """
    found = resolve_checkpoint(house.workspace, checkpoint)
    sampling = msgspec.structs.replace(house.settings.chat, **parse_pairs(Chat, pairs))
    if text is None and on_terminal():
        _open_app(house, checkpoint, sampling)
        return
    from workbench.chat_client import complete_once

    prompt = sys.stdin.read() if text is None else text
    terminal = sys.stdout.isatty()
    for piece in complete_once(found.path, prompt, sampling, device=device, on_done=_tell):
        click.echo(displayable(piece, tabs=4) if terminal else piece, nl=False)
    click.echo()


def _tell(done: Done) -> None:
    """The figures of a completion, for a person who watches."""
    if sys.stderr.isatty() and sys.stdout.isatty():
        figures = f"{done.tokens:,} tokens, {done.tokens_per_s:,.0f} tokens/s, {REASONS[done.reason]}, seed {done.seed}"
        figures += f", only the last {done.prompt_tokens:,} tokens were seen" if done.cut else ""
        click.echo(f"\n[{figures}]", err=True)


def _open_app(house: House, checkpoint: str, sampling: Chat) -> None:
    from workbench.app import WorkbenchApp

    class ChatFirst(WorkbenchApp):
        """The app, opened at Chat."""

        def on_ready(self) -> None:
            self.open_chat(checkpoint)

    show(ChatFirst(msgspec.structs.replace(house.settings, chat=sampling), house.workspace))
