"""What the commands share: settings and workspace, tables, `--set`, and launching a run and waiting for it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import click
import msgspec

from stages.store import strict
from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.specs import spec_of
from stages.store.workspace import Workspace, find_workspace
from workbench.display import displayable, displayable_line
from workbench.settings import Settings, load_settings
from workbench.wording import cell_text

Row = Mapping[str, Any]
WHOLE_SENTENCE = 300
"""Characters of a command's first sentence in its group's help: more than any has."""


class Environment:
    """Settings and workspace of this invocation, read when first asked for: `--help` needs neither."""

    @cached_property
    def settings(self) -> Settings:
        return load_settings()

    @cached_property
    def workspace(self) -> Workspace:
        return find_workspace(self.settings.paths.workspace)


pass_environment = click.make_pass_decorator(Environment, ensure=True)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
detach_option = click.option(
    "--detach", is_flag=True, help="Return at once. The work goes on either way when the wait is interrupted."
)
gpus_option = click.option(
    "--gpus",
    type=click.IntRange(1),
    metavar="N",
    help="Processes that train together, one a GPU; without a GPU, so many on the CPU.",
)


class SpecCommand(click.Command):
    """A command that takes the settings of a spec: its help ends with every key that `--set` takes."""

    def __init__(self, *args: Any, spec: type[msgspec.Struct], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.spec = spec

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the settings of the spec, each with its sentence, what it takes, and its default."""
        with formatter.section("Settings for --set KEY=VALUE"):
            formatter.write_dl([(field.name, describe(field)) for field in strict.fields(self.spec)])


class CommandGroup(click.Group):
    """A group whose help tells each command by a whole sentence, in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands; click itself cuts each sentence to what is left of one line."""
        shown = [(name, command) for name, command in self.commands.items() if not command.hidden]
        if shown:
            with formatter.section("Commands"):
                formatter.write_dl([(name, command.get_short_help_str(WHOLE_SENTENCE)) for name, command in shown])


def describe(field: strict.Field) -> str:
    """A setting in words: sentence, what it takes, unit, default."""
    default = "required" if field.required else f"default {plain(field.default)}"
    unit = f", in {field.unit}" if field.unit else ""
    return f"{field.description} [{field.expected}{unit}; {default}]"


def plain(value: Any) -> str:
    """A default as people write it after `--set key=`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(_spelt, value)) or "none"
    return _spelt(value) or "empty"


def _spelt(value: Any) -> str:
    """A value on one line, whatever newlines it has."""
    return str(value).replace("\n", "\\n")


def set_option(function: Any) -> Any:
    """The option `--set key=value`, repeatable."""
    return click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A setting; see below. Repeatable.")(
        function
    )


def parse_pairs(spec: type[msgspec.Struct], pairs: Iterable[str]) -> dict[str, Any]:
    """The values that `--set key=value` gives, checked against the spec."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair}: expected KEY=VALUE.", "See the end of this command's --help.")
        values[key.strip()] = strict.parse_text(spec, key.strip(), text, f"--set {pair}")
    return values


def stage_settings(env: Environment, stage: str, pairs: Iterable[str], **flags: Any) -> dict[str, Any]:
    """The stage's settings: `--set` over flags (those not None) over the settings files."""
    given = {key: value for key, value in flags.items() if value is not None}
    checked = strict.check_some(spec_of(stage), given, "command line")
    return {**env.settings.stage(stage), **checked, **parse_pairs(spec_of(stage), pairs)}


def run_stage(
    env: Environment,
    stage: str,
    name: str,
    settings: Mapping[str, Any],
    *,
    detach: bool,
    dataset: str | None = None,
    tokenizer: str | None = None,
    checkpoint: str | None = None,
    checkpoints: Sequence[str] = (),
    extra: Mapping[str, str] | None = None,
) -> RunDir:
    """Launch a run; then return at once (`detach`), or wait and show progress. Raises what made the run fail."""
    from workbench.cli.progress import how_to_return, wait
    from workbench.runs import launch

    width = env.settings.queue.cpu_width
    run = launch(
        env.workspace,
        stage,
        name,
        settings,
        dataset=dataset,
        tokenizer=tokenizer,
        checkpoint=checkpoint,
        checkpoints=checkpoints,
        extra=extra,
        cpu_width=width,
    )
    if detach:
        say(f"{name} is at work. {how_to_return(run)}")
    else:
        wait(run)
    return run


def judged(
    env: Environment, stage: str, word: str, checkpoint: str, dataset: str | None, pairs: tuple[str, ...]
) -> RunDir:
    """The run whose judgement is to be shown: with a dataset a new one of `stage`, waited for; else an earlier one.

    `word` tells such runs of a checkpoint from others by their names. UserError for --set without a dataset.
    """
    from stages.store.datasets import find_dataset
    from stages.store.rundir import find_run
    from workbench.evaluating import name_for

    if dataset is None:
        if pairs:
            raise UserError("--set goes with --data.", "Name the dataset to judge.")
        return find_run(env.workspace, checkpoint.partition("@")[0])
    find_dataset(env.workspace, dataset)
    settings, name = stage_settings(env, stage, pairs), name_for(f"{checkpoint}-{word}", dataset)
    return run_stage(env, stage, name, settings, dataset=dataset, checkpoint=checkpoint, detach=False)


def say(text: str) -> None:
    """Lines on stdout, with foreign text in them made displayable."""
    click.echo(displayable(text, tabs=4))


def say_json(value: Any) -> None:
    """A value on stdout as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def say_table(rows: Sequence[Row], columns: Mapping[str, str], *, as_json: bool, empty: str) -> None:
    """Rows as a table, or as a JSON list of objects.

    `columns` maps keys of a row to headings; a row may have further keys, which only JSON shows. `empty` is said when
    there are no rows.
    """
    if as_json:
        say_json(list(rows))
    elif not rows:
        say(empty)
    else:
        for line in _aligned([list(columns.values()), *([cell_text(row.get(key)) for key in columns] for row in rows)]):
            click.echo(line)


def say_facts(facts: Mapping[str, str]) -> None:
    """Names and values in two columns; empty values are left out."""
    width = max(map(len, facts))
    for name, value in facts.items():
        if value:
            click.echo(f"{name:<{width}}  {displayable_line(value)}")


def confirm(question: str, yes: bool) -> None:
    """Ask whoever sits at a terminal, also when what is printed goes elsewhere, unless `yes`; a no ends the command."""
    seen = sys.stdout.isatty() or sys.stderr.isatty()
    if not yes and sys.stdin.isatty() and seen:
        click.confirm(displayable_line(question), abort=True, err=not sys.stdout.isatty())


def _aligned(cells: list[list[str]]) -> list[str]:
    """Columns padded to their widest cell; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(_is_number(cell) for cell in column[1:]) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]


def _is_number(cell: str) -> bool:
    return not cell or cell[0].isdigit()
