"""The direction of imports: statically over every file, and in a process that starts the app."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("workbench", "stages", "kernels", "assets")
HEAVY = {"torch", "triton", "numpy", "pyarrow", "tokenizers", "jinja2", "safetensors", "transformers", "datasketch"}
"""What the app's process never imports: 190 MB and well over a second."""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import in a file, those inside functions included."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative imports hide the direction; package {package}"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def ours(name: str) -> bool:
    return name.partition(".")[0] in OURS


def offences(folder: str, allowed_of_ours: set[str], forbidden: set[str]) -> list[str]:
    """Imports below `folder` of ours that are not allowed, and of others that are forbidden."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"nothing to check in {folder}"
    return [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files
        for line, name in imports(path)
        if (ours(name) and not within(name, allowed_of_ours)) or within(name, forbidden)
    ]


def test_kernels_import_torch_triton_and_numpy_only() -> None:
    allowed = {"torch", "triton", "numpy", "kernels"} | set(sys.stdlib_module_names)
    found = [
        f"{path.name}:{line}: {name}"
        for path in sorted((ROOT / "kernels").rglob("*.py"))
        for line, name in imports(path)
        if name.partition(".")[0] not in allowed
    ]
    assert found == []


def test_stages_import_neither_the_app_nor_textual() -> None:
    assert offences("stages", {"stages", "kernels", "assets"}, {"textual", "plotext", "click"}) == []


def test_the_store_imports_nothing_heavy_and_nothing_of_the_stages() -> None:
    assert offences("stages/store", {"stages.store", "assets"}, HEAVY | {"textual"}) == []


def test_the_app_imports_only_the_store_of_ours_and_nothing_heavy_not_even_lazily() -> None:
    assert offences("workbench", {"workbench", "stages.store", "assets"}, HEAVY) == []


def test_assets_import_nothing() -> None:
    assert offences("assets", {"assets"}, HEAVY | {"textual"}) == []


def test_one_module_imports_plotext() -> None:
    users = {
        path.name
        for path in (ROOT / "workbench").rglob("*.py")
        for _, name in imports(path)
        if within(name, {"plotext"})
    }
    assert users == {"plot.py"}


def modules_after(code: str, tmp_path: Path) -> set[str]:
    """Names in sys.modules of a fresh process that has run `code`."""
    script = f"{code}\nimport json, sys\nprint('MODULES' + json.dumps(sorted(sys.modules)))"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "WORKBENCH_HOME": str(tmp_path / "workspace"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.rpartition("MODULES")[2]))


HEADLESS = """
import asyncio
from stages.store.workspace import find_workspace
from workbench.app import WorkbenchApp
from workbench.settings import load_settings

async def visit():
    app = WorkbenchApp(load_settings(), find_workspace().ensure())
    async with app.run_test(size=(120, 40)) as pilot:
        for place in ("home", "data", "runs", "chat"):
            app.go(place)
            await pilot.pause()
            await app.workers.wait_for_complete()
        for stage in ("build", "tokenizer", "pretrain"):
            app.start_run(stage)
            await pilot.pause()

asyncio.run(visit())
"""


def test_the_running_app_has_nothing_heavy_in_memory(tmp_path: Path) -> None:
    loaded = modules_after(HEADLESS, tmp_path)
    assert "workbench.screens.home" in loaded
    assert loaded & HEAVY == set()
    assert [name for name in loaded if ours(name) and not within(name, {"workbench", "stages.store", "assets"})] == [
        "stages"  # the package that holds the store; its __init__ is empty
    ]


def test_the_app_starts_without_the_command_line(tmp_path: Path) -> None:
    loaded = modules_after("import workbench.__main__, workbench.app, workbench.settings", tmp_path)
    assert "textual.app" in loaded
    assert "click" not in loaded


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["runs", "--json"], ["data", "list"]])
def test_a_command_loads_neither_textual_nor_anything_heavy(arguments: list[str], tmp_path: Path) -> None:
    loaded = modules_after(f"from workbench.cli.root import run\nassert run({arguments!r}) == 0", tmp_path)
    assert loaded & (HEAVY | {"textual"}) == set()
