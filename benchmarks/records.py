"""Looking at ten million records: opening, a key to paint while scrolling, jumping, a search through all.

    python -m benchmarks.records [RECORDS]

The dataset is generated; the app runs without a terminal, with the desk as a real child process.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from textual.screen import Screen

import workbench.app
from stages.data.records import GROUP_ROWS, SCHEMAS
from stages.store.datasets import DatasetInfo
from stages.store.workspace import Workspace
from workbench.__main__ import keep_answering
from workbench.app import WorkbenchApp
from workbench.screens.records import RecordsScreen
from workbench.settings import Settings
from workbench.widgets.record_list import RecordList

OPEN, KEY = 0.300, 0.050
"""Seconds that the app may take: targets of the project."""
SHARD = 4_000_000


def generate(folder: Path, records: int) -> None:
    """A dataset of so many short documents, in the row groups and files that a build would write."""
    (folder / "records").mkdir(parents=True)
    for shard, first in enumerate(range(0, records, SHARD)):
        path = folder / "records" / f"train-{shard:05d}.parquet"
        with pq.ParquetWriter(path, SCHEMAS["text"], compression="zstd") as file:
            for start in range(first, min(first + SHARD, records), GROUP_ROWS):
                numbers = range(start, min(start + GROUP_ROWS, first + SHARD, records))
                texts = [f"Record {n}: the lantern stood {n * 7919 % 10_007} steps from the gate." for n in numbers]
                columns = [texts, [f"part-{n % 40}.txt" for n in numbers], ["{}"] * len(texts)]
                file.write_table(pa.table(dict(zip(SCHEMAS["text"].names, columns, strict=True)), SCHEMAS["text"]))
    counts = {"train": records, "val": 0}
    info = DatasetInfo(name=folder.name, kind="text", digest="00" * 32, records=counts, created=time.time())
    (folder / "dataset.json").write_bytes(msgspec.json.encode(info))


class Painting(WorkbenchApp):
    """The app, which knows when it has painted what one waits for."""

    CSS_PATH = str(Path(workbench.app.__file__).with_name("app.tcss"))
    fact: Callable[[], bool] | None = None

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        super()._display(screen, renderable)
        if self.fact is not None and renderable is not None and self.fact():
            self.fact = None


async def painted(app: Painting, fact: Callable[[], bool]) -> None:
    """Wait until something is painted while `fact()` holds."""
    app.fact = fact
    while app.fact is not None:
        await asyncio.sleep(0.0005)


async def open_screen(app: Painting, name: str) -> float:
    """Seconds from opening the browser until the first records are painted."""
    began = time.perf_counter()
    screen = RecordsScreen(name)
    app.push_screen(screen)
    await painted(app, lambda: screen.is_mounted and screen.query_one(RecordList).has_row(0))
    return time.perf_counter() - began


async def press(app: Painting, key: str, *, arrive: bool) -> float:
    """Seconds from a key until the cursor's new place is painted; with `arrive`, until the record is there too."""
    listing = app.screen.query_one(RecordList)
    before, began = listing.cursor, time.perf_counter()
    app.simulate_key(key)
    await painted(app, lambda: listing.cursor != before)
    if arrive and not listing.has_row(listing.cursor):
        await painted(app, lambda: listing.has_row(listing.cursor))
    return time.perf_counter() - began


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


SCROLL = ["j"] * 120 + ["pagedown"] * 60 + ["k"] * 40 + ["pageup"] * 20
KEYS = [*SCROLL, *["end", "home"] * 10, *["pagedown"] * 60, "home"]


async def measure(workspace: Workspace, name: str) -> dict[str, float]:
    """Seconds of everything that is measured."""
    app = Painting(Settings(), workspace)
    keep_answering()
    found: dict[str, float] = {}
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("D")
        await app.workers.wait_for_complete()
        await app.desk.ask("records.ready")  # as Data does while one looks at it
        found["open"] = await open_screen(app, name)
        for what, arrive in (("key to paint", False), ("key to record", True)):
            delays = [await press(app, key, arrive=arrive) for key in KEYS]
            found[f"{what}, median"], found[f"{what}, p99"] = (percentile(delays, share) for share in (0.5, 0.99))
        began = time.perf_counter()
        await app.desk.ask("records.search", dataset=name, split="train", text="no such words")
        found["search through all"] = time.perf_counter() - began
    return found


def main(arguments: list[str]) -> None:
    records = int(arguments[0]) if arguments else 10_000_000
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder)).ensure()
        generate(workspace.datasets / "large", records)
        for name, seconds in asyncio.run(measure(workspace, "large")).items():
            limit = {"open": OPEN, "key to paint, p99": KEY}.get(name)
            print(f"{name:<24} {seconds * 1000:9.1f} ms" + (f"   (goal {limit * 1000:.0f} ms)" if limit else ""))


if __name__ == "__main__":
    main(sys.argv[1:])
