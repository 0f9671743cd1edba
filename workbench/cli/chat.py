"""`workbench chat CKPT`: the chat of the app, or one completion on stdout."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import click
import msgspec

from stages.store.chat import REASONS, Done
from stages.store.checkpoints import resolve_checkpoint
from stages.store.specs.chat import Chat
from stages.store.specs.retrieval import Retrieval
from workbench.__main__ import on_terminal, show
from workbench.cli.common import Environment, SpecCommand, parse_pairs, pass_environment, set_option
from workbench.display import displayable
from workbench.talking.grounding import absolute_source, framed, sources_told


@click.command(cls=SpecCommand, spec=Chat)
@click.argument("checkpoint", metavar="CKPT")
@click.option("--once", "text", metavar="TEXT", help="Continue (or answer) TEXT, print the result and leave.")
@click.option("--source", metavar="PLACE", help="Answer from a folder, a file or a dataset: passages that fit.")
@click.option("--passages", type=click.IntRange(1, 50), help="Passages that are given with a question, at most.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@set_option
@pass_environment
def chat(
    env: Environment,
    checkpoint: str,
    text: str | None,
    source: str | None,
    passages: int | None,
    device: str,
    pairs: tuple[str, ...],
) -> None:
    """Chat with a checkpoint.

    CKPT is a run's name (its last checkpoint), run@step, or a model folder. A chat model answers you, a base model
    continues your text. On a terminal this opens the app's chat; with --once, or with text on stdin, what the model
    says goes to stdout. With --source, or `[retrieval] source` in the settings, passages that fit the question are put
    before it, and where they come from is said on stderr.
    """
    found = resolve_checkpoint(env.workspace, checkpoint)
    sampling = msgspec.structs.replace(env.settings.chat, **parse_pairs(Chat, pairs))
    given = {"source": source, "passages": passages}
    changed = {key: value for key, value in given.items() if value is not None}
    retrieval = msgspec.structs.replace(env.settings.retrieval, **changed)
    place = absolute_source(env.workspace, retrieval.source) if retrieval.source else None
    if text is None and on_terminal():
        _open_app(env, checkpoint, sampling, msgspec.structs.replace(retrieval, source=place))
        return
    from workbench.talking.chat_client import complete_once

    prompt = sys.stdin.read() if text is None else text
    passages_found = _found(env, place, prompt, retrieval) if place else []
    asked = partial(framed, prompt, passages_found, retrieval)
    terminal = sys.stdout.isatty()
    for piece in complete_once(found.path, lambda facts: asked(facts.context), sampling, device=device, on_done=_tell):
        click.echo(displayable(piece, tabs=4) if terminal else piece, nl=False)
    click.echo()
    if place:
        click.echo(displayable(sources_told(passages_found, place)), err=True)


def _found(env: Environment, place: str, question: str, retrieval: Retrieval) -> list[dict[str, Any]]:
    """The passages of a source that fit a question."""
    from workbench.talking.desk_client import ask_once

    answer = ask_once(env.workspace, "retrieval.find", source=place, question=question, count=retrieval.passages)
    found: list[dict[str, Any]] = answer["passages"]
    return found


def _tell(done: Done) -> None:
    """The figures of a completion, for a person who watches."""
    if sys.stderr.isatty() and sys.stdout.isatty():
        figures = f"{done.tokens:,} tokens, {done.tokens_per_s:,.0f} tokens/s, {REASONS[done.reason]}, seed {done.seed}"
        figures += f", only the last {done.prompt_tokens:,} tokens were seen" if done.cut else ""
        click.echo(f"\n[{figures}]", err=True)


def _open_app(env: Environment, checkpoint: str, sampling: Chat, retrieval: Retrieval) -> None:
    from workbench.app import WorkbenchApp

    class ChatFirst(WorkbenchApp):
        """The app, opened at Chat."""

        def on_ready(self) -> None:
            self.open_chat(checkpoint)

    settings = msgspec.structs.replace(env.settings, chat=sampling, retrieval=retrieval)
    show(ChatFirst(settings, env.workspace))
