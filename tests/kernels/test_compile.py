"""Every shipped configuration, compiled for GPUs that are not there: no spilled registers, shared memory that fits,
and the architecture's tensor-core instruction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kernels import configs
from tests.kernels.offline import HELPERS, KERNELS, MATRIX, SHARED, SMALL_MATRIX, compile_kernel

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


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def complaints(name: str, arch: str, width: int, dtype: torch.dtype, plain: bool, causal: bool, **variant: Any) -> str:
    """What is wrong with the shipped configuration for one kind of call; empty when nothing is."""
    limit = configs.width_class(width)
    config = configs.shipped(name, arch, limit, dtype.itemsize, causal, plain=plain)
    facts = compile_kernel(name, arch, width, dtype, causal, config, **variant)
    allowed = configs.ALLOWED_SPILLS.get((configs.FAMILIES[arch], dtype.itemsize, name, limit), 0)
    if facts.spills > allowed:
        return f"{config}: {facts.spills} bytes spilled"
    if facts.shared > SHARED[arch] * 1024:
        return f"{config}: {facts.shared} bytes of shared memory"
    wanted = {MATRIX[arch].replace("\\", ""), SMALL_MATRIX.replace("\\", "")}
    if dtype != SINGLE and facts.matrix not in wanted:
        return f"{config}: no {MATRIX[arch]}"
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
