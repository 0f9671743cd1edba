"""Launching, resuming and steering runs. The work itself happens in detached workers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from stages.store import strict
from stages.store.building import name_lock
from stages.store.checkpoints import MANIFEST, resolve_checkpoint
from stages.store.datasets import find_dataset
from stages.store.errors import UserError, WorkFailed
from stages.store.files import disk_errors
from stages.store.names import check_name
from stages.store.rundir import Parent, RunDir, RunSpec, create_run, list_runs
from stages.store.specs import TRAINING, on_several_gpus, spec_of
from stages.store.specs.parallel import refuse_shares
from stages.store.specs.parents import ExtraParent, extra_parents
from stages.store.tokenizers import find_tokenizer
from stages.store.workspace import Workspace, installation_root, worker_environment
from workbench.follow import RowFollower
from workbench.settings import load_settings

RECORDED = ("workbench", "torch", "triton", "numpy", "tokenizers", "safetensors", "pyarrow")
"""Packages whose versions go into spec.json."""


def launch(
    workspace: Workspace,
    stage: str,
    name: str,
    settings: Mapping[str, Any],
    *,
    dataset: str | None = None,
    tokenizer: str | None = None,
    checkpoint: str | None = None,
    checkpoints: Sequence[str] = (),
    extra: Mapping[str, str] | None = None,
    group: str = "",
    cpu_width: int = 1,
) -> RunDir:
    """Start a detached worker on a new run and return at once.

    `name` is the name of what the run makes: the dataset, the tokenizer, or the trained model. `dataset`, `tokenizer`
    and `checkpoint` are names as people write them; they are pinned by digest. `checkpoints` are for a stage that looks
    at several; `extra` are those that `extra_parents` of the stage tells of, by role. `group` is the sweep or scaling
    study that the run is part of. Raises UserError for a setting that the stage's spec refuses, an unknown or missing
    parent, or a name that another run has.
    """
    workspace.ensure()
    spec = strict.parse(spec_of(stage), settings, f"{stage} settings")
    check_name(name, "name of a run")
    resolved = msgspec.to_builtins(spec)
    refuse_shares(resolved, int(resolved.get("gpus") or 1))
    parents = _pin(workspace, dataset, tokenizer, checkpoint, checkpoints) | _pin_extra(workspace, stage, extra or {})
    plan = RunSpec(
        stage=stage,
        name=name,
        settings=resolved,
        parents=parents,
        seed=int(resolved.get("seed") or 0),
        threads=int(resolved.get("threads") or usable_cores()),
        versions=_versions(),
        host=socket.gethostname(),
        git_commit=_git_commit(),
        group=group,
        created=time.time(),
    )
    with name_lock(workspace.runs, name) as held:  # or two launches at one instant would both find the name free
        if stage in TRAINING and (not held or name in run_names(workspace)):
            raise UserError(f"There is already a run {name!r}.", "Choose another name, or delete that run.")
        run = create_run(workspace, plan)
    start(run, cpu_width=cpu_width)
    return run


def start(run: RunDir, *, cpu_width: int = 1, gpus: int | None = None) -> None:
    """Start a worker on a run that has none: a new one, or one that was paused, stopped, failed or lost.

    gpus: how many processes are to train it this time, where that is not as its settings say.
    """
    several = _several(run.spec(), gpus)
    descriptor = run.acquire()
    if descriptor is None:
        raise UserError(f"The run {run.spec().name!r} is at work already.")
    environment = {
        **worker_environment(),
        "WORKBENCH_LOCK_FD": str(descriptor),
        "WORKBENCH_CPU_WIDTH": str(cpu_width),
        **several,
    }
    try:
        with run.there(), disk_errors(run.path):
            for request in run.control.glob("*.json"):
                request.unlink()  # what was asked of a worker that is gone
            state = run.state()
            state.status, state.error, state.heartbeat, state.host = "queued", None, time.time(), socket.gethostname()
            run.write_state(state)
            spawn(run, environment, descriptor)
    finally:
        os.close(descriptor)


def spawn(run: RunDir, environment: Mapping[str, str], lock: int) -> None:
    """Start the process of a worker, in a session of its own; it inherits the descriptor of the run's lock.

    Raises WorkFailed where the system has no more processes or memory to give.
    """
    with run.log.open("ab") as log:
        try:
            subprocess.Popen(
                [sys.executable, "-P", "-m", "stages", str(run.path)],
                cwd=installation_root(),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[lock],
            )
        except OSError as error:
            hint = f"Close other programs; then `workbench runs resume {run.id}` starts it."
            raise WorkFailed(f"The worker of the run cannot be started: {error}.", hint) from error


def _several(spec: RunSpec, gpus: int | None) -> dict[str, str]:
    """What tells a worker to be many; UserError where these settings cannot be shared by so many."""
    processes = gpus or int(spec.settings.get("gpus") or 1)
    refuse_gpus(spec.stage, processes)
    refuse_shares(spec.settings, processes)
    if processes == int(spec.settings.get("gpus") or 1) == 1:
        return {}
    template = load_settings().launch.command if processes > 1 else []
    return {"WORKBENCH_GPUS": str(processes), "WORKBENCH_LAUNCH": msgspec.json.encode(template).decode()}


def refuse_gpus(stage: str, processes: int) -> None:
    """Raise UserError where several processes are to do what one does."""
    able = on_several_gpus()
    if processes > 1 and stage not in able:
        raise UserError(
            f"{stage} is done by one process, not by {processes}.", f"Several can train: {', '.join(able)}."
        )


def stop(run: RunDir) -> None:
    """Ask the worker to save a checkpoint and end."""
    _request(run, "stop")


def pause(run: RunDir) -> None:
    """Ask the worker to save a checkpoint and give the device up; `start` goes on from there."""
    _request(run, "pause")


def checkpoint_now(run: RunDir) -> None:
    """Ask the worker to save a checkpoint at its next step."""
    _request(run, "checkpoint")


def set_lr(run: RunDir, lr: float) -> None:
    """Change the peak learning rate from the next step on; the schedule keeps its shape."""
    _request(run, "set", {"lr": parse_lr(run, str(lr))})


def peak_lr(run: RunDir) -> float:
    """The peak learning rate that the run goes by: the one that was set last, else that of its settings; 0: none."""
    rates = [row["lr"] for row in RowFollower(run.events).read().rows if row.get("event") == "set" and "lr" in row]
    found = rates[-1] if rates else run.spec().settings.get("lr")
    return float(found) if isinstance(found, int | float) else 0.0


def parse_lr(run: RunDir, text: str) -> float:
    """The learning rate that `text` means; UserError where the run's stage would refuse it."""
    value = strict.parse_text(spec_of(run.spec().stage), "lr", text, "lr")
    if value is None:
        raise UserError("A running run needs a learning rate.", "Give a number such as 0.0003.")
    return float(value)


def run_names(workspace: Workspace) -> set[str]:
    """Names of all readable training runs."""
    names = set()
    for run in list_runs(workspace):
        try:
            spec = run.spec()
        except UserError:
            continue
        if spec.stage in TRAINING:
            names.add(spec.name)
    return names


def unique_name(taken: Iterable[str], stem: str) -> str:
    """`stem`, or `stem-2`, `stem-3` … when it is taken."""
    used = set(taken)
    number = 1
    while (name := stem if number == 1 else f"{stem}-{number}") in used:
        number += 1
    return name


def usable_cores() -> int:
    """Physical cores this process may run on: a second thread on a core does not speed matrix products up."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def _request(run: RunDir, verb: str, values: dict[str, Any] | None = None) -> None:
    if not run.alive():
        raise UserError(f"The run {run.spec().name!r} is not at work.", f"It is {run.status()}.")
    run.request(verb, values)


def _pin(
    workspace: Workspace,
    dataset: str | None,
    tokenizer: str | None,
    checkpoint: str | None,
    checkpoints: Sequence[str],
) -> dict[str, Parent]:
    parents = {}
    if dataset is not None:
        parents["dataset"] = Parent(dataset, find_dataset(workspace, dataset).info.digest)
    if tokenizer is not None:
        parents["tokenizer"] = Parent(tokenizer, find_tokenizer(workspace, tokenizer).info.digest)
    if checkpoint is not None:
        parents["checkpoint"] = _pinned_checkpoint(workspace, checkpoint)
    for number, name in enumerate(checkpoints, 1):
        parents[f"checkpoint-{number}"] = _pinned_checkpoint(workspace, name)
    return parents


def _pin_extra(workspace: Workspace, stage: str, names: Mapping[str, str]) -> dict[str, Parent]:
    parents = {}
    for one in extra_parents(stage):
        if name := names.get(one.role):
            parents[one.role] = _pinned(workspace, one, name)
        elif one.required:
            raise UserError(f"{stage} needs a {one.role}, and none is given.", one.about)
    if unknown := set(names) - {one.role for one in extra_parents(stage)}:
        raise UserError(f"{stage} takes no {min(unknown)}.")
    return parents


def _pinned(workspace: Workspace, extra: ExtraParent, name: str) -> Parent:
    if extra.of == "dataset":
        return Parent(name, find_dataset(workspace, name).info.digest)
    return _pinned_checkpoint(workspace, name)


def _pinned_checkpoint(workspace: Workspace, name: str) -> Parent:
    found = resolve_checkpoint(workspace, name)
    if not (found.path / MANIFEST).is_file():
        raise UserError(
            f"The model folder {found.path} was not written by workbench.", "`workbench import` takes it in first."
        )
    return Parent(str(found.path), found.digest())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in RECORDED:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git_commit() -> str | None:
    """The commit of the installation, when it is a checkout."""
    head = installation_root() / ".git" / "HEAD"
    try:
        text = head.read_text().strip()
        return (head.parent / text[5:]).read_text().strip() if text.startswith("ref: ") else text
    except OSError:
        return None
