"""Every shipped configuration, compiled for GPUs that are not there: no spilled registers, shared memory that fits,
and the architecture's tensor-core instruction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kernels import configs
from tests.kernels.offline import (
    HELPERS,
    KERNELS,
    MATRIX,
    SHARED,
    SMALL_MATRIX,
    Facts,
    compile_kernel,
    compile_loss,
)

HALF, SINGLE = torch.bfloat16, torch.float32
RAGGED = {"EVEN_T": False, "EVEN_S": False}
PLAIN: dict[str, dict[str, Any]] = {"even, grouped": {"GROUP": 4}, "even": {}}
ANY: dict[str, dict[str, Any]] = {
    "packed, grouped": RAGGED | {"PACKED": True, "GROUP": 4},
    "windowed": RAGGED | {"WINDOWED": True},
}
SAMPLE = [
    ("sm_80", 64, "forward"), ("sm_80", 64, "backward_keys"), ("sm_86", 128, "forward"), ("sm_89", 80, "forward"),
    ("sm_90", 64, "forward"), ("sm_90", 128, "backward_keys"), ("sm_90", 128, "backward_queries"),
    ("sm_90", 64, "decode"), ("sm_100", 128, "forward"), ("sm_120", 64, "backward_queries"), ("gfx942", 64, "forward"),
]  # fmt: skip

ASIDE = 96
"""Bytes of registers that may spill: put aside before a loop and taken back after it, once for a tile."""
IN_LOOPS = 0.005
"""Share of a loop's instructions that may move them. Nearly all loops have none; those with most have 6 in 2,054, in
fp32 on Ampere at 96 columns, where no cut of these sizes has fewer."""
WIDE = {("backward_queries", 256, SINGLE): (256, 0.1)}
"""The same for tiles that are as small as a product takes, and spill more."""


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def complaints(name: str, arch: str, width: int, dtype: torch.dtype, plain: bool, causal: bool, **variant: Any) -> str:
    """What is wrong with the shipped configuration for one kind of call; empty when nothing is."""
    limit = configs.width_class(width)
    config = configs.shipped(name, arch, limit, dtype.itemsize, causal, plain=plain)
    facts = compile_kernel(name, arch, width, dtype, causal, config, **variant)
    return fault(facts, config, arch, dtype, *WIDE.get((name, limit, dtype), (ASIDE, IN_LOOPS)))


def fault(facts: Facts, cut: object, arch: str, dtype: torch.dtype, aside: int, in_loops: float) -> str:
    """What is wrong with a compiled kernel; empty when nothing is."""
    if facts.spills > aside or facts.in_loops > in_loops:
        return f"{cut}: {facts.spills} bytes spilled, {facts.in_loops:.1%} of a loop"
    if facts.shared > SHARED[arch] * 1024:
        return f"{cut}: {facts.shared} bytes of shared memory"
    wanted = {MATRIX[arch].replace("\\", ""), SMALL_MATRIX.replace("\\", "")}
    if dtype != SINGLE and facts.matrix not in wanted:
        return f"{cut}: no {MATRIX[arch]}"
    return ""


@pytest.mark.parametrize(("arch", "width", "name"), SAMPLE)
def test_a_sample_of_the_configurations_suits_its_chip(arch: str, width: int, name: str) -> None:
    assert complaints(name, arch, width, HALF, True, name != "decode", GROUP=4) == ""


def test_tall_tiles_use_the_newest_instruction() -> None:
    for arch in ("sm_90", "sm_100"):
        config = configs.shipped("forward", arch, 128, 2, True)
        facts = compile_kernel("forward", arch, 128, HALF, True, config)
        assert facts.matrix == MATRIX[arch].replace("\\", "")


@pytest.mark.parametrize("name", KERNELS)
def test_numbers_that_are_one_compile(name: str) -> None:
    """Triton takes an argument of 1 for a constant, which must not stop a kernel that computes with it."""
    ones = {"T": 1, "S": 1, "H": 1, "tiles": 1, "window": 1, "splits": 1, "rows": 1} | RAGGED
    config = configs.shipped(name, "sm_90", 64, 2, False, plain=False)
    for variant in ({}, {"CAUSAL": True, "WINDOWED": True}):
        assert compile_kernel(name, "sm_90", 64, HALF, False, config, **ones | variant).spills == 0


@pytest.mark.parametrize("name", HELPERS)
def test_the_small_kernels_compile(name: str) -> None:
    assert compile_kernel(name, "sm_90", 80, HALF, False, configs.Config(64, 64, 4, 1)).spills == 0


@pytest.mark.soak
@pytest.mark.parametrize("dtype", [HALF, SINGLE])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("arch", SHARED)
def test_every_configuration_suits_its_chip(arch: str, name: str, dtype: torch.dtype) -> None:
    found = {}
    for width in (32, 64, 80, 96, 128, 256):
        for plain, variants in ((True, PLAIN), (False, ANY)):
            for label, variant in variants.items():
                for causal in (True, False)[name == "decode" :]:
                    fault = complaints(name, arch, width, dtype, plain, causal, **variant)
                    if fault:
                        found[f"{width} {label} {'causal' if causal else 'full'}"] = fault
    assert found == {}


def loss_complaints(name: str, arch: str, dtype: torch.dtype, **variant: Any) -> str:
    """The same for the kernels of linear + cross-entropy."""
    cut = configs.choose_linear(name, arch, dtype)
    facts = compile_loss(name, arch, dtype, cut, **variant)
    return fault(facts, cut, arch, dtype, ASIDE, IN_LOOPS)


@pytest.mark.parametrize("name", ["loss_forward", "loss_gradient"])
def test_the_loss_suits_the_newest_chips(name: str) -> None:
    for arch, dtype in (("sm_90", HALF), ("sm_80", SINGLE)):
        assert loss_complaints(name, arch, dtype) == ""


@pytest.mark.soak
@pytest.mark.parametrize("dtype", [HALF, SINGLE])
@pytest.mark.parametrize("arch", SHARED)
def test_the_loss_suits_every_chip(arch: str, dtype: torch.dtype) -> None:
    for name in ("loss_forward", "loss_gradient"):
        for variant in ({}, {"EVEN_C": False}, {"N": 1, "tiles": 1, "first": 0}):
            assert loss_complaints(name, arch, dtype, **variant) == ""
