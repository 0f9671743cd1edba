"""`workbench import FOLDER --name M`: take in a model that others made."""

from __future__ import annotations

import click
import msgspec

from stages.store.endpoint_http import list_served
from stages.store.endpoints import Endpoint, add_endpoint, check_url
from stages.store.errors import UserError
from stages.store.hub import model_source
from stages.store.models import find_model
from stages.store.names import check_name
from workbench.cli.common import Environment, detach_option, pass_environment, run_stage, say, stage_settings

ASKED = {
    "": "`workbench chat {0}` talks to it.",
    "labels": "`workbench classify {0} TEXT` tells what it says of a text.",
    "reward": "`workbench score {0} --prompt … --answer …` scores answers.",
}
"""By what a model has in place of an output layer: how it is used."""


@click.command("import")
@click.argument("source", metavar="FOLDER")
@click.option("--name", help="Name of the model in the workspace; it is needed.")
@click.option("--model", metavar="ID", help="Of an endpoint: which of its models; needed where it serves several.")
@click.option("--key-env", default="", metavar="NAME", help="Of an endpoint: the environment variable with its key.")
@click.option("--base", is_flag=True, help="Of an endpoint: its model continues texts, and does not chat.")
@click.option("--replace", is_flag=True, default=None, help="Replace the model of this name.")
@detach_option
@pass_environment
def import_(
    env: Environment,
    source: str,
    name: str | None,
    model: str | None,
    key_env: str,
    base: bool,
    replace: bool | None,
    detach: bool,
) -> None:
    """Import a model: a Hugging Face folder with weights, tokenizer and chat template.

    FOLDER holds config.json, safetensors in fp32, fp16 or bf16, and tokenizer.json, as save_pretrained writes them; or
    it is the id (org/name) of a model in the local Hugging Face cache: nothing is downloaded. Known are GPT-2, GPT-1,
    Llama (and what has its shape, such as SmolLM2), Mistral, Qwen2 and Qwen3, BERT and T5, and of GPT-2, Llama and its
    kin and BERT those that label or score texts. Afterwards NAME is a checkpoint like any other: `workbench chat NAME`.

    FOLDER may also be the address of an OpenAI-compatible endpoint, such as http://localhost:11434/v1 of Ollama or
    http://localhost:8000/v1 of vLLM or llama.cpp. Its model can then be chatted with and sampled from, so that its
    answers can be ranked beside those of your own; nothing is sent there unless you ask it something.
    """
    if source.startswith(("http://", "https://")):
        kind, name = "base" if base else "chat", _named(name)
        _add_endpoint(env, name, Endpoint(url=check_url(source), model=model or "", key=key_env, kind=kind))
        return
    if model or key_env or base:
        raise UserError(
            "--model, --key-env and --base are about endpoints.", "Give an address, such as http://localhost:8000/v1."
        )
    folder, name = model_source(source), _named(name)
    settings = stage_settings(env, "importing", (), source=str(folder), replace=replace)
    if not settings.get("replace") and (env.workspace.models / name).exists():
        raise UserError(f"There is already a model {name!r}.", "Choose another name, or pass --replace.")
    run_stage(env, "importing", name, settings, detach=detach)
    if not detach:
        info = find_model(env.workspace, name).info
        template = ", with a chat template" if info.chat_template else ""
        say(f"Imported {name}: {info.family}, {info.parameters:,} parameters in {info.dtype}{template}.")
        say(ASKED[info.head].format(name))


def _named(name: str | None) -> str:
    """The name that was given. It is asked for after the folder is found, which is what people get wrong first."""
    if name is None:
        raise UserError("The model needs a name in the workspace.", "Add --name NAME.")
    return check_name(name, "name of a model")


def _add_endpoint(env: Environment, name: str, endpoint: Endpoint) -> None:
    """Ask an endpoint what it serves, and keep it."""
    served = list_served(endpoint.url, endpoint.secret())
    known = f"It serves {', '.join(list(served)[:20])}." if served else "It serves none."
    if not endpoint.model and len(served) != 1:
        raise UserError(f"{endpoint.url} serves {len(served)} models.", f"Choose one: --model ID. {known}")
    if endpoint.model and endpoint.model not in served:
        raise UserError(f"{endpoint.url} does not serve {endpoint.model!r}.", known)
    model = endpoint.model or next(iter(served))
    chosen = msgspec.structs.replace(endpoint, model=model, server=served[model])
    add_endpoint(env.workspace, name, chosen)
    say(f"{name} is {chosen.model} at {chosen.url}.")
    say(f"`workbench chat {name}` talks to it; `workbench sample --from {name}` has it write answers to rank.")
