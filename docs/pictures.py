"""The pictures of these pages, made by the real program.

    python -m docs.pictures --workspace DIR

DIR is a workspace in which `workbench demo` has run. Each picture is the screen as it is drawn at 120×36, as SVG.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.rundir import find_run
from stages.store.workspace import Workspace
from workbench.app import WorkbenchApp
from workbench.cli.root import run as command
from workbench.settings import Settings

FOLDER = Path(__file__).parent / "pictures"
SIZE = (120, 36)
PATIENCE = 120.0
"""Seconds that a screen may take until it shows what is asked for."""

FONTS = re.compile(r"@font-face\s*{.*?}", re.DOTALL)
"""What would have a viewer fetch fonts from the network; without it the viewer's own monospace is used."""

Shot = Callable[[Pilot[Any]], Awaitable[None]]


async def shows(pilot: Pilot[Any], *texts: str) -> None:
    """Wait until the screen shows all of the texts."""
    until = time.monotonic() + PATIENCE
    while True:
        await pilot.pause(0.2)
        svg = pilot.app.export_screenshot(simplify=True).replace("&#160;", " ")
        if all(text in svg for text in texts):
            return
        if time.monotonic() > until:
            raise TimeoutError(f"{texts} did not appear")


async def home(pilot: Pilot[Any]) -> None:
    await shows(pilot, "life", "demo-ppo")


async def run(pilot: Pilot[Any]) -> None:
    app = pilot.app
    assert isinstance(app, WorkbenchApp)
    app.open_run(find_run(app.workspace, "demo-base"))
    await shows(pilot, "demo-base", "val", "finished", "4k")  # the axis is drawn with the curve


async def chat(pilot: Pilot[Any]) -> None:
    app = pilot.app
    assert isinstance(app, WorkbenchApp)
    app.open_chat("demo-sft")
    await shows(pilot, "chat model")
    for question in ("What is the home of the horse?", "What is the opposite of young?"):
        await pilot.press(*question, "enter")
        await shows(pilot, question.split()[-1].rstrip("?"), "tokens/s")
        await pilot.pause(2)


async def rank(pilot: Pilot[Any]) -> None:
    await pilot.press("K")
    await shows(pilot, "pictures")
    await pilot.press("enter")
    await shows(pilot, "1", "2", "3", "4")
    await pilot.press("2", "1")
    await pilot.pause(0.5)


async def cockpit(pilot: Pilot[Any]) -> None:
    app = pilot.app
    assert isinstance(app, WorkbenchApp)
    app.open_run(find_run(app.workspace, "demo-ppo"))
    await shows(pilot, "demo-ppo", "reward")
    await pilot.pause(2)


SHOTS: dict[str, Shot] = {"home": home, "run": run, "chat": chat, "rank": rank, "cockpit": cockpit}


def answers_to_rank(workspace: Workspace) -> None:
    """The label set of the picture: four answers of the tuned model to each of twelve questions."""
    with open_labels(workspace.labels) as labels:
        try:
            labels.find_set("pictures")
            return
        except UserError:
            pass
    arguments = ["sample", "--from", "demo-sft", "--prompts", "demo-policy", "-k", "4", "--name", "pictures"]
    command([*arguments, "--set", "max_prompts=12", "--set", "temperature=1.2", "--set", "max_new_tokens=40"])


async def take(workspace: Workspace, names: list[str]) -> None:
    """Draw the screens that are asked for, each in an app of its own."""
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        app = WorkbenchApp(Settings(), workspace)
        async with app.run_test(size=SIZE) as pilot:
            await pilot.pause(1)
            await SHOTS[name](pilot)
            drawn = FONTS.sub("", app.export_screenshot(title=f"workbench · {name}"))
            (FOLDER / f"{name}.svg").write_text(drawn, "utf-8")
            print(f"{name}.svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("names", nargs="*", choices=[*SHOTS, []], default=[])
    options = parser.parse_args()
    workspace = Workspace(options.workspace.absolute())
    os.environ["WORKBENCH_HOME"] = str(workspace.root)
    answers_to_rank(workspace)
    asyncio.run(take(workspace, options.names or list(SHOTS)))


if __name__ == "__main__":
    main()
