"""C beside Python: a source file of ours compiled once on each machine, with the compiler that is there.

What comes of it is kept in the user's cache, named by all that it depends on: the source, the compiler, the processor.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from kernels.configs import cache_folder

FLAGS = (
    "-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC",
    "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math",
)  # fmt: skip
"""Sums may be taken in another order, which is what makes them vectors; what is not a number stays so."""

SECONDS = 120
"""A compiler that takes longer than this is given up; it takes about two."""


class NotCompiled(Exception):
    """Why there is no compiled code, in words that fit behind a colon."""


def library(source: Path) -> ctypes.CDLL:
    """The compiled source, from the cache where it is there. Raises NotCompiled; a process tries once."""
    found = _library(source)
    if isinstance(found, NotCompiled):
        raise found
    return found


@cache
def _library(source: Path) -> ctypes.CDLL | NotCompiled:
    try:
        return _load(source)
    except NotCompiled as why:
        return why


def _load(source: Path) -> ctypes.CDLL:
    try:
        kept = cache_folder() / f"{source.stem}-{_key(source, _compiler())}.so"
        if not kept.exists():
            compile_to(source, kept)
        return ctypes.CDLL(str(kept))
    except OSError as error:
        raise NotCompiled(f"{error.strerror or error}") from None


def _compiler() -> str:
    found = next(filter(None, map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))), None)
    if found is None:
        raise NotCompiled("there is no C compiler")
    return found


def _key(source: Path, compiler: str) -> str:
    real = Path(compiler).resolve()
    parts = (source.read_bytes(), str(real), real.stat().st_mtime_ns, real.stat().st_size, FLAGS, _processor())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """What tells processors apart that do not run each other's code: a home folder may be on several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    told = {line for line in lines if line.partition(":")[0].strip() in ("model name", "flags", "Features", "CPU part")}
    return f"{platform.machine()} {sorted(told)}"


def compile_to(source: Path, target: Path) -> None:
    """Raises NotCompiled. It is made in a folder of its own and moved: others that compile the same do no harm."""
    compiler = _compiler()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="compiling-") as folder:
        made = Path(folder) / target.name
        command = [compiler, *FLAGS, "-o", str(made), str(source), "-lm"]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            raise NotCompiled(f"{compiler} takes longer than {SECONDS} s") from None
        if done.returncode:
            said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
            raise NotCompiled(f"{compiler} ended with {done.returncode}: {said[-300:]}")
        made.replace(target)
