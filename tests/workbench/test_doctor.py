"""The doctor tells what is well, what is broken, and what shadows us."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from stages.store.workspace import find_workspace, installation_root
from tests.workbench.conftest import screen_text, settled, wait_for
from workbench import doctor
from workbench.app import WorkbenchApp
from workbench.doctor import Finding
from workbench.screens import doctor as doctor_screen

WELL: dict[str, Any] = {
    "memory": {"available": 8 * 2**30},
    "cores": 4,
    "gpus": {"driver": None, "why": "no driver", "devices": []},
    "torch": {"version": "2.13.0", "cuda": None, "gpu": None, "threads": 4, "gloo": True, "nccl": False},
    "triton": {"version": "3.7.1"},
    "precision": {"name": "fp32", "why": "no bf16"},
    "attention": {
        "rows": [{"call": "attention", "device": "cpu", "dtype": "float32", "backend": "sdpa", "why": "fastest"}],
        "tests": [{"device": "cpu", "dtype": "float32", "difference": 1e-7, "passed": True}],
    },
}


def package(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").touch()
    return folder / name


def broken(findings: list[Finding]) -> list[str]:
    return [finding.name for finding in findings if finding.status == "broken"]


def test_a_foreign_package_before_ours_is_broken_and_named(tmp_path: Path) -> None:
    for name in doctor.PACKAGES:
        package(tmp_path / "ours", name)
    foreign = package(tmp_path / "site-packages", "kernels")
    findings = list(doctor.packages([str(tmp_path / "site-packages"), str(tmp_path / "ours")], tmp_path / "ours"))
    assert broken(findings) == ["kernels"]
    assert str(foreign) in next(finding.value for finding in findings if finding.name == "kernels")


def test_a_foreign_package_behind_ours_is_a_warning(tmp_path: Path) -> None:
    for name in doctor.PACKAGES:
        package(tmp_path / "ours", name)
    foreign = package(tmp_path / "site-packages", "kernels")
    (tmp_path / "site-packages" / "stages.py").touch()
    findings = list(doctor.packages([str(tmp_path / "ours"), str(tmp_path / "site-packages")], tmp_path / "ours"))
    warned = {finding.name: finding.value for finding in findings if finding.status == "warning"}
    assert list(warned) == ["stages", "kernels"]
    assert str(foreign) in warned["kernels"]
    assert broken(findings) == []


def test_what_the_machine_says_becomes_findings() -> None:
    findings = {finding.name: finding for finding in doctor.machine(WELL)}
    assert all(finding.status == "ok" for finding in findings.values())
    assert "work runs on the CPU" in findings["gpu"].value
    assert findings["attention, cpu float32"].value == "sdpa: fastest"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"torch": {"error": "ImportError: no torch"}}, "torch"),
        ({"gpus": {"driver": "570", "devices": [{"name": "H200", "uuid": "x", "total": 1, "free": 1}]}}, "torch"),
        ({"attention": {"error": "OSError: broken"}}, "probe"),
        (
            {
                "attention": {
                    "rows": [],
                    "tests": [{"device": "cpu", "dtype": "float32", "difference": 1.0, "passed": False}],
                }
            },
            "self-test, cpu float32",
        ),
    ],
)
def test_what_keeps_the_work_from_running_is_broken(change: dict[str, Any], name: str) -> None:
    findings = list(doctor.machine({**WELL, **change}))
    assert broken(findings) == [name]
    assert all(finding.hint for finding in findings if finding.status == "broken")


def test_a_gpu_is_shown_with_memory_and_driver() -> None:
    gpu = {"name": "NVIDIA H200", "uuid": "x", "total": 140 * 2**30, "free": 100 * 2**30}
    facts = {**WELL, "gpus": {"driver": "570.1", "devices": [gpu]}, "torch": {**WELL["torch"], "gpu": "NVIDIA H200"}}
    findings = {finding.name: finding.value for finding in doctor.machine(facts)}
    assert findings["gpu"] == "NVIDIA H200, 100.0 GiB of 140.0 GiB free, driver 570.1"


def test_a_workspace_below_a_file_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "file" / "workspace"))
    settings, _ = doctor.settings_files()
    assert broken(list(doctor.places(find_workspace(settings.paths.workspace)))) == ["workspace"]


def test_a_wrong_settings_file_and_an_unknown_key_are_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workbench.toml").write_text('[app]\ntheme = "grey"')
    assert "grey" in doctor.settings_files()[1].value
    (tmp_path / "workbench.toml").write_text('[keys]\n"app.quti" = "x"')
    finding = doctor.settings_files()[1]
    assert finding.status == "broken"
    assert "app.quit" in finding.hint


def test_the_command_reports_this_machine_and_a_shadow_makes_it_fail(tmp_path: Path) -> None:
    package(tmp_path / "foreign", "assets")
    root = installation_root()

    def run(*path: Path) -> tuple[int, dict[str, dict[str, str]]]:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "workbench", "doctor", "--json"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.stdout, done.stderr
        return done.returncode, {f"{f['kind']} {f['name']}": f for f in json.loads(done.stdout)}

    code, findings = run(root)
    assert code == 0, findings
    assert {"software python", "software torch", "machine cpu", "machine gpu", "workspace workspace"} <= set(findings)
    assert any(name.startswith("attention self-test") for name in findings)

    (tmp_path / "foreign" / "assets" / "__init__.py").write_text(f"__path__.append({str(root / 'assets')!r})")
    code, findings = run(tmp_path / "foreign", root)
    assert code == 1
    assert findings["packages assets"]["status"] == "broken"


def test_fused_kernels_that_fail_on_a_card_are_a_warning() -> None:
    trial = {"dtype": "bfloat16", "width": 64, "error": "1.2e-03", "speedup": 1.5, "fault": "", "why": ""}
    failed = trial | {"width": 128, "speedup": None, "why": "its self-test failed on this card: it hung"}
    facts = WELL | {"attention": WELL["attention"] | {"trials": [trial, failed]}}
    findings = [finding for finding in doctor.machine(facts) if finding.name.startswith("fused kernels")]
    assert [finding.status for finding in findings] == ["ok", "warning"]
    assert findings[0].value == "differ from the reference by 1.2e-03, 1.50 × as fast as PyTorch"
    assert "it hung" in findings[1].value and "PyTorch" in findings[1].hint


async def test_the_app_has_a_doctor_too_who_looks_again_and_says_what_is_broken(
    make_app: Callable[..., WorkbenchApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [WELL, {"error": "torch will not start"}]

    async def ask() -> dict[str, Any]:
        return answers.pop(0)

    monkeypatch.setattr(doctor_screen, "ask", ask)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("M", "d")
        await wait_for(pilot, lambda: "attention: fastest" in screen_text(app) or "sdpa: fastest" in screen_text(app))
        assert "120×40" in screen_text(app) and str(app.workspace.root) in screen_text(app).replace("\n", "")
        await wait_for(pilot, lambda: "looking" not in screen_text(app))
        await pilot.press("r")
        await wait_for(pilot, lambda: "1 broken" in screen_text(app))
        await pilot.press("escape", "escape")
        await wait_for(pilot, lambda: type(app.screen).__name__ == "HomeScreen")


async def test_the_question_to_the_machine_ends_with_whoever_asks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = tmp_path / "pid"
    waits = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    monkeypatch.setattr(doctor_screen, "machine_question", lambda: ([sys.executable, "-c", waits], dict(os.environ)))
    asking = asyncio.create_task(doctor_screen.ask())
    while not (told.is_file() and told.read_text()):
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    pid = int(told.read_text())
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        await asyncio.sleep(0.01)


def test_what_the_machine_did_not_say_is_an_error_in_a_line() -> None:
    assert doctor.machine_answer(1, b"", b"Traceback\nImportError: no torch\n") == {"error": "ImportError: no torch"}
    assert doctor.machine_answer(3, b"", b"") == {"error": "exit code 3"}
    assert "error" in doctor.machine_answer(0, b"no json", b"")


async def test_a_child_that_cannot_be_started_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    async def refuse_too(*_: object, **__: object) -> Any:
        refuse()

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse_too)
    for facts in (await doctor_screen.ask(), doctor.ask_machine()):
        (finding,) = doctor.machine(facts)
        assert finding.status == "broken" and "could not be started: Resource temporarily" in finding.value
