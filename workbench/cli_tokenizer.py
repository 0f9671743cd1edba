"""`workbench tokenizer`: train tokenizers, list them, show what one does."""

from __future__ import annotations

import click
import msgspec

from stages.store import specs
from stages.store.errors import UserError
from stages.store.lineage import delete_tokenizer
from stages.store.names import check_name
from stages.store.tokenizers import Tokenizer, find_tokenizer, list_tokenizers
from workbench.cli_common import (
    House,
    SpecCommand,
    confirm,
    detach_option,
    json_option,
    pass_house,
    run_stage,
    say,
    say_facts,
    say_json,
    say_table,
    set_option,
    stage_settings,
)


@click.group()
def tokenizer() -> None:
    """Tokenizers: train, list, show, delete."""


@tokenizer.command("train", cls=SpecCommand, spec=specs.Tokenizer)
@click.option("--data", "dataset", required=True, metavar="NAME", help="Dataset to learn from.")
@click.option("--type", "type_", help="bpe (byte-level byte-pair encoding) or byte.")
@click.option("--vocab-size", type=int, help="Entries, special tokens included.")
@click.option("--name", required=True, help="Name of the new tokenizer.")
@click.option("--replace", is_flag=True, default=None, help="Replace the tokenizer of this name.")
@set_option
@detach_option
@pass_house
def train(
    house: House,
    dataset: str,
    type_: str | None,
    vocab_size: int | None,
    name: str,
    replace: bool | None,
    pairs: tuple[str, ...],
    detach: bool,
) -> None:
    """Train a tokenizer on a text dataset."""
    check_name(name, "name of a tokenizer")
    settings = stage_settings(house, "tokenizer", pairs, type=type_, vocab_size=vocab_size, replace=replace)
    if not settings.get("replace") and (house.workspace.tokenizers / name).exists():
        raise UserError(f"There is already a tokenizer {name!r}.", "Choose another name, or pass --replace.")
    run_stage(house, "tokenizer", name, settings, dataset=dataset, detach=detach)
    if not detach:
        info = find_tokenizer(house.workspace, name).info
        say(f"Trained the tokenizer {name}: {info.vocab_size:,} entries{_density(info.bytes_per_token)}.")


@tokenizer.command("list")
@json_option
@pass_house
def list_(house: House, as_json: bool) -> None:
    """List the tokenizers of the workspace."""
    say_table(
        [_row(entry) for entry in list_tokenizers(house.workspace)],
        {
            "name": "name",
            "kind": "kind",
            "vocab_size": "entries",
            "bytes_per_token": "bytes/token",
            "dataset": "dataset",
        },
        as_json=as_json,
        empty="There is no tokenizer yet. `workbench tokenizer train --data NAME --name NAME` trains one.",
    )


@tokenizer.command("show")
@click.argument("name")
@json_option
@pass_house
def show(house: House, name: str, as_json: bool) -> None:
    """Show a tokenizer: size, special tokens, bytes per token, round trips."""
    info = find_tokenizer(house.workspace, name).info
    if as_json:
        say_json(msgspec.to_builtins(info))
        return
    say_facts(
        {
            "name": info.name,
            "kind": info.type,
            "entries": f"{info.vocab_size:,}",
            "special": ", ".join(f"{role} = {index}" for role, index in info.special.items()),
            "bytes/token": f"{info.bytes_per_token:.3f}" if info.bytes_per_token else "",
            "round trips": f"{info.round_trips:,} of {info.round_trip_checked:,} documents",
            "dataset": f"{info.dataset} ({info.dataset_digest[:12]})",
            "digest": info.digest,
        }
    )


@tokenizer.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_house
def delete(house: House, name: str, yes: bool) -> None:
    """Delete a tokenizer that nothing needs."""
    find_tokenizer(house.workspace, name)
    confirm(f"Delete the tokenizer {name!r}?", yes)
    delete_tokenizer(house.workspace, name)
    say(f"Deleted the tokenizer {name}.")


def _row(entry: Tokenizer) -> dict[str, object]:
    info = entry.info
    return {
        "name": entry.name,
        "kind": info.type,
        "vocab_size": info.vocab_size,
        "bytes_per_token": info.bytes_per_token,
        "dataset": info.dataset,
        "digest": info.digest,
        "created": info.created,
    }


def _density(bytes_per_token: float | None) -> str:
    return f", {bytes_per_token:.3f} bytes a token on validation text" if bytes_per_token else ""
