"""Models behind an OpenAI-compatible endpoint, such as a vLLM, llama.cpp or Ollama on this machine or beside it.

models/<name>/endpoint.json stands where an imported model has its weights, with a manifest: such a model is a
checkpoint that can be chatted with and sampled from, and nothing else. No key is stored, only the name of the variable
that it is in.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from stages.store.checkpoints import write_checkpoint
from stages.store.errors import UserError
from stages.store.files import read_facts, write_atomic
from stages.store.models import INFO, ModelInfo
from stages.store.names import check_name
from stages.store.workspace import Workspace

FILE = "endpoint.json"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Endpoint(msgspec.Struct, kw_only=True, frozen=True):
    """endpoint.json."""

    url: str
    """Up to and with /v1."""
    model: str
    """What the endpoint calls it."""
    key: str = ""
    """The environment variable that holds the key; empty: none is sent."""
    kind: str = "chat"
    """chat: it answers conversations. base: it continues texts."""
    server: str = ""
    """The program that answers, as its list of models says in owned_by: llamacpp, vllm, workbench."""

    def secret(self) -> str:
        """The key itself. Raises UserError when its variable is not set."""
        if not self.key:
            return ""
        value = os.environ.get(self.key, "")
        if not value:
            raise UserError(f"{self.url} needs a key, and ${self.key} is not set.", f"export {self.key}=… first.")
        return value


def check_url(text: str) -> str:
    """The address of an endpoint without a slash at its end. Raises UserError for what is none."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or any(ord(each) <= 32 for each in text):
        raise UserError(f"{text!r} is no address of an endpoint.", "Write it like http://localhost:11434/v1.")
    if parts.username or parts.query or parts.fragment:
        raise UserError(
            f"{text!r} holds more than an address.", "Keys go into an environment variable: --key-env NAME."
        )
    return text.rstrip("/")


def add_endpoint(workspace: Workspace, name: str, endpoint: Endpoint) -> Path:
    """Keep an endpoint as the model `name`. Raises UserError when there is a model of that name."""
    if endpoint.key and not VARIABLE.fullmatch(endpoint.key):
        raise UserError(f"{endpoint.key!r} is no name of an environment variable.")
    final = workspace.ensure().models / check_name(name, "name of a model")
    if final.exists():
        raise UserError(f"There is already a model {name!r}.", "Choose another name.")
    info = ModelInfo(
        name=name,
        family="endpoint",
        parameters=0,
        dtype="",
        layers=0,
        heads=0,
        width=0,
        context=0,
        vocab_size=0,
        bytes=0,
        chat_template=endpoint.kind == "chat",
        source=f"{endpoint.model} at {endpoint.url}",
        created=time.time(),
    )

    def fill(folder: Path) -> None:
        write_atomic(folder / FILE, msgspec.json.encode(endpoint))
        write_atomic(folder / INFO, msgspec.json.encode(info))

    return write_checkpoint(final, fill).path


def endpoint_in(folder: Path) -> Endpoint | None:
    """The endpoint that a model folder stands for; None for a folder with weights."""
    path = folder / FILE
    return read_facts(path, Endpoint) if path.is_file() else None


def refuse_endpoint(folder: Path) -> None:
    """Raise UserError for a model whose weights are not here."""
    if endpoint := endpoint_in(folder):
        raise UserError(
            f"{folder.name} is a model at {endpoint.url}: its weights are not here.",
            "It can be chatted with and sampled from. All else needs a checkpoint on this machine.",
        )
