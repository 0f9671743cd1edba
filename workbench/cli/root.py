"""The command line: `workbench --help`. Each group of commands stands in a file beside this one."""

from __future__ import annotations

import io
import sys

import click

from stages.store.errors import UserError
from workbench import __version__
from workbench.cli.best_of import best_of
from workbench.cli.bin import bin_
from workbench.cli.card import card
from workbench.cli.chat import chat
from workbench.cli.classify import classified, classify
from workbench.cli.common import CommandGroup
from workbench.cli.compare import compare
from workbench.cli.completion import completion
from workbench.cli.data import data
from workbench.cli.demo import demo
from workbench.cli.doctor import doctor
from workbench.cli.evaluate import evaluate
from workbench.cli.fill import fill
from workbench.cli.importing import import_
from workbench.cli.in_context import in_context
from workbench.cli.inside import inside
from workbench.cli.labels import labels
from workbench.cli.lineage import lineage
from workbench.cli.models import models
from workbench.cli.names import complete_names
from workbench.cli.reward import reward, score
from workbench.cli.runs import runs
from workbench.cli.sample import sample
from workbench.cli.scale import scale
from workbench.cli.serve import serve
from workbench.cli.sweep import sweep, sweeps
from workbench.cli.tokenizer import tokenizer
from workbench.cli.train import train

HELP = """Take a transformer through its whole life: data, tokenizer, training, chat.

Without arguments the app opens in this terminal. Everything it does, these commands do as well, on the same workspace.

\b
A first life:
  workbench data build starter:world --name world
  workbench tokenizer train --data world --vocab-size 512 --name world-bpe
  workbench train pretrain --data world --tokenizer world-bpe --name first
  workbench chat first

Long work runs in processes of its own. A command waits for it and shows progress; ctrl+c ends the wait, not the work.
Settings come from the nearest workbench.toml upward of the current folder, then from your own; options go before both.
The workspace is the folder WORKBENCH_HOME, else `[paths] workspace`, else the system's folder for user data.

Exit codes: 0 done, 1 the work failed, 2 the request was wrong, 130 the wait was interrupted.
"""


@click.group(
    cls=CommandGroup, help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@click.version_option(__version__, prog_name="workbench")
def workbench() -> None:
    """The root of all commands."""


for command in (
    demo,
    data,
    tokenizer,
    train,
    sweep,
    sweeps,
    scale,
    runs,
    compare,
    bin_,
    lineage,
    card,
    evaluate,
    in_context,
    sample,
    best_of,
    labels,
    reward,
    score,
    chat,
    fill,
    classify,
    classified,
    inside,
    serve,
    models,
    import_,
    doctor,
    completion,
):
    workbench.add_command(command)
complete_names(workbench)


def run(arguments: list[str]) -> int:
    """Run a command; its exit code. Mistakes in the arguments are raised as UserError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = workbench.main(arguments, prog_name="workbench", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as asked:
        click.echo(asked.format_message(), err=True)
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "workbench"
        raise UserError(error.format_message(), f"See `{where} --help`.") from error
    except click.ClickException as error:
        raise UserError(error.format_message()) from error
    except click.Abort:
        return 130
    except UnicodeEncodeError as error:
        if (mistake := _not_utf8(arguments)) is None:
            raise
        raise mistake from error
    except SystemExit:
        # click's answer to a reader that is gone (`workbench runs | head`), which is no failure of the work.
        return 0
    return code if isinstance(code, int) else 0


def _not_utf8(arguments: list[str]) -> UserError | None:
    """The sentence about an argument that is no UTF-8, such as an old file's name; None where all are."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            return UserError(f"{argument!a} is not in UTF-8.", "Rename the file, or write it anew.")
    return None
