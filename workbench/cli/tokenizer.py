"""`workbench tokenizer`: train tokenizers, take in those of others, list them, show what one does."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec

from stages.store import specs
from stages.store.desk import DeskProgress
from stages.store.errors import UserError
from stages.store.files import path_of
from stages.store.lineage import delete_tokenizer
from stages.store.names import check_name
from stages.store.tokenizers import Tokenizer, find_tokenizer, list_tokenizers
from workbench.cli.common import (
    CommandGroup,
    Environment,
    SpecCommand,
    confirm,
    detach_option,
    json_option,
    pass_environment,
    run_stage,
    say,
    say_facts,
    say_json,
    say_table,
    set_option,
    stage_settings,
    yes_option,
)
from workbench.records.token_facts import fact_lines, token_lines, token_rows
from workbench.talking.desk_client import ask_once


@click.group(cls=CommandGroup)
def tokenizer() -> None:
    """Tokenizers: train, import, list, show, delete."""


@tokenizer.command("train", cls=SpecCommand, spec=specs.Tokenizer)
@click.option("--data", "dataset", required=True, metavar="NAME", help="Dataset to learn from.")
@click.option("--type", "type_", help="bpe (byte-level byte-pair encoding), wordpiece, unigram or byte.")
@click.option("--vocab-size", type=int, help="Entries, special tokens included.")
@click.option("--name", required=True, help="Name of the new tokenizer.")
@click.option("--replace", is_flag=True, default=None, help="Replace the tokenizer of this name.")
@set_option
@detach_option
@pass_environment
def train(
    env: Environment,
    dataset: str,
    type_: str | None,
    vocab_size: int | None,
    name: str,
    replace: bool | None,
    pairs: tuple[str, ...],
    detach: bool,
) -> None:
    """Train a tokenizer on the texts of a dataset."""
    check_name(name, "name of a tokenizer")
    settings = stage_settings(env, "tokenizer", pairs, type=type_, vocab_size=vocab_size, replace=replace)
    if not settings.get("replace") and (env.workspace.tokenizers / name).exists():
        raise UserError(f"There is already a tokenizer {name!r}.", "Choose another name, or pass --replace.")
    run_stage(env, "tokenizer", name, settings, dataset=dataset, detach=detach)
    if not detach:
        info = find_tokenizer(env.workspace, name).info
        say(f"Trained the tokenizer {name}: {info.vocab_size:,} entries{_density(info.bytes_per_token)}.")
        for note in info.notes:
            say(note)


@tokenizer.command("import")
@click.argument("source", metavar="PATH")
@click.option("--name", required=True, help="Name of the new tokenizer.")
@click.option("--end", default="", metavar="TOKEN", help="Which of its tokens ends a text, where its files do not say.")
@click.option("--pad", default="", metavar="TOKEN", help="Which of its tokens is padding; without one, one is added.")
@click.option("--replace", is_flag=True, help="Replace the tokenizer of this name.")
@pass_environment
def import_(env: Environment, source: str, name: str, end: str, pad: str, replace: bool) -> None:
    """Take in a tokenizer of others: tokenizer.json, or GPT-2's encoder.json with vocab.bpe.

    PATH is one of these files, or the folder that holds them. Nothing is downloaded.
    """
    check_name(name, "name of a tokenizer")
    path = path_of(source).absolute()
    given: dict[str, Any] = {"name": name, "end": end, "pad": pad, "replace": replace}
    ask_once(env.workspace, "tokenizer.import", source=str(path), **given)
    info = find_tokenizer(env.workspace, name).info
    say(f"Imported the tokenizer {name}: {info.type}, {info.vocab_size:,} entries.")
    for note in info.notes:
        say(note)


@tokenizer.command("list")
@json_option
@pass_environment
def list_(env: Environment, as_json: bool) -> None:
    """List the tokenizers of the workspace."""
    say_table(
        [_row(entry) for entry in list_tokenizers(env.workspace)],
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
@click.argument("name", metavar="TOKENIZER")
@click.option("--text", help="Show this text as tokens.")
@click.option("--data", "dataset", metavar="NAME", help="Show how it fits a dataset, and the tokens it never uses.")
@click.option("--with", "other", metavar="T2", help="The same for a second tokenizer, to compare.")
@json_option
@pass_environment
def show(env: Environment, name: str, text: str | None, dataset: str | None, other: str | None, as_json: bool) -> None:
    """Show a tokenizer: size, special tokens, bytes per token, round trips.

    With --text or --data, T may also be the folder of a checkpoint.
    """
    names = [name, *([other] if other else [])]
    if text is not None:
        found = {each: ask_once(env.workspace, "tokens.of", tokenizer=each, texts=[text])[0] for each in names}
        say_json(token_rows(found, text)) if as_json else say("\n".join(token_lines(found, text)))
    if dataset is not None:
        facts = {each: _facts(env, each, dataset) for each in names}
        say_json(facts) if as_json else say("\n".join(fact_lines(facts)))
    if text is not None or dataset is not None:
        return
    if other is not None:
        raise UserError("--with compares on a text or a dataset.", "Give --text TEXT or --data NAME as well.")
    info = find_tokenizer(env.workspace, name).info
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
            "round trips": f"{info.round_trips:,} of {info.round_trip_checked:,} texts come back exactly",
            "dataset": f"{info.dataset} ({info.dataset_digest[:12]})" if info.dataset else "",
            "sample": info.sample,
            "imported from": info.source,
            "notes": " ".join(info.notes),
            "digest": info.digest,
        }
    )


@tokenizer.command("delete")
@click.argument("name", metavar="TOKENIZER")
@yes_option
@pass_environment
def delete(env: Environment, name: str, yes: bool) -> None:
    """Delete a tokenizer that nothing needs."""
    find_tokenizer(env.workspace, name)
    confirm(f"Delete the tokenizer {name!r}?", yes)
    delete_tokenizer(env.workspace, name)
    say(f"Deleted the tokenizer {name}. `workbench bin restore {name}` takes it back.")


def _facts(env: Environment, name: str, dataset: str) -> Any:
    def told(progress: DeskProgress) -> None:
        if sys.stderr.isatty():
            share = progress.done / progress.total if progress.total else 0
            click.echo(f"\r{progress.phase} {share:.0%} ", nl=progress.done == progress.total, err=True)

    return ask_once(env.workspace, "tokens.facts", on_progress=told, tokenizer=name, dataset=dataset)


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
