"""LoRA on a decoder: add adapters, train them alone, merge them, and keep them as PEFT does.

`add_lora` freezes the model and adds adapters that begin as no change; `lora_parameters` are what trains. A folder of
`save_adapter` is one that `peft` opens on the same base, and `load_adapter` opens one of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stages.models.decoder import Decoder, Linear
from stages.models.lora_layer import Lora, Span
from stages.models.names import LINEAR, pieces
from stages.models.peft_folder import FILE, AdapterConfig, read_adapter_config, tensor_names, write_adapter_config
from stages.models.tensors import save_tensors
from stages.models.weights import STORED, open_file
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError


class LoraConfig(NamedTuple):
    """rank r and alpha: what adapters add is scaled by alpha / r. dropout: of the adapters' input while training.

    targets: layers by our names (attention_in, attention_out, mlp_in, mlp_out) or by the family's (q_proj, c_attn …).
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = LINEAR


def add_lora(model: Decoder, config: LoraConfig, *, seed: int = 0) -> None:
    """Freeze the model and add adapters to the targeted layers of every block. The same seed gives the same bits.

    Raises UserError for a target that the model does not have.
    """
    unknown = [target for target in config.targets if target not in target_names(model.config)]
    if unknown or not config.targets:
        raise UserError(
            f"This model has no layer {unknown[0]!r} for an adapter." if unknown else "An adapter needs a layer.",
            f"Its layers are {', '.join(target_names(model.config))}.",
        )
    _freeze(model)
    generator = torch.Generator().manual_seed(seed)
    for layer, (part, linear) in _linears(model):
        spans = [span for span in _spans(model.config, layer, part, linear) if _targeted(part, span, config.targets)]
        if spans:
            scale = config.alpha / config.rank
            lora = Lora(spans, len(linear.weight), config.rank, scale, config.dropout, linear.weight)
            lora.start(generator)
            linear.lora = lora.train(linear.training)


def lora_parameters(model: Decoder) -> list[nn.Parameter]:
    """The parameters of all adapters, in the order of the blocks; empty for a model without."""
    return [parameter for name, parameter in model.named_parameters() if ".lora." in name]


def has_lora(model: Decoder) -> bool:
    """Whether any layer has an adapter."""
    return any(linear.lora is not None for _, (_, linear) in _linears(model))


def merge_lora(model: Decoder) -> None:
    """Add the adapters to the weights and drop them. The model is then as if it had been trained whole."""
    with torch.no_grad():
        for _, (_, linear) in _linears(model):
            if linear.lora is not None:
                linear.weight.data = linear.lora.added_to(linear.weight.data)
                linear.lora = None
    for parameter in model.parameters():
        parameter.requires_grad_(True)


@contextmanager
def merged(model: Decoder) -> Iterator[None]:
    """While this lasts, the adapters are part of the weights: for saving. Then the very bits of before are back."""
    kept = [(linear, linear.lora, linear.weight.data) for _, (_, linear) in _linears(model) if linear.lora is not None]
    try:
        with torch.no_grad():
            for linear, lora, weight in kept:
                linear.weight.data, linear.lora = lora.added_to(weight), None
        yield
    finally:
        for linear, lora, weight in kept:
            linear.weight.data, linear.lora = weight, lora


@contextmanager
def without_lora(model: Decoder) -> Iterator[None]:
    """While this lasts, the model is its base: the adapters are there again afterwards."""
    kept = [(linear, linear.lora) for _, (_, linear) in _linears(model)]
    try:
        for linear, _ in kept:
            linear.lora = None
        yield
    finally:
        for linear, lora in kept:
            linear.lora = lora


def save_adapter(model: Decoder, folder: Path, base: Path | str) -> None:
    """Write adapter_config.json and adapter_model.safetensors into an existing folder.

    base: the model folder, or the id, of what the adapters were trained on. Raises OSError when the disk refuses.
    """
    loras = [linear.lora for _, (_, linear) in _linears(model) if linear.lora is not None]
    assert loras, "the model has no adapters"
    targets = sorted({_peft_target(span.name) for lora in loras for span in lora.spans})
    rank = loras[0].a[0].shape[1]
    write_adapter_config(
        folder,
        AdapterConfig(
            base=str(base),
            rank=rank,
            alpha=loras[0].scale * rank,
            dropout=loras[0].dropout,
            targets=tuple(targets),
            inputs_first=model.config.family in ("gpt2", "gpt1"),
        ),
    )
    tensors: dict[str, Tensor] = {}
    for lora in loras:
        for span, a, b in zip(lora.spans, lora.a, lora.b, strict=True):
            for name, tensor in zip(tensor_names(span.name), (a, b), strict=True):
                tensors[name] = tensor.detach().to("cpu").t().contiguous()
    save_tensors(tensors, folder / FILE, {"format": "pt"})


def load_adapter(model: Decoder, folder: Path) -> None:
    """Freeze the model and give it the adapters of a PEFT folder, in the model's dtype and on its device.

    Raises UserError in one sentence for a folder that is damaged, of another kind of adapter, or for another model.
    """
    config = read_adapter_config(folder)
    _freeze(model)
    with open_file(folder / FILE) as file:
        stored = set(file.keys())
        for layer, (part, linear) in _linears(model):
            spans = [s for s in _spans(model.config, layer, part, linear) if stored.intersection(tensor_names(s.name))]
            if not spans:
                continue
            lora = Lora(spans, len(linear.weight), config.rank, config.scale, config.dropout, linear.weight)
            for span, a, b in zip(spans, lora.a, lora.b, strict=True):
                for name, parameter in zip(tensor_names(span.name), (a, b), strict=True):
                    _fill(parameter, file, name, folder, stored)
                    stored.discard(name)
            linear.lora = lora.train(linear.training)
    if stored:
        raise UserError(
            f"The adapter in {folder} has {min(stored)[:120]!r}, for which the model has no place.",
            "It was trained on another model, or on layers that cannot be adapted here.",
        )
    if not has_lora(model):
        raise UserError(f"The adapter in {folder} holds no weights.")


def target_names(config: ModelConfig) -> list[str]:
    """What `LoraConfig.targets` may name: our layers, then the family's."""
    published = [piece.name for part in LINEAR for piece in pieces(config, f"blocks.0.{part}.weight")]
    names = [name.removesuffix(".weight").split(".", 3)[3] for name in published]
    return [*LINEAR, *dict.fromkeys(name.rpartition(".")[2] for name in names)]


def _fill(parameter: Tensor, file: object, name: str, folder: Path, stored: set[str]) -> None:
    if name not in stored:
        raise UserError(f"The adapter in {folder} lacks {name}.", "It may be damaged.")
    piece = file.get_slice(name)  # type: ignore[attr-defined]  # the library's handle has no type of its own
    wanted = tuple(parameter.t().shape)
    if tuple(piece.get_shape()) != wanted or piece.get_dtype() not in STORED:
        found = f"{piece.get_dtype()} {tuple(piece.get_shape())}"
        raise UserError(f"{name} in the adapter {folder} is {found}, and the model asks for floats {wanted}.")
    with torch.no_grad():
        parameter.copy_(piece[:].t())


def _freeze(model: Decoder) -> None:
    assert not has_lora(model), "the model has adapters already"
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def _linears(model: Decoder) -> Iterator[tuple[int, tuple[str, Linear]]]:
    for layer, block in enumerate(model.blocks):
        for part in LINEAR:
            yield layer, (part, getattr(block, part))


def _spans(config: ModelConfig, layer: int, part: str, linear: Linear) -> list[Span]:
    outputs = linear.weight.shape[1]
    return [
        Span(piece.name.removesuffix(".weight"), piece.start, piece.stop if piece.stop >= 0 else outputs)
        for piece in pieces(config, f"blocks.{layer}.{part}.weight")
    ]


def _targeted(part: str, span: Span, targets: tuple[str, ...]) -> bool:
    return part in targets or span.name.rpartition(".")[2] in targets


def _peft_target(name: str) -> str:
    """How adapter_config.json names a layer: by its last name, or the last two where GPT-2 has one name twice."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1] == "c_proj" else parts[-1]
