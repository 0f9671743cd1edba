"""Importing a model: check what the folder says against what its weights are, copy it, and publish it in one rename.

Weights are checked by their headers and copied as they stand, so that memory does not grow with the model and its dtype
is kept. Nothing in the folder is run: no pickle is opened and no code that comes with a model.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from torch import nn

from stages.data.tokenizer import TextTokenizer
from stages.data.tokenizer_import import import_tokenizer
from stages.models.decoder import Decoder
from stages.models.encoder import Encoder
from stages.models.heads import empty_classifier, read_head, stands_apart
from stages.models.hf import match
from stages.models.hf_config import FORMATS, head_of, read_any_config, read_config, read_json
from stages.models.peft_folder import CONFIG as ADAPTER_CONFIG
from stages.models.t5 import T5, t5_config
from stages.models.transformer_xl import TransformerXL
from stages.models.value import empty_value_model
from stages.models.weights import INDEX, WEIGHTS
from stages.run import Run
from stages.store.architecture import ModelConfig
from stages.store.building import building
from stages.store.checkpoints import LINEAGE, Lineage, write_manifest
from stages.store.classifiers import FILE as CLASSIFIER
from stages.store.errors import UserError
from stages.store.files import check_space, write_atomic
from stages.store.hub import model_source
from stages.store.models import INFO, ModelInfo
from stages.store.rewards import FILE as REWARD
from stages.store.sizes import parameter_count
from stages.store.specs.importing import Importing

DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
TEMPLATE = "chat_template.jinja"
BESIDE = ("config.json", "generation_config.json", TEMPLATE, CLASSIFIER, REWARD)
"""What is copied beside the weights, where it is there."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
GPT2_TOKENIZER = ("vocab.json", "merges.txt")
MORE = {"BertForMaskedLM": "BertForPreTraining"}
"""Classes with further parts than the one we use."""
MODELS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "decoder": Decoder,
    "encoder": Encoder,
    "encoder-decoder": T5,
    "recurrent decoder": TransformerXL,
}
"""What such weights fill."""
PIECE = 16 * 2**20
"""Bytes copied at once."""

Progress = Callable[[str, int, int], None]
"""Called with the phase, the bytes done and the bytes in all. It may raise, to cancel."""


class Found(NamedTuple):
    """A model folder that can be taken in."""

    folder: Path
    config: ModelConfig
    dtype: str
    weights: list[Path]
    beside: list[Path]
    parameters: int
    head: str = ""
    """"reward" for a model that scores texts, "labels" for one that labels them."""

    @property
    def size(self) -> int:
        """Bytes of all files that are to be copied."""
        return sum(path.stat().st_size for path in (*self.weights, *self.beside))


def run(run: Run) -> dict[str, Any]:
    """Import the model that has the run's name; what it is."""
    settings = run.settings(Importing)

    def progress(phase: str, done: int, total: int) -> None:
        run.progress(done, total, unit="bytes", phase=phase)

    progress("checking", 0, 0)
    found = inspect(model_source(settings.source))
    with building(run.workspace.models, run.spec.name, "model", replace=settings.replace) as folder:
        info = import_model(found, folder, run.spec.name, progress, run_id=run.dir.id)
    return {
        "model": info.name,
        "parameters": info.parameters,
        "dtype": info.dtype,
        "family": info.family,
        "head": info.head,
    }


def inspect(folder: Path) -> Found:
    """Check a folder by its configuration and the headers of its weights. UserError for what is wrong."""
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
        raise UserError(f"{folder} is an adapter, not a model.", "Import the model that it was trained on.")
    config = read_any_config(folder)
    if config.kind == "encoder-decoder":
        config = t5_config(folder)
    head = head_of(folder)
    if head:
        build = _headed(folder, config, head)
    else:
        _check_architecture(read_json(folder / "config.json"), folder)
        build = MODELS[config.kind]
    stored = [place for _, place in match(folder, config, build).values()]
    kinds = {place.dtype for place in stored}
    if not kinds <= DTYPES.keys():
        raise UserError(f"{folder} holds weights in {min(kinds - DTYPES.keys())}.", "Known are fp32, fp16 and bf16.")
    weights = sorted({place.file for place in stored})
    names = [*BESIDE, *([] if (folder / WEIGHTS).is_file() else [INDEX])]
    beside = [folder / name for name in names if (folder / name).is_file()]
    whole = all((folder / name).is_file() for name in GPT2_TOKENIZER)
    if not whole and not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"{folder} holds no tokenizer.json.",
            "Save its tokenizer with a recent transformers (AutoTokenizer…save_pretrained) into the folder.",
        )
    parameters = sum(math.prod(place.shape) for place in stored) if head else parameter_count(config).total
    return Found(folder, config, _prevailing(stored), weights, beside, parameters, head)


def import_model(found: Found, folder: Path, name: str, progress: Progress, *, run_id: str = "") -> ModelInfo:
    """Fill `folder` with the model, its facts and a manifest."""
    check_space(folder, found.size)
    done = 0
    for path in (*found.beside, *found.weights):
        for count in _copy(path, folder / path.name):
            done += count
            progress("copying", done, found.size)
    template = chat_template(found.folder)
    if template is not None and not (folder / TEMPLATE).exists():
        (folder / TEMPLATE).write_text(template, "utf-8")
    progress("reading the tokenizer", done, found.size)
    _take_tokenizer(found, folder)
    info = ModelInfo(
        name=name,
        family=found.config.family,
        parameters=found.parameters,
        dtype=found.dtype,
        layers=found.config.layers,
        heads=found.config.heads,
        width=found.config.width,
        context=found.config.context,
        vocab_size=found.config.vocab_size,
        bytes=sum(path.stat().st_size for path in found.weights),
        chat_template=(folder / TEMPLATE).is_file(),
        head=found.head,
        source=str(found.folder),
        run=run_id,
        created=time.time(),
    )
    lineage = Lineage(
        stage="importing", run=run_id, name=name, step=0, settings={"source": info.source}, created=info.created
    )
    for file, value in ((INFO, info), (LINEAGE, lineage)):
        write_atomic(folder / file, msgspec.json.format(msgspec.json.encode(value), indent=1), durable=False)
    progress("verifying", found.size, found.size)
    write_manifest(folder)
    return info


def chat_template(folder: Path) -> str | None:
    """The template that a folder's tokenizer_config.json holds inside, as older files do; the default of several."""
    path = folder / "tokenizer_config.json"
    inside = read_json(path).get("chat_template") if path.is_file() else None
    if isinstance(inside, list):
        named = {each.get("name"): each.get("template") for each in inside if isinstance(each, dict)}
        inside = named.get("default")
    return inside if isinstance(inside, str) else None


def _headed(folder: Path, config: ModelConfig, head: str) -> Callable[[ModelConfig], nn.Module]:
    """What builds a model that scores or labels. UserError for one whose head stands in a file of its own."""
    if head == "reward":
        read_config(folder)  # a decoder
        return empty_value_model
    labels = read_head(folder)
    if stands_apart(config, labels):
        raise UserError(f"{folder} holds a head that stands beside its model.", "Use it by its path.")
    return empty_classifier(folder, labels)


def _check_architecture(raw: dict[str, Any], folder: Path) -> None:
    """Another head has the model's type too, and weights that a language model has no place for."""
    wanted = FORMATS[raw["model_type"]].architecture
    named = raw.get("architectures") or [wanted]
    known = (wanted, MORE.get(wanted, wanted))
    if not isinstance(named, list) or not any(name in known for name in named):
        shown = str(named[0] if isinstance(named, list) else named)[:60]
        raise UserError(f"{folder} holds a {shown}, and only {wanted} can be imported of that type.")


def _prevailing(stored: list[Any]) -> str:
    """The dtype that most tensors have."""
    kinds = [place.dtype for place in stored]
    return DTYPES[max(sorted(set(kinds)), key=kinds.count)]


def _copy(source: Path, target: Path) -> Iterator[int]:
    """Copy a file in pieces; yields the bytes of each. UserError when it is another length than it was."""
    with source.open("rb") as reading, target.open("wb") as writing:
        while piece := reading.read(PIECE):
            writing.write(piece)
            yield len(piece)


def _take_tokenizer(found: Found, folder: Path) -> None:
    """Put the tokenizer beside the weights, opened and tried in a child that a hostile file cannot hold up.

    Where it has no token for padding and the model no row for one, its files stay as they stand.
    """
    rows = found.config.vocab_size
    try:
        import_tokenizer(found.folder, folder, rows=rows)
        return
    except UserError:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            info = import_tokenizer(found.folder, Path(place))
        if info.vocab_size - 1 > rows:  # without the padding that was added
            raise
    for name in TOKENIZER:
        if (found.folder / name).is_file():
            shutil.copyfile(found.folder / name, folder / name)
    TextTokenizer.load(folder)
