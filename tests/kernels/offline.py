"""Compiling the kernels for GPUs that are not there, and reading from the machine code what came out.

python -m tests.kernels.offline sm_90 128          every shipped configuration of an architecture (and of one width)
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels import configs, triton_attention, triton_decode

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
HELPERS = {"backward_delta": triton_attention.backward_delta, "combine": triton_decode.combine}
"""Kernels that have one configuration for all."""
TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
SINGLE = {"LSE", "DELTA", "PARTS"}
INTEGERS = {"KEY_LENGTHS", "LENGTHS", "TILES"}


class Facts(NamedTuple):
    """What a compiled kernel needs. `spills`: bytes of registers kept in memory for want of room."""

    registers: int
    spills: int
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
    """Compile one kernel, of even lengths and nothing special unless `changes` says so (PACKED, GROUP …)."""
    function = (KERNELS | HELPERS)[name]
    first, rest = configs.pieces(width)
    constants: dict[str, Any] = {
        "COLUMNS": 1 << (width - 1).bit_length(), "SPLITS": 16,
        "GROUP": 1, "ROWS": 16, "D": width, "FIRST": first, "REST": rest, "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n, "CAUSAL": causal, "WINDOWED": False, "BIASED": False, "PACKED": False,
        "EVEN_T": True, "EVEN_S": True, "BIAS": None, "KEY_LENGTHS": None, "TILES": None,
    } | changes  # fmt: skip
    for pointer, flag in (("BIAS", "BIASED"), ("TILES", "PACKED")):
        if constants[flag]:
            del constants[pointer]
    constants = {key: value for key, value in constants.items() if key in function.arg_names}
    signature = {key: "constexpr" if key in constants else _type(key, dtype) for key in function.arg_names}
    sixteen = [key for key, kind in signature.items() if kind[0] == "*" or re.search(r"_[bht]$|^[TS]$", key)]
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs={(function.arg_names.index(key),): value for key, value in constants.items()},
        attrs={(function.arg_names.index(key),): [["tt.divisibility", 16]] for key in sixteen if key not in constants},
    )
    compiled = triton.compile(
        source, target=_target(arch), options={"num_warps": config.warps, "num_stages": config.stages}
    )
    return _facts(compiled, arch)


def _type(name: str, dtype: torch.dtype) -> str:
    if name in SINGLE:
        return "*fp32"
    if name in INTEGERS:
        return "*i32"
    if (name.isupper() and len(name) > 1) or name in "QKV":
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
        return Facts(counts[0], 4 * counts[1], compiled.metadata.shared, matrix)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        usage = subprocess.run([tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    return Facts(int(found[1]), int(found[2]) + int(found[3]), compiled.metadata.shared, matrix)
