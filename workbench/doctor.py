"""Looking the installation over: each finding says what is there, whether it is well, and what to do if not."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from stages.store.errors import UserError
from stages.store.files import free_bytes
from stages.store.workspace import Workspace, find_workspace, installation_root, state_folder, worker_environment
from workbench.display import displayable_line
from workbench.settings import Settings, load_settings

PACKAGES = ("workbench", "stages", "kernels", "assets")
SUPPORTED = ((3, 11), (3, 13))
"""The oldest and the newest Python that the pinned packages are tried with."""
LITTLE_SPACE = 1_000_000_000
"""Bytes of free disk below which a warning is due."""
SMALLEST = (60, 16)
"""Columns and rows below which the app asks for a larger window."""
PATIENCE = 300.0
"""Seconds that the child which imports torch may take."""

Status = Literal["ok", "warning", "broken"]


class Finding(NamedTuple):
    """One line of the report. `hint` says what to do about a warning or a broken thing."""

    kind: str
    name: str
    status: Status
    value: str
    hint: str = ""


MARKS = {"ok": " ok ", "warning": "warn", "broken": "BAD "}
"""Words of one width for how a thing stands."""


def printed(finding: Finding) -> Iterator[str]:
    """The lines of a finding, as the command prints them."""
    name = finding.name if finding.name.startswith(finding.kind) else f"{finding.kind} {finding.name}"
    yield displayable_line(f"{MARKS[finding.status]}  {name}: {finding.value}")
    if finding.hint:
        yield displayable_line(f"      {finding.hint}")


def examine() -> Iterator[Finding]:
    """All findings, the quick ones first; torch is looked at in a child process."""
    yield from at_once()
    yield from machine(ask_machine())


def at_once(workspace: Workspace | None = None, terminal_facts: Iterable[Finding] | None = None) -> Iterator[Finding]:
    """What is found without a child process; of this workspace and this terminal, where they are known already."""
    yield python()
    yield from packages()
    settings, finding = settings_files()
    yield finding
    yield from terminal() if terminal_facts is None else terminal_facts
    yield from places(workspace or find_workspace(settings.paths.workspace))


def python() -> Finding:
    """The interpreter's version and place."""
    value = f"{platform.python_version()} at {sys.executable}"
    oldest, newest = (".".join(map(str, version)) for version in SUPPORTED)
    if sys.version_info[:2] < SUPPORTED[0]:
        return Finding("software", "python", "broken", value, f"Python {oldest} or newer is needed.")
    if sys.version_info[:2] > SUPPORTED[1]:
        return Finding("software", "python", "warning", value, f"Tried with {oldest} to {newest}.")
    return Finding("software", "python", "ok", value)


def packages(path: list[str] | None = None, root: Path | None = None) -> Iterator[Finding]:
    """Whether each of our packages is ours, and whether others of the same names stand on `path` (sys.path)."""
    root = root or installation_root()
    for name in PACKAGES:
        first = _first_spec(name, path)
        if first is not None and first != root / name:
            hint = f"Remove it, or install Workbench in a virtual environment of its own; ours is {root / name}."
            yield Finding("packages", name, "broken", f"{first} shadows ours", hint)
            continue
        others = [place for place in foreign_places(name, sys.path if path is None else path) if place != root / name]
        if others:
            hint = "Another package uses the name; a virtual environment of its own keeps them apart."
            yield Finding("packages", name, "warning", f"ours, but also {', '.join(map(str, others))}", hint)
        else:
            yield Finding("packages", name, "ok", str(root / name))


def foreign_places(name: str, path: list[str]) -> list[Path]:
    """Where on `path` a package or module of this name could be imported from."""
    found = []
    for entry in dict.fromkeys(path):
        folder = Path(entry or ".").absolute()
        if (folder / name / "__init__.py").is_file():
            found.append((folder / name).resolve())
        elif (folder / f"{name}.py").is_file():
            found.append((folder / f"{name}.py").resolve())
    return found


def settings_files() -> tuple[Settings, Finding]:
    """The settings in force, or the defaults when a file is wrong."""
    try:
        settings = load_settings()
        if settings.keys:
            from workbench.keys import check_keymap

            check_keymap(settings.keys)
    except UserError as error:
        return Settings(), Finding("settings", "files", "broken", error.title, error.hint)
    value = ", ".join(map(str, settings.files)) or "none; the defaults hold"
    return settings, Finding("settings", "files", "ok", value)


def terminal() -> Iterator[Finding]:
    """Size, colours and encoding of the terminal."""
    if not sys.stdout.isatty():
        yield Finding("terminal", "size", "ok", "not a terminal: the output goes to a file or pipe")
        return
    yield from terminal_of(*shutil.get_terminal_size(), sys.stdout.encoding or "unknown")


def terminal_of(columns: int, rows: int, encoding: str) -> Iterator[Finding]:
    """What there is to say of a terminal of this size that is written to in this encoding."""
    small = columns < SMALLEST[0] or rows < SMALLEST[1]
    hint = f"The app needs {SMALLEST[0]} columns and {SMALLEST[1]} rows." if small else ""
    yield Finding("terminal", "size", "warning" if small else "ok", f"{columns}×{rows}", hint)
    yield _colours()
    utf8 = encoding.lower().replace("-", "") == "utf8"
    hint = "" if utf8 else "Set LANG to a UTF-8 locale, such as C.UTF-8."
    yield Finding("terminal", "encoding", "ok" if utf8 else "warning", encoding, hint)


def places(workspace: Workspace) -> Iterator[Finding]:
    """The workspace and the state folder: where they are, whether they can be written, what is free."""
    yield _place("workspace", workspace.root, "Set WORKBENCH_HOME or [paths] workspace to a folder you can write.")
    yield _place(
        "state", state_folder(), "The device queue stands there. Set XDG_STATE_HOME to a folder you can write."
    )


def ask_machine() -> dict[str, Any]:
    """What stages.machine finds out in a process of its own."""
    command, environment = machine_question()
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        return {"error": str(error)}
    except OSError as error:
        return {"error": not_started(error)}
    return machine_answer(done.returncode, done.stdout, done.stderr)


def not_started(error: OSError) -> str:
    """Why the child that finds out about the machine could not be started."""
    return f"the process that looks at it could not be started: {error.strerror or error}"


def machine_question() -> tuple[list[str], dict[str, str]]:
    """The command that finds out about the machine, and its environment."""
    environment = worker_environment()
    return [sys.executable, "-P", "-m", "stages.machine"], environment


def machine_answer(code: int, out: bytes, err: bytes) -> dict[str, Any]:
    """What that command found out, or under `error` why it did not."""
    if code:
        return {"error": (err.decode("utf-8", "replace").strip().splitlines() or [f"exit code {code}"])[-1]}
    try:
        return msgspec.json.decode(out, type=dict[str, Any])
    except msgspec.DecodeError as error:
        return {"error": str(error)}


def machine(facts: dict[str, Any]) -> Iterator[Finding]:
    """Findings from the facts of stages.machine."""
    if "error" in facts:
        yield Finding("machine", "probe", "broken", facts["error"], "`make run` installs what is missing.")
        return
    yield _torch(facts["torch"], facts["gpus"])
    if "error" not in facts["torch"]:
        yield _several(facts["torch"], len(facts["gpus"].get("devices", [])))
    yield _triton(facts["triton"])
    yield Finding("machine", "cpu", "ok", f"{facts['cores']} cores, {_size(facts['memory']['available'])} memory free")
    yield from _gpus(facts["gpus"])
    if "error" not in facts["precision"]:
        value = f"auto is {facts['precision']['name']}: {facts['precision']['why']}"
        yield Finding("machine", "precision", "ok", value)
    yield from _attention(facts["attention"])


def _torch(torch: dict[str, Any], gpus: dict[str, Any]) -> Finding:
    if "error" in torch:
        return Finding("software", "torch", "broken", torch["error"], "`make run` installs the pinned version.")
    if gpus.get("devices") and not torch["gpu"]:
        hint = 'Install a torch build for CUDA that this driver supports, or set device = "cpu" under [pretrain].'
        return Finding("software", "torch", "broken", f"{torch['version']} cannot use the GPU of this machine", hint)
    return Finding("software", "torch", "ok", f"{torch['version']}, {torch['threads']} threads")


def _several(torch: dict[str, Any], gpus: int) -> Finding:
    """Whether --gpus can be more than 1, and what the processes would talk by."""
    wanted = "nccl" if gpus > 1 else "gloo"
    if not torch.get(wanted):
        hint = f"This build of torch has no {wanted}: runs train in one process."
        return Finding("software", "several processes", "warning", f"{wanted} is missing", hint)
    value = f"nccl, on up to {gpus} GPUs; not yet tried there" if gpus > 1 else "gloo, on the CPU"
    return Finding("software", "several processes", "ok", value)


def _triton(triton: dict[str, Any]) -> Finding:
    if "error" in triton:
        return Finding("software", "triton", "ok", "not installed; attention goes through PyTorch")
    return Finding("software", "triton", "ok", triton["version"])


def _gpus(gpus: dict[str, Any]) -> Iterator[Finding]:
    if "error" in gpus:
        yield Finding("machine", "gpu", "warning", gpus["error"], "The NVIDIA driver does not answer as it should.")
    elif not gpus["devices"]:
        yield Finding(
            "machine", "gpu", "ok", f"none ({gpus.get('why') or 'the driver lists none'}); work runs on the CPU"
        )
    for gpu in gpus.get("devices", ()):
        value = f"{gpu['name']}, {_size(gpu['free'])} of {_size(gpu['total'])} free, driver {gpus['driver']}"
        yield Finding("machine", "gpu", "ok", value)


def _attention(attention: dict[str, Any]) -> Iterator[Finding]:
    if "error" in attention:
        yield Finding("attention", "probe", "broken", attention["error"], "Nothing can be trained like this.")
        return
    for row in attention["rows"]:
        name = f"{row['call']}, {row['device']} {row['dtype']}"
        yield Finding("attention", name, "ok", f"{row['backend']}: {row['why']}")
    for test in attention["tests"]:
        name = f"self-test, {test['device']} {test['dtype']}"
        value = f"differs from the reference by {test['difference']:.1e}"
        hint = "" if test["passed"] else "Set WORKBENCH_ATTENTION=reference and report this."
        yield Finding("attention", name, "ok" if test["passed"] else "broken", value, hint)
    for trial in attention.get("trials", ()):
        yield _trial(trial)


def _trial(trial: dict[str, Any]) -> Finding:
    """How the fused kernels did for one dtype and head width. When they fail, PyTorch takes over: no reason to stop."""
    kind = f"heads of {trial['width']}" if trial.get("kernel", "attention") == "attention" else trial["kernel"]
    name = f"fused kernels, {trial['dtype']} {kind}"
    if trial["why"]:
        return Finding("attention", name, "warning", trial["why"], "PyTorch does the same, only slower.")
    speed = f", {trial['speedup']:.2f} × as fast as PyTorch" if trial["speedup"] else ""
    return Finding("attention", name, "ok", f"differ from the reference by {trial['error']}{speed}")


def _first_spec(name: str, path: list[str] | None) -> Path | None:
    """The folder or file that `import name` takes: from `path`, or as this process does it."""
    spec = importlib.machinery.PathFinder.find_spec(name, path) if path is not None else importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin).resolve()
    return origin.parent if origin.name == "__init__.py" else origin


def _colours() -> Finding:
    term = os.environ.get("TERM", "")
    if os.environ.get("NO_COLOR"):
        return Finding("terminal", "colours", "ok", "none: NO_COLOR is set")
    if os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return Finding("terminal", "colours", "ok", f"16 million ({term})")
    if "256color" in term:
        return Finding("terminal", "colours", "ok", f"256 ({term}); COLORTERM=truecolor allows all")
    return Finding(
        "terminal", "colours", "warning", f"16 or fewer ({term or 'TERM is not set'})", 'theme = "ansi" fits.'
    )


def _place(name: str, path: Path, hint: str) -> Finding:
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding("workspace", name, "broken", f"{path} cannot be written", hint)
    free = free_bytes(path)
    value = f"{path}{'' if path.exists() else ' (not made yet)'}, {_size(free)} free"
    if free < LITTLE_SPACE:
        return Finding("workspace", name, "warning", value, "Free some space: checkpoints need it.")
    return Finding("workspace", name, "ok", value)


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
