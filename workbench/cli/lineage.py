"""`workbench lineage`: what was made from what."""

from __future__ import annotations

import click
import msgspec

from stages.store.errors import UserError
from stages.store.names import nearest
from workbench.cli.common import Environment, json_option, pass_environment, say_json
from workbench.display import displayable_line


@click.command()
@click.argument("words", nargs=-1, metavar="[WORD]…")
@json_option
@pass_environment
def lineage(env: Environment, words: tuple[str, ...], as_json: bool) -> None:
    """Show everything in the workspace as a tree, with digests; WORDs of kind, name or digest narrow it."""
    from workbench.models.lineage_tree import lineage_tree, matching, rows

    tree = lineage_tree(env.workspace)
    wanted = [word.casefold() for word in words]
    found = matching(tree, wanted) if wanted else tree
    if tree and not found:
        names = [node.name for _, node in rows(tree)]
        raise UserError(f"Nothing here matches {' '.join(words)!r}.", nearest(" ".join(words), names))
    if as_json:
        say_json(msgspec.to_builtins(found))
        return
    if not found:
        click.echo("The workspace is empty.")
    for before, node in rows(found):
        parts = [f"{node.kind} {displayable_line(node.name)}", displayable_line(node.note), node.digest[:12]]
        click.echo(before + "  ".join(part for part in parts if part))
