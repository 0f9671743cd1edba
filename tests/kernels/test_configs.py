"""Every call finds a configuration; a tuner's file comes first; a spoilt one is no obstacle."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch

from kernels import configs, tune
from kernels.configs import Config


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for kept in (configs._choose, configs.tuned_here):
        kept.cache_clear()
    yield tmp_path
    for kept in (configs._choose, configs.tuned_here):
        kept.cache_clear()


def chosen(length: int = 4096, plain: bool = True) -> Config:
    return configs.choose("forward", "sm_90", 64, torch.bfloat16, True, length, plain)


@pytest.mark.parametrize("arch", [*configs.FAMILIES, "sm_75", "gfx1100"])
def test_every_kind_of_call_has_a_configuration_on_every_chip(cache: Path, arch: str) -> None:
    kinds = product(configs.KERNELS, (16, 17, 40, 72, 128, 130, 256), (torch.float16, torch.float32))
    for (kernel, width, dtype), causal, length, plain in product(kinds, (True, False), (64, 9999), (True, False)):
        config = configs.choose(kernel, arch, width, dtype, causal, length, plain)
        assert all(size & (size - 1) == 0 and size >= 16 for size in config[:2])


@pytest.mark.parametrize(
    ("width", "pieces"),
    [(64, (64, 0)), (72, (64, 16)), (80, (64, 16)), (96, (64, 32)), (40, (32, 16)), (17, (16, 16)), (200, (128, 128))],
)
def test_a_width_is_held_in_one_or_two_powers_of_two(width: int, pieces: tuple[int, int]) -> None:
    assert configs.pieces(width) == pieces


def test_what_the_tuner_found_is_used_for_that_kind_of_call_alone(cache: Path) -> None:
    key = configs.key_of("forward", 64, 2, True, False, True)
    before, found = chosen(), Config(32, 16, 4, 1)
    tune.write(configs.tuned_file("sm_90"), {key: found})
    for kept in (configs._choose, configs.tuned_here):
        kept.cache_clear()
    assert before != found
    assert chosen() == found
    assert found not in (chosen(length=100), chosen(plain=False))


@pytest.mark.parametrize("text", ["", "[]", '{"configs": 3}', '{"configs": {"forward": [1, "x"]}}'])
def test_a_spoilt_file_of_the_tuner_is_passed_over(cache: Path, text: str) -> None:
    shipped = chosen()
    path = configs.tuned_file("sm_90")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    for kept in (configs._choose, configs.tuned_here):
        kept.cache_clear()
    assert chosen() == shipped
    tune.write(path, {"a": Config(16, 16, 4, 1)})
    configs.tuned_here.cache_clear()
    assert configs.tuned_here("sm_90") == {"a": Config(16, 16, 4, 1)}


def test_the_tuner_takes_the_fastest_of_those_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels import sdpa, triton_backend

    def attention(*tensors: torch.Tensor, causal: bool) -> torch.Tensor:
        cut = configs._forced["forward"]
        if cut.stages == 3:
            raise RuntimeError("out of resources: shared memory")
        return sdpa.attention(*tensors, causal=causal) * (2.0 if cut.block_m == 32 else 1.0)

    monkeypatch.setattr(triton_backend, "attention", attention)
    tensors = [torch.randn(1, 1, 8, 16) for _ in range(3)]
    best = tune.fastest("forward", tensors, True, lambda run: sum(configs._forced["forward"]))
    assert best is not None
    assert best[0] == Config(64, 32, 4, 1)
    assert configs._forced == {}
