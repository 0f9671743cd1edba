"""Workspaces made by hand, the app over them, and snapshots of whole screens as plain text."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from textual.app import App
from textual.pilot import Pilot
from textual.worker import WorkerCancelled

from stages.store.checkpoints import Lineage, write_checkpoint
from stages.store.datasets import DatasetInfo, Filter, Problem, Source
from stages.store.rundir import Parent, RunDir, RunError, RunSpec, RunState, create_run
from stages.store.tokenizers import INFO, TokenizerInfo
from stages.store.workspace import Workspace
from workbench.app import WorkbenchApp
from workbench.settings import Settings

SNAPSHOTS = Path(__file__).parent / "snapshots"
SIZES = [(80, 24), (120, 40)]
"""Sizes at which every screen has a snapshot."""

CREATED = 1_772_000_000.0
"""When everything in the hand-made workspace was made: a fixed moment in 2026."""

DATASET_DIGEST = "d1" * 32
TOKENIZER_DIGEST = "70" * 32


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's own workspace, settings or queue; times are shown in UTC."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "workspace"))
    for name in ("STATE", "CONFIG", "DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("WORKBENCH_DECODER", "plain")  # in a cache of its own each test would compile anew
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    return tmp_path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return Workspace(tmp_path / "workspace").ensure()


@pytest.fixture
def populated(workspace: Workspace) -> Workspace:
    """A dataset and its tokenizer, a finished model with a checkpoint, a failed run and a lost one."""
    add_dataset(workspace, "world", sources=["starter:world"])
    add_dataset(workspace, "notes", digest="d2" * 32, created=CREATED - 9_000, problems=3)
    add_tokenizer(workspace, "world-bpe", dataset="world")
    parents = {"dataset": Parent("world", DATASET_DIGEST), "tokenizer": Parent("world-bpe", TOKENIZER_DIGEST)}
    add_run(workspace, "build", "world", created=CREATED - 600, unit="bytes", step=2_000_000, total=2_000_000)
    dataset_only = {"dataset": parents["dataset"]}
    add_run(workspace, "tokenizer", "world-bpe", created=CREATED - 500, unit="bytes", parents=dataset_only)
    error = RunError("WorkFailed", "The loss is not finite at step 212.", "Lower lr, or raise warmup.")
    add_run(workspace, "pretrain", "too-hot", "failed", created=CREATED - 400, parents=parents, step=212, error=error)
    add_run(workspace, "pretrain", "cut-off", "running", created=CREATED - 300, parents=parents, step=700)
    model = add_run(workspace, "pretrain", "world-tiny", created=CREATED, parents=parents, step=2_000)
    add_metrics(model, 200)
    add_checkpoint(model, 2_000, parents=parents)
    return workspace


def add_dataset(
    workspace: Workspace,
    name: str,
    *,
    digest: str = DATASET_DIGEST,
    created: float = CREATED,
    sources: list[str] | None = None,
    problems: int = 0,
    **changes: Any,
) -> None:
    """dataset.json of a dataset with no records: enough for all that the app shows."""
    info = DatasetInfo(
        name=name,
        kind="text",
        digest=digest,
        records={"train": 9_012, "val": 988},
        characters={"train": 1_801_234, "val": 199_888},
        bytes={"train": 1_803_456, "val": 200_111},
        sources=[Source(f"{name}.txt", 2_100_000, "ab" * 32)],
        filters=[
            Filter("control_characters", "Control characters are removed.", 0, 3, ["a page\x0cbreak"]),
            Filter("deduplicate", "Exact duplicates are dropped; the first is kept.", 41, 0, ["The sky is blue."]),
            Filter("min_characters", "Documents under 1 character are dropped.", 2, 0, []),
        ],
        read=10_043,
        problems=[Problem(f"{name}.jsonl", 10 + i, "text", "the field is missing") for i in range(problems)],
        problem_count=problems,
        split="documents:0.1",
        settings={"sources": sources or [f"/data/{name}.txt"], "split": "documents:0.1"},
        created=created,
    )
    folder = workspace.datasets / name
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(info, **changes)))


def add_tokenizer(
    workspace: Workspace, name: str, *, dataset: str = "", digest: str = TOKENIZER_DIGEST, **changes: Any
) -> None:
    """tokenizer.info.json of a tokenizer."""
    info = TokenizerInfo(
        name=name,
        type="bpe",
        vocab_size=4_096,
        digest=digest,
        special={"eos": 0, "pad": 1},
        dataset=dataset,
        dataset_digest=DATASET_DIGEST if dataset else "",
        bytes_per_token=3.71,
        round_trips=988,
        round_trip_checked=988,
        created=CREATED,
    )
    folder = workspace.tokenizers / name
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    (folder / INFO).write_bytes(msgspec.json.encode(msgspec.structs.replace(info, **changes)))


def add_run(
    workspace: Workspace,
    stage: str,
    name: str,
    status: Any = "finished",
    *,
    created: float = CREATED,
    parents: dict[str, Parent] | None = None,
    settings: dict[str, Any] | None = None,
    **state: Any,
) -> RunDir:
    """A run as its worker left it. `status` running without a worker is what a lost run looks like."""
    spec = RunSpec(stage=stage, name=name, settings=settings or {}, parents=parents or {}, created=created, threads=2)
    run = create_run(workspace, spec)
    values: dict[str, Any] = {"step": 2_000, "total": 2_000, "started": created, "ended": created + 90, **state}
    run.write_state(RunState(status=status, **values))
    return run


def add_metrics(run: RunDir, rows: int, every: int = 10) -> None:
    """Rows of a loss that falls, with validation every tenth row."""
    lines = []
    for row in range(1, rows + 1):
        step = row * every
        values = {"step": step, "time": CREATED + step, "train/loss": 1.5 + 3 / row, "lr": 1e-3, "tokens_per_s": 52_000}
        if row % 10 == 0:
            values |= {"val/loss": 1.6 + 3 / row, "val/bits_per_byte": 2.1 + 3 / row}
        lines.append(msgspec.json.encode(values))
    run.metrics.write_bytes(b"\n".join(lines) + b"\n")


def add_checkpoint(run: RunDir, step: int, *, parents: dict[str, Parent] | None = None) -> None:
    """A checkpoint that is listed: a manifest and a lineage, and no weights."""
    spec = run.spec()
    lineage = Lineage(
        stage=spec.stage,
        run=run.id,
        name=spec.name,
        step=step,
        parents=parents or {},
        metrics={"val/loss": 1.61},
        tokens_seen=step * 16 * 64,
    )

    def fill(folder: Path) -> None:
        (folder / "config.json").write_text('{"model_type": "gpt2"}')
        (folder / "workbench.json").write_bytes(msgspec.json.encode(lineage))

    write_checkpoint(run.checkpoints / f"step-{step}", fill)


@pytest.fixture
def make_app(workspace: Workspace) -> Callable[..., WorkbenchApp]:
    """Make the app over the test's workspace: `make_app()`, or with `settings=Settings(...)`."""

    def make(settings: Settings | None = None, over: Workspace | None = None) -> WorkbenchApp:
        return WorkbenchApp(settings or Settings(), over or workspace)

    return make


def screen_text(app: App[Any]) -> str:
    """The whole screen as plain text, without trailing spaces."""
    width, height = app.size
    console = Console(
        width=width, height=height, file=io.StringIO(), record=True, force_terminal=True, legacy_windows=False
    )
    console.print(app.screen._compositor.render_update(full=True, screen_stack=app._background_screens))
    lines = console.export_text().split("\n")[:height]
    return "\n".join(line.rstrip() for line in lines) + "\n"


@pytest.fixture(scope="session", autouse=True)
def _unhurried_pilot() -> Iterator[None]:
    """Pilots wait for all that a key, a click or a new size leads to, however busy the machine is.

    Textual's own wait ends when every widget has worked off what it had at the beginning, and otherwise takes a process
    that gets no time for one that has nothing to do.
    """
    one_round = Pilot._wait_for_screen

    async def until_quiet(pilot: Pilot[Any], timeout: float = 120.0) -> bool:
        for _ in range(200):
            if not await one_round(pilot, timeout):
                return False
            if not _on_its_way(pilot.app):
                break
            await asyncio.sleep(0.005)
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pilot, "_wait_for_screen", until_quiet)
        yield


def _on_its_way(app: App[Any]) -> bool:
    """Whether a key is still being worked off, a widget still on its way to the screen, or a message to a widget."""
    if not app.is_running or not app.screen_stack:
        return False
    pumps = [app, *app.screen.walk_children(with_self=True)]
    waiting = any(not pump._message_queue.empty() or pump._next_callbacks or not pump.is_mounted for pump in pumps)
    return waiting or (isinstance(app, WorkbenchApp) and app._keys.busy)


async def settled(pilot: Pilot[Any]) -> None:
    """Wait until no worker runs and all messages have been handled."""
    for turn in range(6):  # what a worker found may start another
        await pilot.pause()
        if turn > 1 and not any(worker.is_running for worker in pilot.app.workers):
            break
        with contextlib.suppress(WorkerCancelled):  # a newer look took its place
            await pilot.app.workers.wait_for_complete()
    await pilot.pause()


async def wait_for(pilot: Pilot[Any], fact: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until `fact()` is true, and return it; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s in vain; the screen shows:\n{screen_text(pilot.app)}")
        await pilot.pause(0.02)
    return found


@pytest.fixture
def snapshot() -> Callable[[Pilot[Any], str], Awaitable[None]]:
    """Compare the settled screen with `snapshots/NAME.txt`. WORKBENCH_UPDATE_SNAPSHOTS=1 writes it instead."""

    async def compare(pilot: Pilot[Any], name: str) -> None:
        await settled(pilot)
        shown = _stable(screen_text(pilot.app))
        path = SNAPSHOTS / f"{name}.txt"
        if os.environ.get("WORKBENCH_UPDATE_SNAPSHOTS"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(shown, "utf-8")
        assert path.exists(), f"no snapshot {path.name} yet: run with WORKBENCH_UPDATE_SNAPSHOTS=1 and look at it"
        assert shown == path.read_text("utf-8"), f"the screen differs from {path.name}"

    return compare


def _stable(text: str) -> str:
    """Random ends of run ids made equal."""
    return re.sub(r"(\d{8}T\d{6}Z-[a-z]+-)[0-9a-f]{4}", r"\1abcd", text)
