"""The app: its places, its theme, its keys, and the few ways from one place to another."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from textual import work
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App
from textual.events import Event, Key, Resize
from textual.messages import TerminalSupportsSynchronizedOutput
from textual.notifications import SeverityLevel
from textual.screen import Screen

from stages.store.errors import UserError
from stages.store.workspace import Workspace
from workbench.copying import copy_out, worth_copying
from workbench.display import displayable, displayable_line
from workbench.keys import bind
from workbench.life.starter_at_work import StarterAtWork
from workbench.life.steps import Step
from workbench.lookout import Lookout
from workbench.messages import CheckpointChosen
from workbench.places import PLACES, chat, form
from workbench.terminal.frugal import FrugalUpdate, ShownCells
from workbench.terminal.keys_in_turn import Followed, KeysInTurn
from workbench.themes import THEMES

if TYPE_CHECKING:
    from pathlib import Path

    from textual.binding import Binding
    from textual.command import Provider
    from textual.widget import Widget

    from stages.store.rundir import RunDir
    from workbench.board.run_board import Entry
    from workbench.settings import Settings
    from workbench.talking.desk_client import DeskClient
    from workbench.talking.serving import Serving

WARM_UP_AFTER = 0.7
"""Seconds after the start until the other screens are imported."""
QUIT_AGAIN = 2.0
"""Seconds within which a second ctrl+c quits."""


def _commands() -> type[Provider]:
    from workbench.commands import Commands

    return Commands


class WorkbenchApp(App[None], inherit_bindings=False):
    """Screens over one workspace. The work itself goes on in other processes, with or without this one."""

    TITLE = "Workbench"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = True
    DEFAULT_MODE = "home"
    COMMANDS = {_commands}
    BINDINGS = [
        bind("app.home", "H", "go('home')", "Home", "The model's life and what is next.", show=False),
        bind("app.data", "D", "go('data')", "Data", "Datasets and tokenizers.", show=False),
        bind("app.runs", "R", "go('runs')", "Runs", "All runs, live.", show=False),
        bind("app.rank", "K", "go('rank')", "Rank", "Judge completions.", show=False),
        bind("app.chat", "C", "go('chat')", "Chat", "Talk to a checkpoint.", show=False),
        bind("app.machine", "M", "machine", "Machine", "CPU, memory, GPUs, and who holds them.", show=False),
        bind("app.lineage", "L", "lineage", "Lineage", "What was made from what, as a tree.", show=False),
        bind("app.copy", "Y", "copy", "Copy", "Copy the table, or the folder of the run in view.", show=False),
        bind("app.jump", "ctrl+g", "jump", "Jump", "Letters on all that takes the focus: one goes there.", show=False),
        bind("app.help", "question_mark,f1", "help", "Keys", "The keys of where you are."),
        bind("app.palette", "ctrl+p", "command_palette", "Palette", "Everything the keys can do, by name."),
        bind("app.redraw", "ctrl+l", "redraw", "Redraw", "Paint the screen anew.", show=False),
        bind("app.quit", "q", "detach", "Quit", "Close the app. Runs go on."),
        bind("app.interrupt", "ctrl+c", "interrupt", "Copy or quit", "Copy the selection; twice: close.", show=False),
    ]

    def __init__(self, settings: Settings, workspace: Workspace) -> None:
        super().__init__()
        self.settings = settings
        self.workspace = workspace
        self.starter = StarterAtWork(self)
        self.failure: UserError | None = None
        """What to say after a mistake of ours ended the app."""
        self.serving: Serving | None = None
        """The endpoint that this app keeps open, or kept last."""
        self._endpoint_changes = asyncio.Lock()
        self._shown = ShownCells()
        self._keys = KeysInTurn(self, super().on_event)
        self._lookout = Lookout(self)
        self._desk: DeskClient | None = None
        self._chat_with: str | None = None
        self._chat_opened = False
        self._interrupted = 0.0
        for mode, make in {**PLACES, "chat": self._chat}.items():
            self.add_mode(mode, make)
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = settings.app.theme
        if settings.keys:
            self.set_keymap(dict(settings.keys))

    @property
    def desk(self) -> DeskClient:
        """The helper process for what the app may not import. It starts with the first question."""
        if self._desk is None:
            from workbench.talking.desk_client import DeskClient

            self._desk = DeskClient(self.workspace)
        return self._desk

    async def on_event(self, event: Event) -> None:
        """Keys wait for the ones before them."""
        if isinstance(event, Key) and not event.is_forwarded:
            await self._keys.take(event)
        else:
            await super().on_event(event)

    async def on_followed(self, message: Followed) -> None:
        await self._keys.followed(message)

    def on_mount(self) -> None:
        self.app_resume_signal.subscribe(self, lambda _: self._shown.forget())
        if self.settings.keys:
            self._check_keymap()
        if not self.is_headless:
            self.set_timer(WARM_UP_AFTER, self._warm_up)
        self._lookout.begin()

    def _warm_up(self) -> None:
        from workbench.warm_up import warm_up

        warm_up()

    async def on_unmount(self) -> None:
        if self._desk is not None:
            await self._desk.close()
        await self._end_serving()

    def action_go(self, place: str) -> None:
        """Switch to a place; its screens are as they were left. From a run in Runs it leads to the list of runs."""
        if place == self.current_mode == "runs":
            from workbench.screens.run import RunScreen

            if isinstance(self.screen, RunScreen):
                self.screen.action_back()
        self.go(place)

    def go(self, place: str) -> None:
        """Switch to a place: home, data, runs, rank or chat."""
        self.switch_mode(place)

    @work(group="navigate")
    async def open_run(self, run: RunDir) -> None:
        """Show a run in Runs."""
        from workbench.screens.run import RunScreen
        from workbench.screens.runs import RunsScreen
        from workbench.screens.views import view_of

        await self.switch_mode("runs")
        if isinstance(self.screen, RunScreen):
            await self.pop_screen()
        if isinstance(self.screen, RunsScreen):
            self.screen.choose(run.id)
        await self.push_screen(view_of(run)(run))

    @work(group="navigate")
    async def open_chat(self, checkpoint: str) -> None:
        """Chat with a checkpoint as people write it: a run's name, `run@step`, an imported model, a folder."""
        opened, self._chat_with = self._chat_opened, checkpoint
        await self.switch_mode("chat")
        if opened:
            self.screen.post_message(CheckpointChosen(checkpoint))

    def start_run(self, stage: str, values: Mapping[str, Any] | None = None) -> None:
        """Open the start form of a stage; `values` fill its fields: settings, name, parents."""
        self.push_screen(form(stage, dict(values or {})))

    def open_step(self, step: Step) -> None:
        """Open a step of a life: the form filled in, the run, what was made, the set to judge, the chat."""
        if step.key == "rank" and step.stage != "sample":
            if step.state == "next" and step.name:
                self.judge(step.name)
            elif step.run is not None:
                self.open_run(step.run.run)
            else:
                self.go("rank")
        elif step.key == "chat":
            self.open_chat(step.name)
        elif step.run is not None:
            self.open_run(step.run.run)
        elif step.state == "done":
            self.show_data("dataset" if step.key == "data" else "tokenizer", step.name)
        else:
            self.start_run(step.stage, step.values)

    @work(group="navigate")
    async def judge(self, name: str) -> None:
        """Judge a label set from where one left it; a sampling run of that name which has finished becomes one."""
        from workbench.judging.taking_in import have_set
        from workbench.screens.judge import JudgeScreen

        try:
            await asyncio.to_thread(have_set, self.workspace, self.settings.labels, name)
        except UserError as error:
            self.show_error(error)
            return
        await self.switch_mode("rank")
        if isinstance(self.screen, JudgeScreen):
            await self.pop_screen()
        await self.push_screen(JudgeScreen(name))

    @work(group="navigate")
    async def show_data(self, kind: str, name: str) -> None:
        """Show a dataset or a tokenizer in Data; `kind` says which."""
        from workbench.screens.data import DataScreen

        await self.switch_mode("data")
        if isinstance(self.screen, DataScreen):
            self.screen.choose(kind, name)

    def get_key_display(self, binding: Binding) -> str:
        """Enter by its name, as the sentences say it; all else as Textual shows it."""
        return "enter" if binding.key == "enter" and not binding.key_display else super().get_key_display(binding)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """A toast. Its text may be foreign: it is made displayable and never parsed as markup."""
        super().notify(
            displayable(message, tabs=4), title=displayable(title), severity=severity, timeout=timeout, markup=False
        )

    def show_error(self, error: UserError) -> None:
        """Tell of a mistake or a failure, with what to do about it."""
        self.notify(error.hint or " ", title=error.title, severity="error", timeout=10)

    async def action_detach(self) -> None:
        """Close the app; workers go on, and the last line says so."""
        if self.serving is not None and not self.serving.ended:
            self.notify("The endpoint ends; what it is answering has a moment.")
            await self._end_serving()  # leaving kills all that the app still waits for
        self.exit(message=self._farewell())

    async def action_interrupt(self) -> None:
        """Copy what is selected; else say how to leave, and leave when asked again."""
        selected = self.screen.get_selected_text()
        if selected:
            copy_out(self, selected)
        elif time.monotonic() - self._interrupted < QUIT_AGAIN:
            await self.action_detach()
        else:
            self._interrupted = time.monotonic()
            self.notify("Press ctrl+c again, or q, to close the app. Runs go on.")

    def action_copy(self) -> None:
        """Copy the table that has the focus, or the folder of the run in view."""
        text = worth_copying(self.screen)
        if text is None:
            self.notify("Nothing to copy here: a table, or a run, is copied where it is in view.")
        else:
            copy_out(self, text)

    def action_machine(self) -> None:
        """Show what the machine is doing."""
        from workbench.screens.base import PlaceScreen
        from workbench.screens.machine import MachineScreen

        if isinstance(self.screen, PlaceScreen) and not isinstance(self.screen, MachineScreen):
            self.push_screen(MachineScreen())

    def action_lineage(self) -> None:
        """Show what was made from what."""
        from workbench.screens.base import PlaceScreen
        from workbench.screens.lineage import LineageScreen

        if isinstance(self.screen, PlaceScreen) and not isinstance(self.screen, LineageScreen):
            self.push_screen(LineageScreen())

    def serve(self, name: str, folder: Path) -> None:
        """Serve a checkpoint in place of the one before, until it is stopped or the app ends. Returns at once."""
        from workbench.talking.serving import Serving

        before, self.serving = self.serving, Serving(name, folder)
        self.run_worker(self._take_place(before, self.serving), group="endpoint")

    async def _take_place(self, before: Serving | None, serving: Serving) -> None:
        async with self._endpoint_changes:
            if before is not None:
                await before.stop()
        await serving.run()

    def stop_serving(self) -> None:
        """End the endpoint, whatever screen one goes to meanwhile. Returns at once."""
        self.run_worker(self._end_serving(), group="endpoint")

    async def _end_serving(self) -> None:
        async with self._endpoint_changes:
            if self.serving is not None:
                await self.serving.stop()

    def action_endpoint(self) -> None:
        """Show what is served to other programs."""
        from workbench.screens.serve import ServeScreen

        if not isinstance(self.screen, ServeScreen):
            self.push_screen(ServeScreen())

    def action_bin(self) -> None:
        """Show what was deleted."""
        from workbench.screens.bin import BinScreen

        self.push_screen(BinScreen(self.workspace))

    def action_doctor(self) -> None:
        """Show what the doctor says of machine, terminal and installation."""
        from workbench.screens.doctor import DoctorScreen

        if not isinstance(self.screen, DoctorScreen):
            self.push_screen(DoctorScreen())

    def action_jump(self) -> None:
        """Put letters on what takes the focus."""
        from workbench.screens.jump import JumpScreen

        if isinstance(self.screen, JumpScreen):
            self.screen.dismiss(None)
            return
        jump = JumpScreen(self.screen)
        if jump.places:
            self.push_screen(jump, self._jumped)
        else:
            self.notify("Nothing here takes the focus: the keys act at once.")

    def _jumped(self, to: Widget | None) -> None:
        if to is not None and to.screen is self.screen:
            to.focus(scroll_visible=False)

    def action_help(self) -> None:
        """Show the keys of where one is."""
        from workbench.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen.of(self.screen))

    def tell_of_endings(self, ended: list[Entry]) -> None:
        """A toast that runs have ended, and as the settings say the terminal's bell or a notice on the desktop.

        Of a run that is in view alone no toast tells: its page says it, and what comes next.
        """
        from workbench.board.endings import desktop_notice, notice
        from workbench.screens.run import RunScreen

        text = notice(ended)
        seen = self.screen.run_in_view() if isinstance(self.screen, RunScreen) else None
        if seen is None or [entry.run.id for entry in ended] != [seen.run.id]:
            self.notify(text, title="Work has ended.")
        if self.settings.app.notice != "none":
            self.bell()
        if self.settings.app.notice == "desktop" and self._driver is not None:
            self._driver.write(desktop_notice(displayable_line(text)))

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        """Send the terminal only what differs from what it shows."""
        if isinstance(renderable, ChopsUpdate | LayoutUpdate) and not self.is_headless:
            if self._shown.size != self.size:
                self._shown.forget(self.size)
            renderable = FrugalUpdate(renderable, self._shown)
        super()._display(screen, renderable)

    def _on_terminal_supports_synchronized_output(self, message: TerminalSupportsSynchronizedOutput) -> None:
        """Show frames at once where they arrive at once; from far away it is better to see each part as it comes."""
        if not os.environ.get("SSH_CONNECTION"):
            super()._on_terminal_supports_synchronized_output(message)

    def on_resize(self, event: Resize) -> None:
        """What the terminal shows after a change of size is its own choice."""
        if event.size != self._shown.size:
            self._shown.forget()

    def action_redraw(self) -> None:
        """Paint everything anew, where something else has written to the terminal."""
        self._shown.forget()
        self.refresh()

    def _handle_exception(self, error: Exception) -> None:
        """What is no longer there when a screen or the app is left is no mistake; all else is."""
        from workbench.screens.base import is_late

        if not is_late(error, self):
            super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """A mistake of ours: one line for people, the traceback in a file that the line names."""
        error = sys.exception()
        if self.is_headless or error is None:
            super()._fatal_error()
            return
        from workbench.__main__ import keep_traceback

        self.failure = keep_traceback(error)
        self._close_messages_no_wait()

    def _farewell(self) -> str | None:
        from stages.store.rundir import list_runs

        names = []
        for run in list_runs(self.workspace):
            try:
                names += [displayable(run.spec().name)] if run.alive() else []
            except UserError:
                continue
        if not names:
            return None
        rest = " What the starter life has left waits for you on Home." if self.starter.going else ""
        return f"Still at work: {', '.join(names)}. `workbench` shows them again.{rest}"

    @work(thread=True, group="keys")
    def _check_keymap(self) -> None:
        from workbench.keys import check_keymap

        try:
            check_keymap(self.settings.keys)
        except UserError as error:
            self.call_from_thread(self.show_error, error)

    def _chat(self) -> Screen[Any]:
        self._chat_opened = True
        return chat(self._chat_with)
