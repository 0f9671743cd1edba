"""Hostile giants: bounded memory, never a silence in which a cancelled build would go on, one sentence or record."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.store.workspace import installation_root
from tests.stages.data.giants import GIANTS

KEPT = {"line.txt", "line.jsonl", "line.json", "object.json", "line.csv", "deep.json", "unclosed.json"}
"""Giants with a good record beside the hostile one."""


def taken(folder: Path, name: str, megabytes: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.stages.data.giants", str(folder), name, str(megabytes)]
    done = subprocess.run(command, cwd=installation_root(), capture_output=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def check(found: dict[str, Any], name: str, silence: float = 1.0) -> None:
    assert found["memory"] < 500 and found["silence"] < silence
    assert "\n" not in found["refused"]
    if name in KEPT:
        assert found["records"] == 1
    assert found["problems"] or found["refused"] or name == "object.json"


@pytest.mark.parametrize("name", ["line.json", "bomb.jsonl.gz", "unclosed.json"])
def test_a_giant_takes_little_memory_and_can_be_cancelled(tmp_path: Path, name: str) -> None:
    found = taken(tmp_path, name, 40)
    check(found, name, silence=3.0)  # other work on the machine takes its part
    assert found["memory"] < 120


@pytest.mark.soak
@pytest.mark.parametrize("name", GIANTS)
def test_a_giant_of_a_gigabyte_takes_little_memory_and_can_be_cancelled(tmp_path: Path, name: str) -> None:
    check(taken(tmp_path, name, 1_000), name)
