"""Questions with passages of a source: what a model is sent, and what a person is told about where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stages.store.errors import UserError
from stages.store.files import path_of
from stages.store.specs.retrieval import Retrieval
from stages.store.workspace import Workspace
from workbench.display import shortened

if TYPE_CHECKING:
    from workbench.judging.exchange import Exchange
    from workbench.talking.desk_client import DeskClient

FRAME = "{passages}\n\n{question}"
SHARE = 2
"""Characters of passages for each token of the model's context: about half of it."""
SHOWN = 72
"""Characters of a passage that are shown with its source."""


async def ground(exchange: Exchange, desk: DeskClient, workspace: Workspace, settings: Retrieval, context: int) -> None:
    """Give the question of an exchange passages of the settings' source, for a model of `context` tokens.

    UserError when the source cannot be read.
    """
    assert settings.source is not None
    place = absolute_source(workspace, settings.source)
    count = settings.passages
    found = await desk.ask("retrieval.find", source=place, question=exchange.prompt, count=count)
    exchange.given = framed(exchange.prompt, found["passages"], settings, context)
    exchange.sources = sources_told(found["passages"], settings.source)


async def what_it_holds(desk: DeskClient, workspace: Workspace, source: str) -> str:
    """What a source holds, in a sentence. UserError when it cannot be read."""
    found = await desk.ask("retrieval.look", source=absolute_source(workspace, source))
    skipped = f", {found['skipped']:,} without text" if found["skipped"] else ""
    return f"{found['documents']:,} documents, {found['passages']:,} passages{skipped}."


def absolute_source(workspace: Workspace, source: str) -> str:
    """A source as the desk, which stands in another folder, can find it: a dataset's name, or an absolute path.

    UserError when it is neither.
    """
    path = path_of(source).absolute()
    if "/" not in source and (workspace.datasets / source / "dataset.json").is_file():
        return source
    if not path.exists():
        raise UserError(f"There is no folder, file or dataset {source!r}.", "`workbench data list` shows datasets.")
    return str(path)


def framed(question: str, passages: Sequence[Mapping[str, Any]], settings: Retrieval, context: int) -> str:
    """The question with its passages, the best first; as many as fill about half of `context` tokens.

    Without passages it is the question itself.
    """
    texts: list[str] = []
    room = SHARE * context
    for passage in passages:
        text = str(passage["text"])
        if texts and len(text) > room:
            break
        texts.append(text[: max(1, room)])
        room -= len(text)
    if not texts:
        return question
    frame = FRAME if settings.frame is None else settings.frame.replace("\\n", "\n")
    together = ("\n\n" if "\n" in frame else " ").join(texts)
    before, _, after = frame.partition("{question}")
    return f"{before.replace('{passages}', together)}{question}{after.replace('{passages}', together)}"


def sources_told(passages: Sequence[Mapping[str, Any]], source: str) -> str:
    """Where passages come from, a line each; a sentence when there are none. Foreign text."""
    if not passages:
        return f"no passage of {source} has a word of it"
    lines = [
        f"source {number}: {one['document']}:{one['line']}  {shortened(str(one['text']), SHOWN)}"
        for number, one in enumerate(passages, 1)
    ]
    return "\n".join(lines)
