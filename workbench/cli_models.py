"""`workbench models`: presets and imported models, with exact parameter counts."""

from __future__ import annotations

import click
import msgspec

from stages.store.lineage import children_of_model, delete_model
from stages.store.models import Model, find_model, list_models
from stages.store.presets import list_presets, read_preset
from stages.store.sizes import parameter_count
from workbench.cli_common import House, confirm, json_option, pass_house, say, say_facts, say_json, say_table

COLUMNS = ("name", "kind", "from", "parameters", "layers", "heads", "width", "context", "vocabulary")


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List presets and imported models, or show or delete one of those.

    A preset is a shape for a new model: its count is for the vocabulary shown, and a run takes its tokenizer's. An
    imported model is a checkpoint: `workbench import` makes one.
    """
    if ctx.invoked_subcommand is not None:
        return
    house = ctx.ensure_object(House)
    rows = [_preset(name) for name in list_presets()] + [_imported(model) for model in list_models(house.workspace)]
    say_table(rows, {key: key for key in COLUMNS}, as_json=as_json, empty="")


@models.command("show")
@click.argument("name")
@json_option
@pass_house
def show(house: House, name: str, as_json: bool) -> None:
    """Show an imported model: its shape, where it came from, and what goes on from it."""
    model = find_model(house.workspace, name)
    info = model.info
    children = [str(child) for child in children_of_model(house.workspace, name)]
    if as_json:
        say_json(msgspec.to_builtins(info) | {"digest": model.digest(), "children": children})
        return
    say_facts(
        {
            "name": info.name,
            "kind": info.family,
            "parameters": f"{info.parameters:,} in {info.dtype}, {info.bytes / 1e6:,.0f} MB",
            "shape": f"{info.layers} layers, {info.heads} heads, width {info.width:,}",
            "context": f"{info.context:,} tokens",
            "vocabulary": f"{info.vocab_size:,} tokens",
            "chat template": "yes" if info.chat_template else "no",
            "from": info.source,
            "needed by": ", ".join(children),
            "folder": str(model.path),
            "digest": model.digest(),
        }
    )


@models.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_house
def delete(house: House, name: str, yes: bool) -> None:
    """Delete an imported model that nothing needs."""
    find_model(house.workspace, name)
    confirm(f"Delete the model {name!r}?", yes)
    delete_model(house.workspace, name)
    say(f"Deleted the model {name}.")


def _preset(name: str) -> dict[str, object]:
    preset = read_preset(name)
    model = preset.model
    return {
        "name": name,
        "kind": model.family,
        "from": "preset",
        "parameters": parameter_count(model).total,
        "layers": model.layers,
        "heads": model.heads,
        "width": model.width,
        "context": model.context,
        "vocabulary": model.vocab_size,
        "title": preset.title,
        "about": preset.about,
        "source": preset.source,
    }


def _imported(model: Model) -> dict[str, object]:
    info = model.info
    return {
        "name": model.name,
        "kind": info.family,
        "from": "imported",
        "parameters": info.parameters,
        "layers": info.layers,
        "heads": info.heads,
        "width": info.width,
        "context": info.context,
        "vocabulary": info.vocab_size,
        "dtype": info.dtype,
        "source": info.source,
        "created": info.created,
    }
