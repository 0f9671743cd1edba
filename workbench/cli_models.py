"""`workbench models`: the presets, with exact parameter counts."""

from __future__ import annotations

import click

from stages.store.presets import list_presets, read_preset
from stages.store.sizes import parameter_count
from workbench.cli_common import json_option, say_table


@click.command()
@json_option
def models(as_json: bool) -> None:
    """List presets with exact parameter counts.

    The counts are for the vocabulary shown, tied output layer counted once; a run takes its tokenizer's vocabulary.
    """
    columns = ("name", "kind", "parameters", "layers", "heads", "width", "context", "vocabulary")
    say_table([_row(name) for name in list_presets()], {key: key for key in columns}, as_json=as_json, empty="")


def _row(name: str) -> dict[str, object]:
    preset = read_preset(name)
    model = preset.model
    return {
        "name": name,
        "kind": model.family,
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
