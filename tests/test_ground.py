"""The ground: pinned packages, the Makefile's first steps, the script for a clean clone."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
from pathlib import Path

import pytest
import tomli

ROOT = Path(__file__).resolve().parents[1]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines), "exact, no local suffix"
    return {canonical(name): version for name, _, version in (line.partition("==") for line in lines)}


def needed(requirements: list[str]) -> set[str]:
    """Canonical names of the packages that these requirements draw in on this machine, our extras left out."""
    seen: set[str] = set()
    waiting = requirements
    while waiting:
        requirement = waiting.pop()
        name = canonical(re.match(r"[A-Za-z0-9._-]+", requirement.strip())[0])  # type: ignore[index]  # always a name
        marker = requirement.partition(";")[2]
        if name in seen or "extra ==" in marker or re.match(r"(nvidia-(?!ml)|cuda-)", name):
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system or Python, by its marker
        seen.add(name)
        waiting += distribution.requires or []
    return seen


def project() -> dict[str, dict[str, list[str]]]:
    return tomli.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_whole_tree_is_pinned() -> None:
    wanted = needed([*project()["dependencies"], *project()["optional-dependencies"]["test"]])
    assert wanted - set(pins()) == set()
    assert {"torch", "textual", "pytest"} <= wanted


def test_the_tests_run_with_the_pinned_versions() -> None:
    off = []
    for name, version in pins().items():
        try:
            installed = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
        if installed != version:
            off.append(f"{name} is {installed}, pinned {version}")
    assert off == []


def test_every_install_command_uses_the_pins() -> None:
    installs = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line]
    assert installs
    assert all("-c constraints.txt" in line for line in installs)


def outside_make() -> dict[str, str]:
    """The environment without what `make test` passes on to a make below it."""
    return {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS")}


def make(folder: Path, target: str, **environment: str) -> subprocess.CompletedProcess[str]:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return subprocess.run(
        ["make", "--silent", target],
        cwd=folder,
        env={**outside_make(), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_an_old_or_missing_python_is_said_in_a_line(tmp_path: Path) -> None:
    old = script(tmp_path / "oldpython", 'case "$1" in -V) echo Python 3.9.2;; *) exit 1;; esac')
    done = make(tmp_path, "run", PYTHON=old)
    assert done.returncode != 0
    assert "Python 3.9.2; Python 3.11 or newer is needed" in done.stderr
    done = make(tmp_path, "run", PYTHON="python-of-nowhere")
    assert "there is no python-of-nowhere here" in done.stderr


def test_a_python_without_venv_is_said_in_a_line_and_leaves_nothing(tmp_path: Path) -> None:
    bare = script(tmp_path / "barepython", 'case "$2" in venv) mkdir -p .venv/bin; exit 1;; esac')
    done = make(tmp_path, "test", PYTHON=bare)
    assert done.returncode != 0
    assert "cannot make a virtual environment" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_clean_clone_script_finds_the_data_and_calls_check_and_test(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    (clone / ".ci").mkdir(parents=True)
    (clone / ".ci" / "run").write_bytes((ROOT / ".ci" / "run").read_bytes())
    (clone / "Makefile").write_text('check test:\n\t@echo "$@ with [$${WORKBENCH_TEST_DATA}]"\n')
    (clone / ".ci" / "run").chmod(0o755)

    def run() -> list[str]:
        environment = {key: value for key, value in outside_make().items() if key != "WORKBENCH_TEST_DATA"}
        done = subprocess.run(
            [clone / ".ci" / "run"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    assert run() == ["check with []", "test with []"]
    data = tmp_path / "shared" / "data"
    data.mkdir(parents=True)
    assert run() == [f"check with [{data}]", f"test with [{data}]"]


def test_the_script_for_a_clean_clone_may_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("folder", ["workbench", "stages", "kernels", "assets"])
def test_every_folder_of_code_is_a_package(folder: str) -> None:
    missing = [
        path for path in {file.parent for file in (ROOT / folder).rglob("*.py")} if not (path / "__init__.py").is_file()
    ]
    assert missing == []
