"""The catalogue of imported models: models/<name>/ is a Hugging Face folder with a manifest and model.info.json."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from stages.store.checkpoints import Checkpoint
from stages.store.files import read_facts
from stages.store.folders import find_folder, list_folders
from stages.store.workspace import Workspace

INFO = "model.info.json"


class ModelInfo(msgspec.Struct, kw_only=True, frozen=True):
    """model.info.json: what is shown of a model without opening it."""

    name: str
    family: str
    parameters: int
    dtype: str
    """As stored: float32, bfloat16 or float16."""
    layers: int
    heads: int
    width: int
    context: int
    vocab_size: int
    bytes: int
    """Of the weights."""
    chat_template: bool = False
    head: str = ""
    """"reward" for a model that scores texts, "labels" for one that labels them, "" for one that writes them."""
    source: str = ""
    run: str = ""
    created: float = 0.0
    schema: int = 1


class Model(NamedTuple):
    """An imported model in the workspace."""

    path: Path
    info: ModelInfo

    @property
    def name(self) -> str:
        return self.path.name

    def digest(self) -> str:
        """Names the content: the SHA-256 of the manifest."""
        return Checkpoint(self.path, 0).digest()


def list_models(workspace: Workspace) -> list[Model]:
    """All complete imported models by name."""
    return list_folders(workspace.models, INFO, _open)


def find_model(workspace: Workspace, name: str) -> Model:
    """The imported model of this name; UserError naming the nearest otherwise."""
    makes = "import FOLDER --name NAME"
    return _open(find_folder(workspace.models, INFO, name, what="imported model", makes=makes))


def _open(path: Path) -> Model:
    return Model(path, read_facts(path / INFO, ModelInfo))
