"""What stands between a transformer's matrix products, counted in bytes that pass through memory. Nothing is timed.

    python -m benchmarks.traffic

For each operation of a layer, forward and backward, in bf16: what PyTorch's operations read and write, counted on
tensors without storage, beside what our kernels are given to read and write. The time saved is set against that of the
layer's matrix products at an H100's published rates, which flatters the products: they rarely reach theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import elementwise, triton_elementwise

TOKENS = 4096
BANDWIDTH, PRODUCTS = 3.35e12, 790e12
"""An H100's bytes a second, and bf16 operations a second in an 8,192³ product."""


class Layer(NamedTuple):
    """A transformer layer's sizes: width, feed-forward width, query heads, key heads, head width."""

    name: str
    C: int
    F: int
    H: int
    G: int
    D: int

    def flops(self) -> int:
        """Of the matrix products for a token, forward and backward: 6 for each weight."""
        return 6 * (self.C * (2 * self.H + 2 * self.G) * self.D + 3 * self.C * self.F)


LAYERS = (Layer("Llama 1.1B", 2048, 5632, 32, 4, 64), Layer("SmolLM2 135M", 576, 1536, 9, 3, 64))


def size(found: Any) -> int:
    """Bytes of all tensors in arguments or results."""
    tensors = [x for x in torch.utils._pytree.tree_leaves(found) if isinstance(x, Tensor)]
    return sum(x.numel() * x.element_size() for x in tensors)


class Counter(TorchDispatchMode):
    """Counts what every operation that is no view reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        allocates = "empty" in str(function) or "detach" in str(function)
        if not function.is_view and not allocates:
            self.bytes += size((args, kwargs)) + size(found)
        return found


class Kernel:
    """Stands for a Triton kernel at its launch and counts the tensors that it is given."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*arguments: Any, **options: Any) -> None:
            tables = (
                options.get("COLUMNS") and arguments[1:3]
            )  # broadcast: one row serves all heads and rows of a batch
            self.counter.bytes += size(arguments) - (size(tables) if tables else 0)

        return launch


def counted(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Bytes for a token of a function and its gradient."""
    with (
        Counter() as counter,
        mock.patch.multiple(
            triton_elementwise, swiglu_forward=Kernel(counter), swiglu_backward=Kernel(counter), turn=Kernel(counter)
        ),
    ):
        leaf = x.requires_grad_()
        out = function(leaf)
        upstream = torch.empty_like(out)
        torch.autograd.grad(out, leaf, upstream)
    return counter.bytes / TOKENS


def operations(layer: Layer) -> dict[str, tuple[float, float]]:
    """Bytes for a token by PyTorch's operations and by kernels."""
    half = {"device": "meta", "dtype": torch.bfloat16}
    wide = torch.empty(TOKENS, 2 * layer.F, **half)
    narrow = torch.empty(TOKENS, layer.F, **half)
    heads = torch.empty(1, TOKENS, layer.H + layer.G, layer.D, **half)
    tables = [torch.empty(TOKENS, 1, layer.D, **half) for _ in range(2)]
    h = torch.empty(TOKENS, layer.C, **half)
    norm = counted(lambda x: functional.layer_norm(x, [layer.C]), h)
    gelu = counted(functional.gelu, narrow)
    return {
        "SwiGLU": (counted(elementwise._swiglu, wide), counted(triton_elementwise.swiglu, wide)),
        "rotary": (
            counted(lambda x: elementwise._rotary(x, *tables), heads),
            counted(lambda x: triton_elementwise.rotary(x, *tables), heads),
        ),
        "two norms": (2 * norm, 2 * norm),
        "GELU": (gelu, gelu),
    }


def main() -> None:
    for layer in LAYERS:
        products = layer.flops() / PRODUCTS
        print(
            f"{layer.name}: {layer.flops() / 1e6:.0f} MFLOP of products for a token and layer, {products * 1e9:.0f} ns"
        )
        for name, (torch_bytes, ours) in operations(layer).items():
            saved = (torch_bytes - ours) / BANDWIDTH
            share = (
                f"saves {saved * 1e9:3.0f} ns, {saved / products:4.0%} of the products"
                if saved
                else "one pass as it is"
            )
            print(f"    {name:10} PyTorch {torch_bytes / 1e3:6.1f} KB   kernels {ours / 1e3:6.1f} KB   {share}")


if __name__ == "__main__":
    main()
