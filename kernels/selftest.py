"""Do the Triton kernels work on this card? Asked once for each dtype and head width on each machine, and remembered.

    python -m kernels.selftest [bfloat16 64]           try them now, print errors and speed-ups
    python -m kernels.selftest bfloat16 --kernel linear_cross_entropy      (also: swiglu, rotary)
    python -m tests.kernels.on_the_card                far more, from a checkout: all cases of the interpreter's tests

Chosen shapes, then a second's worth of random ones, are held against the reference in float64, forward and backward,
and must give the same bits twice. The trial runs in a process of its own, because a kernel that reads where it must not
spoils its process for good. One that fails is not used: the door says so
once and goes on with PyTorch. What was found stands in the user's cache, under the card, the driver, the versions of
torch and Triton and the text of the kernels, so that a change of any of them asks again.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels import configs, reference, sdpa

LIMITS = {"float16": 3e-3, "bfloat16": 2.5e-2, "float32": 3e-5}
"""Largest ‖ours - truth‖ / ‖truth‖ that passes: some five times what rounding alone brings."""
Shape = tuple[Sequence[tuple[int, ...]], dict[str, Any]]
PATIENCE = 300.0
"""Seconds that a trial may take, most of them spent compiling."""
USUAL = (
    ("bfloat16", 64, "attention"),
    ("bfloat16", 128, "attention"),
    ("float16", 64, "attention"),
    ("float32", 64, "attention"),
    ("bfloat16", 0, "linear_cross_entropy"),
    ("bfloat16", 0, "swiglu"),
    ("bfloat16", 0, "rotary"),
)
"""What the doctor tries: dtype, head width and kernel."""


class Trial(NamedTuple):
    """What came of trying one dtype and head width."""

    dtype: str
    width: int
    error: float
    """The largest over all shapes and gradients; infinite when something was not finite or broke."""
    speedup: float | None
    """Times as fast as SDPA, forward and backward, at 2,048 causal tokens; None where not timed."""
    fault: str
    """What broke, in one line; empty when nothing did."""
    kernel: str = "attention"
    """Or one of OTHERS, which have no width: 0."""

    @property
    def passed(self) -> bool:
        """Whether nothing broke and the error is within the limit of the dtype."""
        return not self.fault and self.error <= LIMITS[self.dtype]

    @property
    def sentence(self) -> str:
        """Why the kernels are switched off; empty when they passed."""
        if self.passed:
            return ""
        what = self.fault or f"an error of {self.error:.1e}, where {LIMITS[self.dtype]:.1e} is allowed"
        return f"its self-test for {self.name} failed on this card: {what}"

    @property
    def name(self) -> str:
        """What was tried, for people."""
        if self.kernel == "attention":
            return f"{self.dtype} heads of {self.width} columns"
        return f"{self.dtype} {self.kernel}"


def verdict(device: torch.device, dtype: torch.dtype, width: int, kernel: str = "attention") -> str:
    """Why the kernels must not be used; empty when they passed, now or earlier."""
    return trial(device, str(dtype).removeprefix("torch."), width, kernel).sentence


def report(device: torch.device) -> list[Trial]:
    """The usual trials on a card, remembered ones included."""
    return [trial(device, *usual) for usual in USUAL]


@cache
def trial(device: torch.device, dtype: str, width: int, kernel: str = "attention") -> Trial:
    """The remembered result, or that of a trial made now."""
    path = configs.cache_folder() / f"selftest-{fingerprint(device)}.json"
    remembered = _read(path)
    name = f"{dtype} {width}" if kernel == "attention" else f"{kernel} {dtype}"
    if name not in remembered:
        remembered[name] = list(in_a_child(device, dtype, width, kernel))
        _write(path, remembered)
    try:
        return Trial(*remembered[name])
    except TypeError:  # a file by another hand
        return in_a_child(device, dtype, width, kernel)


def fingerprint(device: torch.device) -> str:
    """Card, driver, versions and kernels, as 16 hexadecimal digits."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    driver = Path("/sys/module/nvidia/version")
    parts = [card, driver.read_text() if driver.exists() else "", torch.__version__, version("triton")]
    sources = [*sorted(Path(__file__).parent.glob("triton_*.py")), Path(configs.__file__)]
    parts += [path.read_text() for path in sources]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def in_a_child(device: torch.device, dtype: str, width: int, kernel: str = "attention") -> Trial:
    """Make the trial in another process; a crash or a hang is a finding like any other."""
    root = str(Path(__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    command = [sys.executable, "-m", "kernels.selftest", dtype, str(width), "--kernel", kernel]
    command += ["--device", str(device), "--json"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return Trial(dtype, width, float("inf"), None, f"it was not done after {PATIENCE:.0f} seconds", kernel)
    try:
        return Trial(*json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = done.stderr.strip().splitlines()[-1:] or [f"it ended with code {done.returncode}"]
        return Trial(dtype, width, float("inf"), None, last[0][:300], kernel)


def try_now(device: torch.device, dtype: str, width: int, kernel: str = "attention") -> Trial:
    """Run the shapes here, against the reference; then, on a GPU, the clock against PyTorch."""
    torch.manual_seed(0)
    error = 0.0
    try:
        for found in _errors(device, dtype, width) if kernel == "attention" else OTHERS[kernel](device, dtype):
            error = max(error, found)
            if error > LIMITS[dtype]:
                return Trial(dtype, width, error, None, "", kernel)
        timed = device.type == "cuda" and kernel == "attention"
        speedup = _speedup(device, dtype, width) if timed else None
    except Exception as broken:  # noqa: BLE001 - whatever a compiler or a driver raises is a finding
        what = f"{type(broken).__name__}: {broken}".splitlines()[0][:300]
        return Trial(dtype, width, float("inf"), None, what, kernel)
    return Trial(dtype, width, error, speedup, "", kernel)


def _errors(device: torch.device, dtype: str, width: int) -> Iterator[float]:
    """Of attention, shape by shape."""
    from kernels import triton_backend

    tries = itertools.chain(shapes(width), _for_a_second(width, random.Random(0)))
    for shape, call in tries:
        tensors = [torch.randn(size, device=device).to(getattr(torch, dtype)) for size in shape]
        yield _compared(_function(reference, call), _function(triton_backend, call), tensors, _on(device, call))


def _loss_errors(device: torch.device, dtype: str) -> Iterator[float]:
    """Of linear + cross-entropy: even and ragged sizes, ignored targets, z-loss."""
    from kernels import triton_cross_entropy

    for (N, V, C), z_loss in (((256, 2048, 128), 0.0), ((77, 333, 80), 1e-3)):
        tensors = [torch.randn(size, device=device).to(getattr(torch, dtype)) for size in ((N, C), (V, C))]
        tensors[0] *= 2 / C**0.5
        targets = torch.arange(N, device=device) * 7 % V
        targets[5:30] = -100
        truth = {"targets_N": targets, "z_loss": z_loss}
        yield _compared(reference.linear_cross_entropy, triton_cross_entropy.losses, tensors, truth, {"ignored": -100})


def _swiglu_errors(device: torch.device, dtype: str) -> Iterator[float]:
    """Of SwiGLU: even and ragged widths, and gates large enough to saturate."""
    from kernels import triton_elementwise

    for N, F in ((256, 2048), (33, 700)):
        tensors = [4 * torch.randn(N, 2 * F, device=device).to(getattr(torch, dtype))]
        yield _compared(reference.swiglu, triton_elementwise.swiglu, tensors)


def _rotary_errors(device: torch.device, dtype: str) -> Iterator[float]:
    """Of rotary positions: even and ragged widths, angles by token and by row of the batch."""
    from kernels import triton_elementwise

    for B, T, H, D, by_row in ((2, 128, 8, 64, False), (3, 7, 5, 80, True)):
        angles = torch.randn(B if by_row else T, 1, D // 2, device=device)
        angles = angles[:, None] if by_row else angles
        cos, sin = angles.cos().to(getattr(torch, dtype)), angles.sin().to(getattr(torch, dtype))
        tables = {"cos": torch.cat((cos, cos), -1), "signed_sin": torch.cat((-sin, sin), -1)}
        tensors = [torch.randn(B, T, H, D, device=device).to(getattr(torch, dtype))]
        yield _compared(reference.rotary, triton_elementwise.rotary, tensors, tables)


OTHERS = {"linear_cross_entropy": _loss_errors, "swiglu": _swiglu_errors, "rotary": _rotary_errors}
"""What is tried beside attention."""


def _compared(
    right: Callable[..., Tensor],
    ours: Callable[..., Tensor],
    tensors: list[Tensor],
    options: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
) -> float:
    """The largest error of results and gradients. Raises AssertionError where a second time gives other bits.

    more: options that the reference has by default.
    """
    options = options or {}
    exact = {key: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for key, x in options.items()}
    truth = _results(right, [x.double() for x in tensors], exact)
    found, again = (_results(ours, tensors, options | (more or {})) for _ in range(2))
    if not all(map(torch.equal, found, again)):
        raise AssertionError("it gives other bits the second time")
    return max(_error(a, b) for a, b in zip(found, truth, strict=True))


def shapes(width: int) -> list[Shape]:
    """Shapes of q, k and v, and options: even and ragged, grouped, windowed, cut short, biased, packed, decoding."""
    # Where every score is near -100 and T % 128 = 64, cuDNN's backward has given NaN (pytorch#196678).
    low = {"key_lengths": torch.tensor([130]), "bias": torch.full((1, 1, 1, 192), -100.0)}
    return [
        ([(1, 2, 192, width)] * 3, low),
        ([(2, 4, 128, width), (2, 4, 128, width), (2, 4, 128, width)], {"causal": True}),
        ([(1, 4, 77, width), (1, 2, 130, width), (1, 2, 130, width)], {"causal": True, "window": 50}),
        ([(2, 2, 65, width), (2, 1, 190, width), (2, 1, 190, width)], {"key_lengths": torch.tensor([190, 67])}),
        ([(150, 4, width)] + [(150, 2, width)] * 2, {"cu_seqlens": torch.tensor([0, 3, 90, 140]), "causal": True}),
        ([(3, 4, width)] + [(3, 2, 300, width)] * 2, {"lengths": torch.tensor([1, 300, 129])}),
    ]


def _for_a_second(width: int, dice: random.Random) -> Iterator[Shape]:
    """Random lengths, causal or not, grouped or not, until a second is over; one at least."""
    until = time.monotonic() + 1.0
    for number in itertools.count():
        if number and time.monotonic() > until:
            return
        B, H, T, S = dice.choice((1, 2)), dice.choice((1, 2)), dice.randint(1, 200), dice.randint(1, 200)
        yield [(B, H, T, width), *[(B, 1, S, width)] * 2], {"causal": dice.random() < 0.5}


def _function(backend: Any, call: dict[str, Any]) -> Callable[..., Tensor]:
    kind = "attention_packed" if "cu_seqlens" in call else "attention_decode" if "lengths" in call else "attention"
    return getattr(backend, kind)


def _on(device: torch.device, call: dict[str, Any]) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in call.items()}


def _results(function: Callable[..., Tensor], tensors: list[Tensor], call: dict[str, Any]) -> list[Tensor]:
    """The output and, unless decoding, the gradients of the sum of its halved squares."""
    if "lengths" in call:
        return [function(*tensors, **call)]
    leaves = [x.detach().requires_grad_() for x in tensors]
    out = function(*leaves, **call)
    upstream = torch.cos(torch.arange(out.numel(), device=out.device)).view(out.shape).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


def _error(found: Tensor, truth: Tensor) -> float:
    if not torch.isfinite(found).all():
        return float("inf")
    return ((found.double() - truth).norm() / truth.norm()).item()


def _speedup(device: torch.device, dtype: str, width: int) -> float:
    """SDPA's time over ours, the least of five each, in turns."""
    from kernels import triton_backend

    tensors = [torch.randn(4, 16, 2048, width, device=device, dtype=getattr(torch, dtype)) for _ in range(3)]
    best = {triton_backend: float("inf"), sdpa: float("inf")}
    for _ in range(5):
        for backend in best:
            torch.cuda.synchronize(device)
            start = time.perf_counter()
            for _ in range(3):
                _results(backend.attention, tensors, {"causal": True})
            torch.cuda.synchronize(device)
            best[backend] = min(best[backend], time.perf_counter() - start)
    return best[sdpa] / best[triton_backend]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _write(path: Path, remembered: dict[str, Any]) -> None:
    """All or nothing; where the cache cannot be written, the next process asks again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(remembered, file)
        Path(file.name).replace(path)


def main() -> int:
    """The command. Exit code 1 when something failed."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m kernels.selftest", description="Try the Triton kernels.")
    parser.add_argument("dtype", nargs="?", choices=LIMITS, help="default: the usual dtypes and widths")
    parser.add_argument("width", nargs="?", type=int, default=64, help="columns of a head (default: %(default)s)")
    parser.add_argument("--kernel", choices=("attention", *OTHERS), default="attention")
    parser.add_argument("--device", default="cuda", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one line: dtype, width, error, speed-up, fault, kernel")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("There is no GPU that torch can use, so there is nothing to test.", file=sys.stderr)
        return 1
    one = (asked.dtype, asked.width, asked.kernel)
    trials = [try_now(device, *usual) for usual in ([one] if asked.dtype else USUAL)]
    for found in trials:
        if asked.json:
            print(json.dumps(found))
            continue
        speed = "" if found.speedup is None else f", {found.speedup:.2f} x SDPA"
        print(f"{found.name}: error {found.error:.1e}{speed}" if found.passed else found.sentence)
    return 0 if all(found.passed for found in trials) else 1


if __name__ == "__main__":
    sys.exit(main())
