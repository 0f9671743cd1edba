"""Every shipped configuration, compiled for GPUs that are not there: no spilled registers, shared memory that fits,
and the architecture's tensor-core instruction."""

from __future__ import annotations

from itertools import product
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
    spilled,
)

HALF, FP16, SINGLE = torch.bfloat16, torch.float16, torch.float32
RAGGED = {"EVEN_T": False, "EVEN_S": False}
PLAIN: dict[str, dict[str, Any]] = {"even, grouped": {"GROUP": 4}, "even": {}}
ANY: dict[str, dict[str, Any]] = {
    "packed, grouped": RAGGED | {"PACKED": True, "GROUP": 4},
    "windowed": RAGGED | {"WINDOWED": True},
}
FLAGS: dict[str, dict[str, Any]] = {
    "biased": RAGGED | {"BIASED": True},
    "key lengths": {"EVEN_S": False, "KEY_LENGTHS": True},
}
"""Calls with what the others lack; decoding has neither, its lengths being always there."""
IN_TWO_PIECES = (40, 48, 112, 160, 192, 200)
"""Widths that are no power of two, beside 80 and 96, which every campaign has."""
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
WIDE = {("backward_queries", 192, SINGLE): (24, 0.006), ("backward_queries", 256, SINGLE): (256, 0.1)}
"""The same for tiles that are as small as a product takes, and spill more."""

SLOWED = {
    ("sm_80", "backward_keys", 64): (32, 0.008),
    ("sm_80", "backward_keys", 112): (32, 0.006),
    ("sm_80", "backward_queries", 112): (40, 0.011),
    ("sm_80", "backward_queries", 200): (32, 0.006),
    ("sm_86", "backward_keys", 64): (24, 0.006),
    ("sm_86", "backward_keys", 112): (32, 0.008),
    ("sm_86", "backward_queries", 112): (40, 0.016),
    ("sm_120", "backward_keys", 32): (80, 0.022),
    ("sm_120", "backward_keys", 64): (144, 0.029),
    ("sm_120", "backward_keys", 112): (248, 0.03),
    ("sm_120", "backward_queries", 112): (88, 0.012),
}
"""The same for calls that are slower than they need be, by family of chips, kernel and width: 32 and 64 with a bias,
whose numbers take the last registers; 112 and 200, held as two pieces of 64 and of 128, each with operands and sums of
its own, in tiles cut for 128 and 256 in one. Lower tiles spare these bytes and load their operands more often."""


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def complaints(
    name: str,
    arch: str,
    width: int,
    dtype: torch.dtype,
    plain: bool,
    causal: bool,
    short: bool = False,
    **variant: Any,
) -> str:
    """What is wrong with the shipped configuration for one kind of call; empty when nothing is."""
    limit = configs.width_class(width)
    config = configs.shipped(name, arch, limit, dtype.itemsize, causal, short, plain)
    facts = compile_kernel(name, arch, width, dtype, causal, config, **variant)
    usual = WIDE.get((name, limit, dtype), (ASIDE, IN_LOOPS))
    allowed = SLOWED.get((configs.FAMILIES[arch], name, width), usual) if dtype != SINGLE else usual
    return fault(facts, config, arch, dtype, *allowed)


def fault(facts: Facts, cut: object, arch: str, dtype: torch.dtype, aside: int, in_loops: float) -> str:
    """What is wrong with a compiled kernel; empty when nothing is."""
    if facts.spills > aside or facts.in_loops > in_loops:
        return f"{cut}: {spilled(facts)}"
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


@pytest.mark.soak
@pytest.mark.parametrize("arch", SHARED)
def test_the_tiles_of_short_calls_suit_every_chip(arch: str) -> None:
    found = {}
    for width, plain, dtype in product((32, 40, 64), (True, False), (HALF, FP16)):
        cut = [
            configs.shipped("forward", arch, configs.width_class(width), 2, True, short, plain)
            for short in (False, True)
        ]
        variant = PLAIN["even"] if plain else ANY["windowed"]
        if cut[0] != cut[1] and (fault := complaints("forward", arch, width, dtype, plain, True, True, **variant)):
            found[f"{width} {'even' if plain else 'windowed'} {dtype}"] = fault
    assert found == {}


@pytest.mark.soak
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("arch", SHARED)
def test_every_width_in_two_pieces_suits_its_chip(arch: str, name: str) -> None:
    """In bf16 each width as a plain call and as another, causal and full in turns; in fp32 one of the two."""
    found = {}
    for number, width in enumerate(IN_TWO_PIECES):
        kinds = [(HALF, plain) for plain in (True, False)[: 1 if name == "decode" else 2]]
        for dtype, plain in [*kinds, (SINGLE, number % 2 == 0)]:
            variant = PLAIN["even"] if plain else ANY["windowed"]
            causal = name != "decode" and plain == (number % 2 == 0)
            if fault := complaints(name, arch, width, dtype, plain, causal, **variant):
                found[f"{width} {dtype} {'even' if plain else 'windowed'} {'causal' if causal else 'full'}"] = fault
    assert found == {}


@pytest.mark.soak
@pytest.mark.parametrize("name", [name for name in KERNELS if name != "decode"])
@pytest.mark.parametrize("arch", SHARED)
def test_biases_and_key_lengths_suit_every_chip(arch: str, name: str) -> None:
    """The two in turns over dtypes and classes of width, so that every chip has each with every dtype."""
    found = {}
    for number, (width, dtype) in enumerate(product((32, 64, 80, 128, 256), (HALF, FP16, SINGLE))):
        label, variant = list(FLAGS.items())[number % 2]
        causal = number % 4 < 2
        if fault := complaints(name, arch, width, dtype, False, causal, **variant):
            found[f"{width} {dtype} {label} {'causal' if causal else 'full'}"] = fault
    assert found == {}


@pytest.mark.soak
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("arch", SHARED)
def test_fp16_suits_every_chip(arch: str, name: str) -> None:
    """It shares the configurations of bf16."""
    found = {}
    for width in (64, 80, 128):
        for causal in (True, False)[name == "decode" :]:
            if fault := complaints(name, arch, width, FP16, True, causal, **PLAIN["even, grouped"]):
                found[f"{width} {'causal' if causal else 'full'}"] = fault
    assert found == {}


@pytest.mark.soak
@pytest.mark.parametrize("arch", SHARED)
def test_the_small_kernels_suit_every_chip(arch: str) -> None:
    cut, kinds = configs.Config(64, 64, 4, 1), product(HELPERS, (80, 256), (HALF, FP16, SINGLE))
    found = {kind: compile_kernel(kind[0], arch, *kind[1:], False, cut) for kind in kinds}
    assert {kind: spilled(facts) for kind, facts in found.items() if facts.spills} == {}


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
