"""The self-test in the interpreter, of the kernels as they are and of some that are wrong, as JSON."""

from __future__ import annotations

from tests.kernels import interpreter  # isort: skip  # before the kernels are decorated

import json
from collections.abc import Callable

import torch
from torch import Tensor

from kernels import selftest, triton_backend, triton_cross_entropy

assert interpreter.os.environ["TRITON_INTERPRET"] == "1"
right = triton_backend.attention
right_losses = triton_cross_entropy.losses


def too_large(*tensors: Tensor, **options: object) -> Tensor:
    return right(*tensors, **options) * 1.2


def blind(*tensors: Tensor, **options: object) -> Tensor:
    return right(*tensors, **options) / 0.0


def broken(*tensors: Tensor, **options: object) -> Tensor:
    raise RuntimeError("no such instruction")


def trial(attention: Callable[..., Tensor]) -> dict[str, object]:
    triton_backend.attention = attention
    return summary(selftest.try_now(torch.device("cpu"), "bfloat16", 16))


def trial_of_loss(shift: float) -> dict[str, object]:
    triton_cross_entropy.losses = lambda *inputs, **options: right_losses(*inputs, **options) + shift
    return summary(selftest.try_now(torch.device("cpu"), "bfloat16", 0, "linear_cross_entropy"))


def summary(found: selftest.Trial) -> dict[str, object]:
    return {"passed": found.passed, "error": found.error, "sentence": found.sentence}


if __name__ == "__main__":
    trials = {function.__name__: trial(function) for function in (right, too_large, blind, broken)}
    print(json.dumps(trials | {"loss": trial_of_loss(0.0), "wrong_loss": trial_of_loss(1.0)}))
