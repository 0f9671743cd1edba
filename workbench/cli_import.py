"""`workbench import FOLDER --name M`: take in a model that others made."""

from __future__ import annotations

import click

from stages.store.errors import UserError
from stages.store.hub import model_source
from stages.store.models import find_model
from stages.store.names import check_name
from workbench.cli_common import House, detach_option, pass_house, run_stage, say, stage_settings


@click.command("import")
@click.argument("source", metavar="FOLDER")
@click.option("--name", required=True, help="Name of the model in the workspace.")
@click.option("--replace", is_flag=True, default=None, help="Replace the model of this name.")
@detach_option
@pass_house
def import_(house: House, source: str, name: str, replace: bool | None, detach: bool) -> None:
    """Import a model: a Hugging Face folder with weights, tokenizer and chat template.

    FOLDER holds config.json, safetensors in fp32, fp16 or bf16, and tokenizer.json, as save_pretrained writes them; or
    it is the id (org/name) of a model in the local Hugging Face cache: nothing is downloaded. Known are GPT-2, GPT-1,
    Llama (and what has its shape, such as SmolLM2), Mistral, Qwen2 and Qwen3. Afterwards NAME is a checkpoint like any
    other: `workbench chat NAME`.
    """
    check_name(name, "name of a model")
    folder = model_source(source)
    settings = stage_settings(house, "importing", (), source=str(folder), replace=replace)
    if not settings.get("replace") and (house.workspace.models / name).exists():
        raise UserError(f"There is already a model {name!r}.", "Choose another name, or pass --replace.")
    run_stage(house, "importing", name, settings, detach=detach)
    if not detach:
        info = find_model(house.workspace, name).info
        template = ", with a chat template" if info.chat_template else ""
        say(f"Imported {name}: {info.family}, {info.parameters:,} parameters in {info.dtype}{template}.")
        say(f"`workbench chat {name}` talks to it.")
