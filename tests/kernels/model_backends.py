"""A small model under each attention backend in turn: what came out, as JSON. On the GPU where there is one and
TRITON_INTERPRET is not 1, else on the CPU, with Triton in its interpreter."""

from __future__ import annotations

from tests.kernels.device import DEVICE  # isort: skip  # before the kernels are decorated

import importlib
import json
import os

import torch
from torch import Tensor

from kernels.choice import rows
from stages.models.decoder import Decoder, new_decoder
from stages.store.architecture import ModelConfig

DOORS = [importlib.import_module(f"kernels.{name}") for name in ("attention", "linear_cross_entropy", "elementwise")]

BACKENDS = ("reference", "sdpa", "triton")
SHAPE = ModelConfig(layers=2, heads=4, width=64, context=48, vocab_size=31)
LLAMA = ModelConfig(
    family="llama", layers=2, heads=4, kv_heads=2, width=64, ff_width=112, context=48, vocab_size=31, norm_kind="rms",
    positions="rotary", activation="silu", gated=True, bias=False,
)  # fmt: skip


def use(backend: str) -> None:
    """Have every further call served by this backend, and by PyTorch where it is none of that call's."""
    os.environ["WORKBENCH_ATTENTION"] = backend
    os.environ["WORKBENCH_CROSS_ENTROPY"] = "triton" if backend == "triton" else "whole"
    os.environ["WORKBENCH_ELEMENTWISE"] = "triton" if backend == "triton" else "torch"
    for door in DOORS:
        door._chosen.clear()
    rows.clear()


def served() -> list[str]:
    """Who served attention; by Triton, who served anything."""
    return sorted({row.backend for row in rows.values() if row.backend not in ("whole", "torch")})


def draw(seed: int, *shape: int) -> Tensor:
    """Random tokens, the same on every device."""
    return torch.randint(0, 31, shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def loss_and_gradients(shape: ModelConfig, dtype: torch.dtype) -> dict[str, object]:
    """Of one training step: the loss, and each backend's distance from the reference over all gradients."""
    found: dict[str, object] = {}
    truth: list[Tensor] = []
    for backend in BACKENDS:
        use(backend)
        model = new_decoder(shape, 0, dtype).to(DEVICE)
        tokens = draw(1, 2, 41)
        loss = model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        gradients = [parameter.grad.double() for parameter in model.parameters()]
        truth = truth or gradients
        distance = max(
            ((a - b).norm() / b.norm().clamp(min=1e-9)).item() for a, b in zip(gradients, truth, strict=True)
        )
        found[backend] = {"loss": loss.item(), "distance": distance, "served": served()}
    return found


def packed_against_alone(model: Decoder) -> float:
    """Largest difference between logits of packed documents and of each document by itself."""
    documents = [draw(n, n) for n in (5, 33, 1, 20)]
    bounds = torch.tensor([0, 5, 38, 39, 59], device=DEVICE)
    packed = model.hidden_states(torch.cat(documents)[None], bounds)
    alone = torch.cat([model.hidden_states(document[None]) for document in documents])
    return (packed - alone).abs().max().item()


def decoded_against_whole(model: Decoder) -> float:
    """Largest difference between logits decoded token by token from a cache and those of the whole sequence."""
    tokens = draw(3, 2, 14)
    whole = model(tokens)
    cache = model.new_cache(2, 16)
    for row in range(2):
        model.prefill(tokens[row, :6], cache, row)
    steps = [model.decode(tokens[:, place], cache) for place in range(6, 14)]
    return max((step - whole[:, place]).abs().max().item() for place, step in enumerate(steps, 6))


def main() -> None:
    found: dict[str, object] = {
        f"{shape.family} {str(dtype).removeprefix('torch.')}": loss_and_gradients(shape, dtype)
        for shape, dtype in ((SHAPE, torch.float32), (SHAPE, torch.bfloat16), (LLAMA, torch.float32))
    }
    use("triton")
    model = new_decoder(SHAPE, 0).eval().to(DEVICE)
    with torch.no_grad():
        found["packed"], found["decoded"] = packed_against_alone(model), decoded_against_whole(model)
    found["served"] = served()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
