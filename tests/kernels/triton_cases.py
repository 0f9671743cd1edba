"""The calls that the Triton kernels must get right, and a runner that measures them: on the GPU where there is one and
TRITON_INTERPRET is not 1, else in the interpreter.

    python -m tests.kernels.triton_cases GROUP          one JSON line a case, as `Outcome`

Truth is the reference in float64 on the same rounded inputs. An error is ‖ours - truth‖ / ‖truth‖, for the output and
for the gradients of q, k and v; "theirs" is that of PyTorch's SDPA in the same dtype, on the same device.
"""

from __future__ import annotations

from tests.kernels.device import DEVICE, ON_CARD  # isort: skip  # before the kernels are decorated

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernels import configs, reference, sdpa, triton_backend
from kernels.configs import Config
from kernels.triton_decode import attention_decode
from tests.kernels.outcome import Outcome

T = TypeVar("T")
HALF = ("float16", "bfloat16")
DTYPES = (*HALF, "float32")
TILES = ((32, 32), (16, 64), (64, 16), (64, 32), (32, 64), (64, 64))
"""Cases take turns with these, so that lengths fall on, beside and inside the edges of tiles."""
ON_CHIP = 64 * 64
"""Numbers of a tile of q, k or v at most: in fp32 the tiles of a backward pass then fit every chip's shared memory."""


@dataclass(frozen=True)
class Case:
    """One call. Sizes as in the door's documentation."""

    dtype: str = "float32"
    B: int = 1
    H: int = 2
    G: int = 2
    T: int = 64
    S: int = 64
    D: int = 32
    causal: bool = False
    window: int | None = None
    key_lengths: tuple[int, ...] | None = None
    bias: tuple[int, ...] | None = None  # its shape, with -inf here and there
    documents: tuple[int, ...] | None = None  # cu_seqlens: packed
    decode: tuple[int, ...] | None = None  # lengths: decoding, no gradients
    splits: int | None = None
    layout: str = "dense"  # or fused, heads first, every second column
    logits: float = 1.0  # factor on q
    offset: float = 0.0  # added to every score, by a constant in q and k
    tiles: tuple[int, int] | None = None  # else by turns; once turns are given, as shipped
    repeat: bool = False  # run twice and compare bits

    def __str__(self) -> str:
        changed = {key: value for key, value in asdict(self).items() if value != getattr(Case, key)}
        return " ".join(f"{key}={value}" for key, value in changed.items())


def in_turn(kinds: Iterable[T]) -> Iterator[tuple[T, str]]:
    """Each kind of call in float32 and in one of the half precisions, which take turns."""
    for number, kind in enumerate(kinds):
        yield kind, "float32"
        yield kind, HALF[number % 2]


def lengths() -> Iterator[Case]:
    for (T, causal), dtype in in_turn(itertools.product((1, 17, 63, 64, 65, 127), (False, True))):
        yield Case(dtype, T=T, S=T, causal=causal, H=4 if T < 63 else 2, G=4 if T < 63 else 2, D=32 if T > 63 else 128)


def cross() -> Iterator[Case]:
    pairs = ((1, 65), (17, 64), (65, 17), (127, 63), (64, 128), (128, 64))
    for ((T, S), causal), dtype in in_turn(itertools.product(pairs, (False, True))):
        yield Case(dtype, T=T, S=S, causal=causal, H=4 if T < 63 else 2, G=2, D=128 if T < 63 else 32)


def windows() -> Iterator[Case]:
    kinds = itertools.product((1, 2, 16, 33, 64, 200), (False, True))
    for i, ((window, causal), dtype) in enumerate(in_turn(kinds)):
        T, S = ((65, 65), (64, 100), (90, 47))[i // 2 % 3]
        yield Case(dtype, H=1, G=1, T=T, S=S, D=64, causal=causal, window=window)


def heads() -> Iterator[Case]:
    kinds = [*((True, dtype) for dtype in DTYPES), (False, "float32")]
    for group, (causal, dtype) in itertools.product((1, 2, 7, 8), kinds):
        yield Case(dtype, H=group * 2 if group < 7 else group, G=2 if group < 7 else 1, T=33, S=49, causal=causal)
    widths = (16, 20, 24, 40, 48, 72, 80, 96, 112, 128, 160, 192, 200, 256)
    for D, dtype in in_turn(widths):
        yield Case(dtype, T=33, S=50, D=D, causal=D % 32 == 0, G=1 if D == 72 else 2)


def edges() -> Iterator[Case]:
    for dtype in DTYPES:
        yield Case(dtype, B=3, H=1, G=1, T=33, S=65, D=64, key_lengths=(0, 1, 64))
        yield Case(dtype, B=3, H=1, G=1, T=65, S=65, D=64, key_lengths=(17, 65, 32), causal=True)
        yield Case(dtype, B=2, T=40, S=40, key_lengths=(5, 40), window=7, causal=True)
        for layout in ("fused", "heads first", "every second column"):
            yield Case(dtype, B=2, H=2, G=1, T=33, S=33, causal=True, layout=layout, D=40)
        yield Case(dtype, H=2, G=2, T=64, S=64, D=64, logits=8.0)
        yield Case(dtype, B=2, H=2, G=2, T=65, S=65, D=128, logits=8.0, causal=True)
        yield Case(dtype, T=64, S=64, D=64, offset=-200.0, causal=True)  # LSE < -88.7, T % 128 = 64
        yield Case(dtype, T=64, S=64, D=64, offset=-200.0, causal=True, tiles=(32, 64))
        yield Case(dtype, T=192, S=192, offset=-200.0, key_lengths=(130,), H=1, G=1)
        yield Case(dtype, H=2, G=2, T=65, S=65, D=64, offset=60.0)
        yield Case(dtype, H=1, G=1, T=100, S=30, causal=True)  # 70 queries without a key
        yield Case(dtype, H=4, G=2, T=33, S=50, bias=(1, 4, 33, 50))
        yield Case(dtype, B=2, H=2, G=1, T=40, S=40, bias=(2, 1, 1, 40), causal=True)


def packed() -> Iterator[Case]:
    documents = ((0, 3, 3, 40, 48), (0, 64), (0, 1, 2, 3, 64), (0, 31, 63, 63, 63), (0, 17, 50, 64))
    kinds = [*((True, dtype) for dtype in DTYPES), (False, "float32")]
    for i, (ends, (causal, dtype)) in enumerate(itertools.product(documents, kinds)):
        H, G = ((2, 2), (2, 1), (4, 1))[i % 3]
        yield Case(dtype, H=H, G=G, T=64, S=64, documents=ends, causal=causal, window=(None, 9)[i % 2])
    for (group, splits), dtype in in_turn(itertools.product((1, 4, 7), (1, 3, None))):
        window = 20 if splits == 3 else None
        yield Case(dtype, B=4, H=2 * group, G=2, S=150, D=40, decode=(0, 1, 77, 150), window=window, splits=splits)


GROUPS: dict[str, Callable[[], Iterator[Case]]] = {
    function.__name__: function for function in (lengths, cross, windows, heads, edges, packed)
}


def cases(group: str) -> list[Case]:
    """A group's cases, each with its turn of tile sizes, every fifth run twice; on a card also those that ship."""
    turns = enumerate(GROUPS[group]())
    found = [replace(case, tiles=case.tiles or TILES[i % len(TILES)], repeat=i % 5 == 0) for i, case in turns]
    return on_a_card(found) if ON_CARD else found


def on_a_card(found: list[Case]) -> list[Case]:
    """Those whose tiles a chip can hold, and all of them with the tiles that ship."""
    fit = [case for case in found if case.tiles and max(case.tiles) * case.D <= ON_CHIP]
    return [*fit, *(replace(case, tiles=None) for case in found)]


def run(case: Case) -> Outcome:
    """Measure one case."""
    torch.manual_seed(0)
    configs._forced.clear()
    if case.tiles:
        configs._forced.update(dict.fromkeys(configs.KERNELS, Config(*case.tiles, 4, 1)))
    tensors, call = inputs(case), options(case)
    outcome = Outcome(str(case), case.dtype in HALF, constant=case.offset)
    truth = results(of(case, reference), [x.double() for x in tensors], call, case.decode is None)
    ours = results(of(case, triton_backend), tensors, call, case.decode is None)
    dense = [x if x.stride(-1) == 1 else x.contiguous() for x in tensors]  # as PyTorch's fused kernels want them
    theirs = results(of(case, sdpa), dense, call, case.decode is None)
    if not all(torch.isfinite(x).all() for x in theirs):  # some of PyTorch's kernels fail on rows without keys
        with sdpa_kernel(SDPBackend.MATH):
            theirs = results(of(case, sdpa), dense, call, case.decode is None)
    if any(not torch.isfinite(x).all() for x in ours):
        outcome.faults.append("not finite")
    if case.repeat and not all(
        map(torch.equal, ours, results(of(case, triton_backend), tensors, call, case.decode is None))
    ):
        outcome.faults.append("other bits the second time")
    nothing_seen = (truth[0] == 0).all(-1)
    if (ours[0][nothing_seen] != 0).any():
        outcome.faults.append("a query without keys gives more than 0")
    if case.decode is None and (ours[1][nothing_seen] != 0).any():
        outcome.faults.append("a query without keys has a gradient")
    outcome.ours, outcome.theirs = (errors(found, truth, case.logits) for found in (ours, theirs))
    return outcome


def inputs(case: Case) -> list[Tensor]:
    """q, k and v, laid out as the case says; drawn on the CPU, so that every device gets the same."""
    B, H, G, T, S, D = case.B, case.H, case.G, case.T, case.S, case.D

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape).to(DEVICE, getattr(torch, case.dtype))

    if case.decode is not None:
        q, k, v = draw(B, H, D), draw(B, G, S, D), draw(B, G, S, D)
    elif case.layout == "fused":
        q, k, v = draw(B, T, H + 2 * G, D).transpose(1, 2).split((H, G, G), 1)
    elif case.layout == "heads first":
        q, k, v = (draw(n, h, B, D).permute(2, 1, 0, 3) for h, n in ((H, T), (G, S), (G, S)))
    elif case.layout == "every second column":
        q, k, v = (draw(B, h, n, 2 * D)[..., ::2] for h, n in ((H, T), (G, S), (G, S)))
    else:
        q, k, v = (draw(B, h, n, D) for h, n in ((H, T), (G, S), (G, S)))
    if case.offset:
        # The first column alone makes every score larger or smaller by this much, at the scale of 1 / √D.
        q[..., 0], k[..., 0] = 8.0, case.offset * D**0.5 / 8.0
    return [q * case.logits if case.logits != 1.0 else q, k, v]


def options(case: Case) -> dict[str, object]:
    call: dict[str, object] = {"window": case.window}
    if case.decode is not None:
        return call | {"lengths": torch.tensor(case.decode, device=DEVICE)}
    call["causal"] = case.causal
    if case.documents is not None:
        return call | {"cu_seqlens": torch.tensor(case.documents, dtype=torch.int32, device=DEVICE)}
    if case.key_lengths is not None:
        call["key_lengths"] = torch.tensor(case.key_lengths, device=DEVICE)
    if case.bias is not None:
        bias = torch.randn(case.bias).masked_fill(torch.rand(case.bias) < 0.2, float("-inf"))
        call["bias"] = bias.to(DEVICE)
    return call


def of(case: Case, backend: object) -> Callable[..., Tensor]:
    """The backend's function for this kind of call."""
    if case.decode is not None:
        if backend is triton_backend:
            return lambda *tensors, **call: attention_decode(*tensors, **call, splits=case.splits)
        return backend.attention_decode
    if case.documents is None:
        return backend.attention
    if backend is sdpa:
        return by_document
    return backend.attention_packed


def by_document(q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens: Tensor, causal: bool, window: int | None) -> Tensor:
    """Packed attention as SDPA does it: each document alone."""
    out = q * 0 + (k[:1] * 0).sum() + (v[:1] * 0).sum()  # used, even where there is no document
    for a, b in itertools.pairwise(cu_seqlens.tolist()):
        if a < b:
            rows = (x[a:b].transpose(0, 1)[None] for x in (q, k, v))
            found = sdpa.attention(*rows, causal=causal, window=window)[0].transpose(0, 1)
            out = out.index_copy(0, torch.arange(a, b, device=q.device), found)
    return out


def results(
    function: Callable[..., Tensor], tensors: list[Tensor], call: dict[str, object], backward: bool
) -> list[Tensor]:
    """The output and, with `backward`, the gradients of q, k and v under one fixed upstream gradient."""
    packed = "cu_seqlens" in call
    leaves = [(x.transpose(1, 2)[0] if packed else x).detach().requires_grad_(backward) for x in tensors]
    bias = call.get("bias")
    if isinstance(bias, Tensor):
        call = call | {"bias": bias.to(tensors[0].dtype)}
    out = function(*leaves, **call)
    if not backward:
        return [out]
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(7)).half().to(out)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


def errors(found: list[Tensor], truth: list[Tensor], logits: float) -> list[float]:
    """Relative distances. What should be nearly 0, such as dq of a softmax over one key, counts by the size of its
    summands, a tenth of the upstream gradient's; those of dk are larger by the factor on q."""
    summands = 0.1 * truth[0].numel() ** 0.5
    least = [1e-12, summands, summands * logits, 1e-12] if len(truth) > 1 else [1e-12]
    return [
        ((a.double() - b).norm() / b.norm().clamp(min=floor)).item()
        for a, b, floor in zip(found, truth, least, strict=True)
    ]


def main() -> None:
    for case in cases(sys.argv[1]):
        print(json.dumps(asdict(run(case))), flush=True)


if __name__ == "__main__":
    main()
