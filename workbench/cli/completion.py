"""`workbench completion SHELL`: what a shell needs to complete commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from stages.store.errors import UserError

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script by which a shell completes `workbench` commands, options and names of what there is.

    \b
      bash:  workbench completion bash >> ~/.bashrc
      zsh:   workbench completion zsh >> ~/.zshrc
      fish:  workbench completion fish > ~/.config/fish/completions/workbench.fish
    """
    from workbench.cli.root import workbench

    found = get_completion_class(shell)
    if found is None:
        raise UserError(f"{shell} cannot be completed with this version of click.")
    click.echo(found(workbench, {}, "workbench", "_WORKBENCH_COMPLETE").source())
