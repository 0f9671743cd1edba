"""Steering a run from a screen: every request in a thread, every refusal as a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from textual import work
from textual.message import Message

from stages.store.errors import UserError
from stages.store.rundir import RESUMABLE, RunDir
from stages.store.specs import TRAINING
from workbench import runs
from workbench.board.outcome import MEASURED
from workbench.board.run_board import Entry
from workbench.screens.question import Ask, Question

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp
    from workbench.screens.base import WorkbenchScreen

    Base = WorkbenchScreen[None]
else:
    Base = object


class RunSteered(Message):
    """A request reached a run; its state is about to change."""


WRITING = ("chat", "evaluate", "sample")
"""Actions on a checkpoint that goes on with a text; a reward model scores texts."""


class Steering(Base):
    """Pause, resume, stop and the rest, for screens that have a run in view. Mixed into screens."""

    def run_in_view(self) -> Entry | None:
        """The run that keys act on. For screens to fill in."""
        return None

    def offers(self, action: str) -> bool:
        """Name only what the run in view can do as it stands."""
        entry = self.run_in_view()
        if action not in ("pause", "resume", "stop", "delete", "chat", "evaluate", "sample", "inside", "log_axis"):
            return True
        if entry is None:
            return False
        if action == "log_axis":
            return entry.spec.stage in MEASURED
        if action in ("pause", "stop"):
            return entry.status in ("queued", "running") or (action == "stop" and entry.live)
        if action == "resume":
            return entry.status in RESUMABLE
        if action in WRITING and entry.spec.stage == "reward":
            return False
        return entry.state.last_checkpoint is not None if action in (*WRITING, "inside") else True

    def action_pause(self) -> None:
        """Pause a run at work; start one that is paused again."""
        if entry := self.run_in_view():
            if entry.live:
                self._ask_worker(entry, runs.pause, "Pausing")
            else:
                self.action_resume()

    def action_resume(self) -> None:
        """Go on from the last checkpoint."""
        if entry := self.run_in_view():
            if entry.status in RESUMABLE:
                width = self.workbench.settings.queue.cpu_width
                self._ask_worker(entry, lambda run: runs.start(run, cpu_width=width), "Resuming")
            else:
                self.notify(f"{entry.spec.name} is {entry.status}; there is nothing to resume.")

    def action_stop(self) -> None:
        """Ask the worker to save a checkpoint and end, after a question."""
        entry = self.run_in_view()
        if entry is None:
            return
        if not entry.live:
            self.notify(f"{entry.spec.name} is {entry.status}; there is nothing to stop.")
            return
        detail = (
            "It saves a checkpoint first and can be resumed."
            if entry.spec.stage in TRAINING
            else "What it has written stays; it can be resumed."
            if entry.spec.stage == "sample"
            else "What it has made so far is dropped."
        )
        question = Question(f"Stop {entry.spec.name}?", detail, yes="stop it")
        self.app.push_screen(question, self._if_yes(entry, runs.stop, "Stopping"))

    def action_checkpoint(self) -> None:
        """Ask for a checkpoint at the next step."""
        if entry := self.run_in_view():
            self._ask_worker(entry, runs.checkpoint_now, "A checkpoint is coming:")

    def action_learning_rate(self) -> None:
        """Ask for a new peak learning rate and send it."""
        entry = self.run_in_view()
        if entry is None:
            return
        if entry.spec.stage not in TRAINING or not entry.live:
            self.notify("Only a training run at work has a learning rate to change.")
            return
        ask = Ask(
            f"Learning rate of {entry.spec.name}",
            "The new peak, from the next step on; the schedule keeps its shape.",
            str(entry.spec.settings.get("lr") or ""),
            lambda text: runs.parse_lr(entry.run, text),
        )
        self.app.push_screen(ask, lambda text: self._set_lr(entry, text))

    def action_delete(self) -> None:
        """Delete the run and its checkpoints, after a question."""
        entry = self.run_in_view()
        if entry is None:
            return
        question = Question(
            f"Delete the run {entry.spec.name}?",
            "It goes into the bin with its checkpoints, and can be taken back. What it built stays.",
            yes="delete it",
        )
        self.app.push_screen(question, self._if_yes(entry, self._delete, "Deleted"))

    def action_chat(self) -> None:
        """Chat with the run's last checkpoint; of BERT and T5, fill blanks with it."""
        if entry := self.run_in_view():
            if entry.state.last_checkpoint is None:
                self.notify(f"{entry.spec.name} has no checkpoint to chat with yet.")
            elif entry.spec.stage == "reward":
                self.notify(_of_a_scorer(entry))
            elif entry.spec.stage in ("bert", "t5"):
                from workbench.screens.fill import FillScreen

                self.app.push_screen(FillScreen(entry.run.id, entry.spec.name))
            else:
                self.workbench.open_chat(entry.run.id)

    def action_inside(self) -> None:
        """Look inside the run's last checkpoint: token probabilities and attention."""
        if entry := self.run_in_view():
            if entry.state.last_checkpoint is None:
                self.notify(f"{entry.spec.name} has no checkpoint to look into yet.")
            else:
                from workbench.screens.inside import InsideScreen

                self.app.push_screen(InsideScreen(entry.run.id, entry.spec.name))

    def action_serve(self) -> None:
        """Serve the run's last checkpoint to other programs; where something is served already, show that."""
        if entry := self.run_in_view():
            if entry.state.last_checkpoint is None:
                self.notify(f"{entry.spec.name} has no checkpoint to serve yet.")
            elif entry.spec.stage in ("reward", "classify"):
                self.notify(f"{entry.spec.name} writes no text: there is nothing to serve.")
            else:
                from workbench.screens.serve import ServeScreen

                self.app.push_screen(ServeScreen(entry.run.id))

    def action_evaluate(self) -> None:
        """Open the form that measures checkpoints, with those of the run."""
        if entry := self.run_in_view():
            self.evaluate([entry])

    def action_again(self) -> None:
        """Open the form of the run's stage as it was filled then: start it to repeat the run, or change something."""
        if entry := self.run_in_view():
            do_again(self.workbench, entry.run)

    def action_exactly(self) -> None:
        """Do the run again as it was, at once."""
        if entry := self.run_in_view():
            do_exactly(self.workbench, entry.run)

    def action_sample(self) -> None:
        """Open the form that has the run's model write completions to judge."""
        if entry := self.run_in_view():
            self.sample([entry])

    def sample(self, entries: Sequence[Entry]) -> None:
        """Open the form that samples completions, with those of the runs that have checkpoints."""
        if names := self._writers(entries):
            self.workbench.start_run("sample", {"checkpoints": ", ".join(names)})
        else:
            self.notify(_none_of(entries, "sample"))

    def evaluate(self, entries: Sequence[Entry]) -> None:
        """Open the form that measures checkpoints, with those of the runs that have any."""
        if names := self._writers(entries):
            self.workbench.start_run("evaluate", {"checkpoints": ", ".join(names)})
        else:
            self.notify(_none_of(entries, "evaluate"))

    def _writers(self, entries: Sequence[Entry]) -> list[str]:
        """The names of those that have a checkpoint, reward models left out."""
        return [e.spec.name for e in entries if e.state.last_checkpoint is not None and e.spec.stage != "reward"]

    def _if_yes(self, entry: Entry, request: Callable[[RunDir], object], said: str) -> Callable[[bool | None], None]:
        def answered(yes: bool | None) -> None:
            if yes:
                self._ask_worker(entry, request, said)

        return answered

    def _set_lr(self, entry: Entry, text: str | None) -> None:
        if text is not None:
            value = runs.parse_lr(entry.run, text)
            self._ask_worker(entry, lambda run: runs.set_lr(run, value), f"Learning rate {value:g} for")

    def _delete(self, run: RunDir) -> None:
        from stages.store.lineage import delete_run

        delete_run(self.workbench.workspace, run.spec().name, run)

    @work(thread=True, group="steer")
    def _ask_worker(self, entry: Entry, request: Callable[[RunDir], object], said: str) -> None:
        try:
            request(entry.run)
        except UserError as error:
            self.app.call_from_thread(self.workbench.show_error, error)
            return
        self.app.call_from_thread(self.notify, f"{said} {entry.spec.name}.")
        self.post_message(RunSteered())


def do_again(app: WorkbenchApp, run: RunDir) -> None:
    """Open the form of a run's stage as it was filled then."""
    from workbench.board.again import form_values

    try:
        stage = run.spec().stage
        if stage in (*TRAINING, "sample", "evaluate"):
            app.start_run(stage, form_values(app.workspace, run))
        else:
            app.notify(f"A run that is {stage} is not repeated from here.")
    except UserError as error:
        app.show_error(error)


def do_exactly(app: WorkbenchApp, run: RunDir) -> None:
    """Start a run's stage with the same settings, seed and parents, and show the new run; a refusal is shown."""
    from workbench.board.again import repeat

    def start() -> None:
        try:
            made = repeat(app.workspace, run, cpu_width=app.settings.queue.cpu_width)
        except UserError as error:
            app.call_from_thread(app.show_error, error)
        else:
            app.call_from_thread(app.open_run, made)

    app.run_worker(start, thread=True, group="again")


def _of_a_scorer(entry: Entry) -> str:
    return f"{entry.spec.name} is a reward model: it scores answers and writes none. enter shows its report card."


def _none_of(entries: Sequence[Entry], verb: str) -> str:
    scorer = next((entry for entry in entries if entry.spec.stage == "reward"), None)
    return _of_a_scorer(scorer) if scorer is not None else f"There is no checkpoint to {verb} yet."
