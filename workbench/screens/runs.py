"""Runs: all of them with their live state, and the curves of the one under the cursor and of those marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Input, Static

from stages.store.errors import UserError
from stages.store.notes import read_notes, write_notes
from stages.store.specs import TRAINING
from workbench.board.outcome import in_place_of_a_curve
from workbench.board.run_board import Board, Entry
from workbench.display import line
from workbench.keys import bind
from workbench.plots.curves import RecentTracks, Track
from workbench.plots.marks import Marks
from workbench.plots.picture import PLAIN, Picture, Shown, unit_of
from workbench.screens.base import PlaceScreen
from workbench.screens.pick import pick_stage
from workbench.screens.plotting import PLOT_KEYS, Plotting, set_subtitle
from workbench.screens.question import Ask
from workbench.screens.standing import invitation, last_step, nothing_matches, state_of
from workbench.screens.steering import RunSteered, Steering
from workbench.themes import MARKERS
from workbench.widgets.loss_plot import LossPlot
from workbench.widgets.run_list import RunList

FEW = 3
"""Curves that are drawn four times a second."""

REST = 0.06
"""Seconds that the cursor stays on a run before its curve is drawn, so that moving on never waits for a plot."""


MODELS = ("pretrain", "bert", "t5", "transformer_xl", "importing")
NEW = (*MODELS, *(stage for stage in TRAINING if stage not in MODELS))
"""What `n` offers: ways to come by a model, then what is done with one."""


class RunsScreen(Plotting, Steering, PlaceScreen):
    """The list is looked at once a second, the curves in view four times. Marks and filter last as long as the app."""

    PLACE = "runs"
    CSS_PATH = "runs.tcss"
    AUTO_FOCUS = "RunList"
    BINDINGS = [
        bind("runs.new", "n", "new", "New run", "Start a training run."),
        bind("runs.pause", "p", "pause", "Pause", "Pause the run, or resume it."),
        bind("runs.resume", "r", "resume", "Resume", "Go on from the last checkpoint."),
        bind("runs.stop", "s", "stop", "Stop", "Save a checkpoint and end the run."),
        bind("runs.delete", "d,delete", "delete", "Delete", "Delete the run and its checkpoints."),
        bind("runs.chat", "c", "chat", "Chat", "Chat with the run's last checkpoint."),
        bind("runs.evaluate", "e", "evaluate", "Evaluate", "Measure checkpoints: the run's, or those of marked runs."),
        bind("runs.sample", "a", "sample", "Sample", "Completions to judge: by the run, or by those that are marked."),
        bind("runs.again", "T", "again", "Again", "Do the run again: the same, or with a change.", show=False),
        bind("runs.exactly", "E", "exactly", "Exactly", "Do the run again at once, exactly as it was.", show=False),
        bind("runs.serve", "S", "serve", "Serve", "Serve the checkpoint to other programs.", show=False),
        bind("runs.inside", "I", "inside", "Inside", "Token probabilities and attention.", show=False),
        bind("runs.mark", "space", "mark", "Mark", "Mark the run, or take its mark away: marked runs share the plot."),
        bind("runs.unmark", "u", "unmark", "Unmark", "Take all marks away.", show=False),
        bind("runs.compare", "t", "compare", "Table", "Marked runs side by side: settings that differ, last values."),
        bind("runs.note", "N", "note", "Note", "Say something about the run; / finds it.", show=False),
        bind("runs.bookmark", "b", "bookmark", "Bookmark", "Give the run a star, or take it away.", show=False),
        bind("runs.archive", "A", "archive", "Archive", "Put the run away, or back; /archived shows them.", show=False),
        bind("runs.bin", "B", "bin", "Bin", "What was deleted: take it back, or delete it for good.", show=False),
        bind("runs.sweeps", "w", "sweeps", "Sweeps", "Sweeps and scaling studies: runs started together.", show=False),
        *PLOT_KEYS,
    ]

    @dataclass
    class Looked(Message):
        """The workspace was looked at."""

        entries: list[Entry]

    class CurvesRead(Message):
        """A thread has read what was new of the runs on the plot."""

    def __init__(self) -> None:
        super().__init__()
        self._board: Board | None = None
        self._entries: list[Entry] = []
        self._marks = Marks()
        self._tracks = RecentTracks()
        self._drawn: object = None
        self._behind = False
        self._turn = 0
        self._rest: Timer | None = None
        self._state_lines = -1
        self._offered: object = None
        self._wanted = ""
        """Id of the run that the cursor is to go to, once it is listed."""

    def compose_body(self) -> ComposeResult:
        with Horizontal(id="runs-body"):
            with Vertical(id="runs-list", classes="pane"):
                yield RunList()
                yield Static(invitation(), id="runs-empty")
            with Vertical(id="runs-detail", classes="pane"):
                yield Static(id="runs-state")
                yield LossPlot()

    def on_mount(self) -> None:
        self._board = Board(self.workbench.workspace)
        self.query_one("#runs-list").border_title = "runs"
        self.query_one("#runs-detail").border_title = "curve"
        self.query_one("#runs-empty").display = False
        self.poll(1.0, self._look)
        self.poll(0.25, self._follow_in_turn)

    def run_in_view(self) -> Entry | None:
        return self.query_one(RunList).entry

    def choose(self, run_id: str) -> None:
        """Put the cursor on a run, as soon as it is listed."""
        self._wanted = run_id
        self._list()

    def plot_changed(self) -> None:
        self._drawn = None
        self._draw()
        self._follow()

    def tracks(self) -> list[Track]:
        return [self._tracks.of(entry.run, self.look.scope) for entry in self._shown()]

    def offers(self, action: str) -> bool:
        if action == "compare":
            return bool(self._marks.places) and len(self._shown()) > 1
        if action == "log_axis" and self._marks.places:
            return True
        if action in ("mark", "filter"):
            return bool(self._entries) and not isinstance(self.focused, Input)
        return super().offers(action)

    def action_new(self) -> None:
        """Ask which stage, and open its form, filled with what is newest."""
        pick_stage(self.app, "What kind of run?", NEW, self.workbench.start_run)

    def action_sweeps(self) -> None:
        """Show the groups of runs."""
        from workbench.screens.sweeps import SweepsScreen

        self.app.push_screen(SweepsScreen())

    def action_note(self) -> None:
        """Ask for a note about the run."""
        if entry := self.run_in_view():

            def answered(text: str | None) -> None:
                if text is not None:
                    self._say(entry, note=text.strip())

            ask = Ask(f"Note on {entry.spec.name}", "Words that / will find; empty for none.", entry.notes.note, str)
            self.app.push_screen(ask, answered)

    def action_bookmark(self) -> None:
        """Give the run a star, or take it away."""
        if entry := self.run_in_view():
            self._say(entry, bookmarked=not entry.notes.bookmarked)

    def action_archive(self) -> None:
        """Put the run away, or back among the others."""
        if entry := self.run_in_view():
            away = not entry.notes.archived
            self._say(entry, archived=away)
            self.notify(f"{entry.spec.name} is {'put away: /archived shows it' if away else 'among the others again'}.")

    def action_bin(self) -> None:
        """Show what was deleted."""
        from workbench.screens.bin import BinScreen

        self.app.push_screen(BinScreen(self.workbench.workspace), lambda _: self._look())

    def _say(self, entry: Entry, **changes: Any) -> None:
        try:
            write_notes(entry.run, msgspec.structs.replace(read_notes(entry.run), **changes))
        except UserError as error:
            self.workbench.show_error(error)
        self._look()

    def action_mark(self) -> None:
        """Draw the run together with the others that are marked, or no longer."""
        entry = self.run_in_view()
        if entry is None:
            return
        if not self._marks.toggle(entry.run.id):
            self.notify(f"{len(MARKERS)} runs are marked; there is no marker left to tell another by.")
        self._list()
        self.plot_changed()

    def action_compare(self) -> None:
        """Show the marked runs side by side, with the one under the cursor."""
        if len(shown := self._shown()) < 2:
            self.notify("Mark another run with space: the table shows the marked runs and the one under the cursor.")
            return
        from workbench.screens.compare import CompareScreen

        self.app.push_screen(CompareScreen([entry.run for entry in shown]))

    def action_unmark(self) -> None:
        """Draw the run under the cursor alone."""
        self._marks.clear()
        self._list()
        self.plot_changed()

    def action_evaluate(self) -> None:
        """Open the form that measures checkpoints, with those of the marked runs, or of the one under the cursor."""
        if marked := self._marked():
            self.evaluate(marked)
        else:
            super().action_evaluate()

    def action_sample(self) -> None:
        """Open the form that samples completions, with the marked runs, or the one under the cursor."""
        if marked := self._marked():
            self.sample(marked)
        else:
            super().action_sample()

    def _marked(self) -> list[Entry]:
        """The runs with a mark, in the order of their places."""
        places = self._marks.places
        return sorted((e for e in self._entries if e.run.id in places), key=lambda entry: places[entry.run.id])

    @on(RunList.Filtered)
    def _filter_changed(self) -> None:
        self._list()

    @on(RunList.Opened)
    def _opened(self, event: RunList.Opened) -> None:
        self.workbench.open_run(event.entry.run)

    @on(RunList.Highlighted)
    def _highlighted(self) -> None:
        self._show_state()
        if self._rest is not None:
            self._rest.stop()
        self._rest = self.set_timer(REST, self._at_rest)

    def _at_rest(self) -> None:
        """The cursor has come to rest: read what is new of its run, and draw it."""
        self._follow()

    @on(RunSteered)
    def _steered(self) -> None:
        self._look()

    @on(Looked)
    def _looked(self, event: Looked) -> None:
        self._entries = event.entries
        self._marks.keep({entry.run.id for entry in event.entries})
        self._list()
        self._show_state()

    def _list(self) -> None:
        """Show the runs that the filter lets through."""
        words = self.query_one(RunList).filter_text
        entries = [entry for entry in self._entries if entry.matches(words)]
        runs, empty = self.query_one(RunList), self.query_one("#runs-empty", Static)
        runs.show(entries, self._marks.places)
        if self._wanted and any(entry.run.id == self._wanted for entry in entries):
            runs.select(self._wanted)
            self._wanted = ""
        runs.display = bool(entries)
        empty.display = not entries
        if not entries:
            told = nothing_matches(words) if self._entries else invitation()
            if str(empty.visual) != told.plain:
                empty.update(told)
        self.query_one("#runs-detail").display = bool(self._entries)
        live = sum(entry.live for entry in self._entries)
        some = f"{len(entries)} of {len(self._entries)}" if len(entries) < len(self._entries) else ""
        away = sum(entry.notes.archived for entry in self._entries)
        parts = (some, f"{live} at work" if live else "", f"{away} archived" if away else "")
        subtitle = " · ".join(filter(None, parts))
        set_subtitle(self.query_one("#runs-list"), subtitle)

    @on(CurvesRead)
    def _curves_read(self) -> None:
        self._draw()
        if self._behind:
            self._follow()

    def _look(self) -> None:
        if not self.busy_with("look"):
            self._look_at_runs()

    @work(thread=True, group="look")
    def _look_at_runs(self) -> None:
        if self._board is not None:
            self.post_message(self.Looked(self._board.look()))

    def _follow_in_turn(self) -> None:
        """Four times a second; twice where many curves are drawn, which is most of what watching costs."""
        self._turn += 1
        if len(self._shown()) <= FEW or self._turn % 2:
            self._follow()

    def _follow(self) -> None:
        """Read what is new of the runs on the plot; while a thread is at it, once that is done."""
        tracks = self.tracks()
        self._behind = self.busy_with("follow")
        if tracks and not self._behind:
            self._catch_up(tracks)

    @work(thread=True, group="follow")
    def _catch_up(self, tracks: list[Track]) -> None:
        for track in tracks:
            track.catch_up()
        self.post_message(self.CurvesRead())

    def _shown(self) -> list[Entry]:
        """The runs on the plot: those marked, in the order of their places, and last the one under the cursor."""
        marked, cursor = self._marked(), self.run_in_view()
        return marked if cursor is None or cursor.run.id in self._marks.places else [*marked, cursor]

    def _draw(self) -> None:
        plot = self.query_one(LossPlot)
        entries, tracks = self._shown(), self.tracks()
        plot.display = bool(entries)
        now = [(entry.run.id, track.version) for entry, track in zip(entries, tracks, strict=True)]
        if not entries or now == self._drawn:
            return
        self._drawn = now
        self.show_picture(self._picture(entries, tracks))

    def _picture(self, entries: list[Entry], tracks: list[Track]) -> Picture:
        if len(entries) == 1:
            picture = self.picture_of(tracks[0], end=last_step(entries[0].state))
            missing = in_place_of_a_curve(entries[0])
        else:
            ends = [last_step(entry.state) for entry in entries]
            runs = [self._line_of(entry, track) for entry, track in zip(entries, tracks, strict=True)]
            picture = self.picture_of_all(runs, end=max(ends) if all(ends) else 0.0)
            missing = "none of these runs logged a curve"
        picture.unit = unit_of(picture.title, [entry.spec.stage for entry in entries])
        picture.empty = picture.empty or missing
        return picture

    def _line_of(self, entry: Entry, track: Track) -> Shown:
        """How a run is drawn among others."""
        place = self._marks.places.get(entry.run.id)
        role, marker = (PLAIN, "━") if place is None else (place, MARKERS[place])
        return Shown(entry.spec.name, track, role, marker)

    def _show_state(self) -> None:
        entry = self.run_in_view()
        shown = Content.assemble(line(entry.spec.name, "bold"), "  ", state_of(entry)) if entry else Content()
        offered = (entry.status, entry.state.last_checkpoint is not None) if entry else None
        if offered != self._offered:
            self._offered = offered
            self.refresh_bindings()
        lines = shown.plain.count("\n")
        self.query_one("#runs-state", Static).update(shown, layout=lines != self._state_lines)
        self._state_lines = lines
