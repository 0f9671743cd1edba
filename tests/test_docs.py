"""What the words say is so: commands in them parse, files they link to exist."""

from __future__ import annotations

import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest

from stages.data.records import FIELDS
from stages.store.checkpoints import Lineage
from stages.store.datasets import DatasetInfo
from stages.store.endpoints import Endpoint
from stages.store.errors import UserError
from stages.store.groups import Group
from stages.store.labels.schema import create
from stages.store.presets import read_preset
from stages.store.rundir import RunSpec, RunState
from stages.store.specs import STAGES
from stages.store.tokenizers import TokenizerInfo
from workbench.cli.common import parse_pairs
from workbench.cli.root import workbench

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")])


def commands(page: Path) -> Iterator[str]:
    """Lines of code that call the program."""
    for line in page.read_text("utf-8").splitlines():
        if line.startswith("    workbench ") and "►" not in line:
            yield line.strip()


def parse(arguments: list[str]) -> None:
    """Read the arguments as the command would, without running it. Raises click.UsageError for what it refuses."""
    command: click.Command = workbench
    context = click.Context(command, info_name="workbench")
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        found = command.get_command(context, arguments[0])
        if found is None:
            raise click.UsageError(f"no command {arguments[0]}")
        command, arguments = found, arguments[1:]
    made = command.make_context(command.name, list(arguments), parent=context)
    if made.params.get("preset"):
        read_preset(made.params["preset"])
    if command.name in STAGES and made.params.get("pairs"):
        parse_pairs(STAGES[command.name], made.params["pairs"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    for line in commands(page):
        try:
            parse(shlex.split(line, comments=True)[1:])
        except (click.UsageError, UserError) as error:
            pytest.fail(f"{page.name}: {line}\n{error}")


def test_a_wrong_command_would_be_found() -> None:
    misspelt = "train pretrain --data a --tokenizer b --set stpes=3"
    no_preset = "train pretrain --data a --tokenizer b --preset gpt2"
    for wrong in ("trian pretrain", "train pretrain --dta notes", "runs shwo x", "card", misspelt, no_preset):
        with pytest.raises((click.UsageError, UserError)):
            parse(shlex.split(wrong))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_that_is_named_is_there(page: Path) -> None:
    rooms = "workbench|stages|kernels|assets|tests|benchmarks|docs"
    for path in re.findall(rf"`((?:{rooms})/[\w/.-]+)`", page.read_text("utf-8")):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_page_of_formats_names_every_field_and_column() -> None:
    page = (ROOT / "docs" / "formats.md").read_text("utf-8")
    for struct in (DatasetInfo, TokenizerInfo, RunSpec, RunState, Lineage, Endpoint, Group):
        missing = [field for field in struct.__struct_fields__ if f"`{field}`" not in page]
        assert not missing, f"{struct.__name__}: {missing}"
    told = re.findall(r"^\| (\w+) \| (\w+) \| (.+) \|$", page, re.MULTILINE)
    assert told[1:] == [(kind, name, str(type_)) for kind, fields in FIELDS.items() for name, type_ in fields]
    with closing(sqlite3.connect(":memory:")) as labels:
        create(labels)
        made = {name for (name,) in labels.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
    assert not [name for name in made - {"in_force"} if f"`{name}`" not in page]
