"""Compiling the kernels for GPUs that are not there, and reading from the machine code what came out.

python -m tests.kernels.offline sm_90 [128]          what the shipped configurations of a chip (at one width) need
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels import configs, triton_attention, triton_cross_entropy, triton_decode, triton_elementwise

SHARED = {"sm_80": 163, "sm_86": 99, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_120": 99, "gfx942": 64}
"""KiB of shared memory that one program may use."""
MATRIX = {
    "sm_80": r"mma\.sync", "sm_86": r"mma\.sync", "sm_89": r"mma\.sync", "sm_90": r"wgmma\.mma_async",
    "sm_100": r"tcgen05\.mma", "sm_120": r"mma\.sync", "gfx942": r"v_mfma",
}  # fmt: skip
"""The tensor-core instruction of each architecture."""
SMALL_MATRIX = r"mma\.sync"
"""What tiles too low for wgmma and tcgen05 (fewer than 64 rows) use there."""
KERNELS = {
    "forward": triton_attention.forward,
    "backward_keys": triton_attention.backward_keys,
    "backward_queries": triton_attention.backward_queries,
    "decode": triton_decode.decode,
}
HELPERS = {
    "backward_delta": triton_attention.backward_delta,
    "combine": triton_decode.combine,
    "swiglu_forward": triton_elementwise.swiglu_forward,
    "swiglu_backward": triton_elementwise.swiglu_backward,
    "turn": triton_elementwise.turn,
}
"""Kernels that have one configuration for all."""
TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
SINGLE = {"LSE", "DELTA", "PARTS", "PICKED", "SOFT", "HARD"}
INTEGERS = {"KEY_LENGTHS": "*i32", "LENGTHS": "*i32", "TILES": "*i32", "TARGETS": "*i64"}


class Assembly(NamedTuple):
    """Patterns of a listing: a label, an instruction, the label that one jumps to, the use of local memory."""

    label: str
    instruction: str
    jump: str
    local: str


NVIDIA = Assembly(r"(\.L_x_\d+):", r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?);", r"\bBRA\b.*(\.L_x_\d+)", r"\b(LDL|STL)\b")
AMD = Assembly(r"(\.LBB\d+_\d+):", r"\t([a-z].*)", r"^s_c?branch\w* (\.LBB\d+_\d+)", r"^scratch_(load|store)")


class Facts(NamedTuple):
    """What a compiled kernel needs."""

    registers: int
    spills: int
    """Bytes of registers that a thread keeps in memory for want of room."""
    in_loops: float
    """The share of instructions that move them, in the loop where it is largest."""
    shared: int
    matrix: str


def compile_kernel(
    name: str,
    arch: str,
    width: int,
    dtype: torch.dtype,
    causal: bool,
    config: configs.Config,
    **changes: Any,
) -> Facts:
    """Compile one kernel, of even lengths and nothing special unless `changes` says so (PACKED, KEY_LENGTHS: True)."""
    function = (KERNELS | HELPERS)[name]
    first, rest = configs.pieces(width)
    constants: dict[str, Any] = {
        "COLUMNS": 1 << (width - 1).bit_length(), "SPLITS": 16,
        "GROUP": 1, "ROWS": 16, "D": width, "FIRST": first, "REST": rest, "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n, "CAUSAL": causal, "WINDOWED": False, "BIASED": False, "PACKED": False,
        "BLOCK": triton_elementwise.BLOCK, "HALF": width // 2, "HEADS": 16, "BACK": True,
        "EVEN_T": True, "EVEN_S": True, "BIAS": None, "KEY_LENGTHS": None, "TILES": None,
    } | changes  # fmt: skip
    for pointer, flag in (("BIAS", "BIASED"), ("TILES", "PACKED"), ("KEY_LENGTHS", "KEY_LENGTHS")):
        if constants[flag]:
            del constants[pointer]
    return _compile(function, arch, dtype, constants, config.warps, config.stages)


def compile_loss(name: str, arch: str, dtype: torch.dtype, cut: configs.Linear, **changes: Any) -> Facts:
    """Compile a kernel of linear + cross-entropy, for widths that its tiles divide unless `changes` says otherwise."""
    blocks = {"BLOCK_M": cut.block_m, "BLOCK_N": cut.block_n, "BLOCK_C": cut.block_c}
    constants = blocks | {"TILES": triton_cross_entropy.TILES, "EVEN_C": True} | changes
    return _compile(getattr(triton_cross_entropy, name), arch, dtype, constants, cut.warps, cut.stages)


def _compile(function: Any, arch: str, dtype: torch.dtype, constants: dict[str, Any], warps: int, stages: int) -> Facts:
    """`constants` may name more than the function takes. Pointers, strides, T, S, C and F are multiples of 16."""
    constants = {key: value for key, value in constants.items() if key in function.arg_names}
    signature = {key: "constexpr" if key in constants else _type(key, dtype) for key in function.arg_names}
    sixteen = [key for key, kind in signature.items() if kind[0] == "*" or re.search(r"_[bhtnv]$|^[TSCF]$", key)]
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs={(function.arg_names.index(key),): value for key, value in constants.items()},
        attrs={(function.arg_names.index(key),): [["tt.divisibility", 16]] for key in sixteen if key not in constants},
    )
    compiled = triton.compile(source, target=_target(arch), options={"num_warps": warps, "num_stages": stages})
    return _facts(compiled, arch)


def _type(name: str, dtype: torch.dtype) -> str:
    if name in SINGLE:
        return "*fp32"
    if name in INTEGERS:
        return INTEGERS[name]
    if (name.isupper() and len(name) > 1) or name in "QKVXG":
        return f"*{TYPES[dtype]}"
    return "fp32" if name.startswith("scale") else "i32"


def _target(arch: str) -> GPUTarget:
    return GPUTarget("cuda", int(arch[3:]), 32) if arch.startswith("sm_") else GPUTarget("hip", arch, 64)


def _facts(compiled: Any, arch: str) -> Facts:
    text = compiled.asm["ptx"] if "ptx" in compiled.asm else compiled.asm["amdgcn"]
    pattern = MATRIX[arch] if re.search(MATRIX[arch], text) else SMALL_MATRIX
    matrix = pattern.replace("\\", "") if re.search(pattern, text) else "none"
    if "cubin" not in compiled.asm:
        counts = [int(re.search(rf"\.{key}:\s+(\d+)", text)[1]) for key in ("vgpr_count", "vgpr_spill_count")]
        in_loops = _spills_in_loops(text, AMD) if counts[1] else 0.0
        return Facts(counts[0], 4 * counts[1], in_loops, compiled.metadata.shared, matrix)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        usage = _tool("cuobjdump", "--dump-resource-usage", path)
        found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
        spills = int(found[2]) + int(found[3])
        in_loops = _spills_in_loops(_tool("nvdisasm", "-c", path), NVIDIA) if spills else 0.0
    return Facts(int(found[1]), spills, in_loops, compiled.metadata.shared, matrix)


def _tool(name: str, *arguments: object) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=True).stdout


def _spills_in_loops(code: str, machine: Assembly) -> float:
    """The largest share of an innermost loop's instructions that read or write local memory.

    A loop ends in a jump back. So does a wait that stands behind the code, but it has a loop of its own within.
    """
    local: list[bool] = []
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for line in code.splitlines():
        if label := re.match(machine.label, line):
            labels[label[1]] = len(local)
        elif found := re.match(machine.instruction, line):
            jump = re.search(machine.jump, found[1])
            start = labels.get(jump[1], len(local)) if jump else len(local)
            if start < len(local) and not any(first >= start for first, _ in loops):
                loops.append((start, len(local)))
            local.append(bool(re.search(machine.local, found[1])))
    return max((sum(local[start:end]) / (end - start) for start, end in loops), default=0.0)


def spilled(facts: Facts) -> str:
    """What a compiled kernel spills and where, for people."""
    if not facts.spills:
        return "nothing spilled"
    where = f"{facts.in_loops:.1%} of a loop" if facts.in_loops else "put aside before a loop, none within"
    return f"{facts.spills} bytes spilled, {where}"


def main() -> None:
    """Compile an architecture's attention kernels, plain and packed, causal and full, and say what each needs."""
    arch, *widths = sys.argv[1:]
    for width, name, dtype, plain, causal in product(
        map(int, widths or configs.WIDTHS), KERNELS, (torch.bfloat16, torch.float32), (True, False), (True, False)
    ):
        if name == "decode" and (causal or not plain):
            continue
        cut = configs.shipped(name, arch, configs.width_class(width), dtype.itemsize, causal, plain=plain)
        variant = {} if plain else {"PACKED": True, "EVEN_T": False, "EVEN_S": False, "GROUP": 4}
        facts = compile_kernel(name, arch, width, dtype, causal, cut, **variant)
        call = f"{name} {width} {TYPES[dtype]} {'plain' if plain else 'packed'} {'causal' if causal else 'full'}"
        needs = f"{facts.registers} registers, {facts.shared / 1024:.0f} KiB, {facts.matrix}, {spilled(facts)}"
        print(f"{call}: {tuple(cut)}: {needs}", flush=True)


if __name__ == "__main__":
    main()
