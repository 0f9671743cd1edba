"""The palette: every binding that is active where one is, as `noun: verb`, and the themes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from textual.app import App
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from stages.store.specs import TRAINING, spec_of
from workbench.screens.base import PlaceScreen
from workbench.themes import NAMES

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp

_HIDDEN = ("list.", "scroll.", "app.palette", "app.interrupt")
"""Bindings that make no sense by name: moving a cursor, opening the palette."""


class Command(NamedTuple):
    title: str
    help: str
    run: Callable[[], Any]


class Commands(Provider):
    """Commands made from the bindings, so that the palette can do everything the keys can."""

    async def discover(self) -> Hits:
        for command in self._commands():
            yield DiscoveryHit(Content(command.title), command.run, help=command.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for command in self._commands():
            score = matcher.match(command.title)
            if score > 0:
                yield Hit(score, matcher.highlight(command.title), command.run, help=command.help)

    def _commands(self) -> Iterator[Command]:
        app, seen = self.app, set()
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if not binding.id or binding.id in seen or binding.id.startswith(_HIDDEN) or not active.enabled:
                continue
            seen.add(binding.id)
            run = partial(app.run_action, binding.action, active.node)
            yield Command(_title(binding.id, binding.description), binding.tooltip, run)
        for name in NAMES:
            yield Command(f"theme: {name}", "Change the colours.", partial(setattr, app, "theme", name))
        if not isinstance(self.screen, PlaceScreen):
            return
        start_run = cast("WorkbenchApp", app).start_run
        if "runs.evaluate" not in seen and "run.evaluate" not in seen:
            yield Command("checkpoints: evaluate", "Measure checkpoints on a dataset.", partial(start_run, "evaluate"))
        about = "The share that is right with 0, 1 or more solved examples in the prompt."
        yield Command("checkpoints: evaluate by examples in the prompt", about, partial(start_run, "in_context"))
        if not seen & {"runs.sample", "run.sample", "rank.sample"}:
            about = "Have checkpoints write completions to judge."
            yield Command("checkpoints: sample", about, partial(start_run, "sample"))
        if not seen & {"runs.inside", "run.inside"}:
            about = "Token probabilities and attention of a checkpoint."
            yield Command("checkpoints: look inside", about, partial(_inside, app))
        if not seen & {"runs.serve", "run.serve"}:
            about = "To other programs, as OpenAI's API."
            yield Command("checkpoints: serve", about, cast("WorkbenchApp", app).action_endpoint)
        about = "What this app serves to other programs: address, token, how it stands."
        yield Command("endpoint: show", about, cast("WorkbenchApp", app).action_endpoint)
        if "chat.duel" not in seen:
            yield Command("checkpoints: duel", "Two checkpoints side by side, blind.", partial(_duel, app))
        about = "Machine, GPU, attention, terminal, workspace: is all fit for the work?"
        yield Command("machine: doctor", about, cast("WorkbenchApp", app).action_doctor)
        if not seen & {"runs.bin", "data.bin"}:
            about = "What was deleted: take it back, or delete it for good."
            yield Command("bin: open", about, cast("WorkbenchApp", app).action_bin)
        about = "A Hugging Face folder, or an id of the local cache: weights, tokenizer, template."
        yield Command("models: import", about, partial(start_run, "importing"))
        yield Command("models: sizes", "What models cost: parameters, memory, compute, time.", partial(_models, app))
        yield Command("sweeps: all", "Sweeps and scaling studies, with their tables.", partial(_sweeps, app))
        yield Command("scale: new study", "Sizes × budgets, and the law by which the loss falls.", partial(_scale, app))
        for stage in TRAINING:  # before the sweeps: of commands that fit as well, the palette offers the first
            yield Command(f"train: {stage}", (spec_of(stage).__doc__ or "").strip(), partial(start_run, stage))
        for stage in TRAINING:
            yield Command(f"sweep: {stage}", "Every combination of some settings.", partial(_sweep, app, stage))


def _duel(app: App[Any]) -> None:
    from workbench.screens.duel import DuelScreen

    app.push_screen(DuelScreen())


def _inside(app: App[Any]) -> None:
    from workbench.screens.inside import InsideScreen

    app.push_screen(InsideScreen())


def _models(app: App[Any]) -> None:
    from workbench.screens.models import ModelsScreen

    app.push_screen(ModelsScreen())


def _sweeps(app: App[Any]) -> None:
    from workbench.screens.sweeps import SweepsScreen

    app.push_screen(SweepsScreen())


def _sweep(app: App[Any], stage: str) -> None:
    from workbench.screens.sweeping import sweep_form

    app.push_screen(sweep_form(stage))


def _scale(app: App[Any]) -> None:
    from workbench.screens.sweeping import ScaleScreen

    app.push_screen(ScaleScreen())


def _title(id_: str, description: str) -> str:
    noun = id_.partition(".")[0]
    verb = description.lower()
    return f"go: {verb}" if id_ in ("app.home", "app.data", "app.runs", "app.chat") else f"{noun}: {verb}"
