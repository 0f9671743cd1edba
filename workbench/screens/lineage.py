"""Lineage: everything in the workspace as a tree, with digests.

├ dataset world        text, 16,000 records                 8f3a01c2
│ ├ tokenizer bpe      bpe, 512 entries                     11ce98a0
│ └ run first          pretrain, tokenizer bpe
│   └ checkpoint first@2000                                 5d20b7e1
│     └ run chatty     sft, on world-chat
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from stages.store.checkpoints import resolve_checkpoint
from stages.store.errors import UserError
from stages.store.lineage import delete_checkpoint, told_before_deleting
from stages.store.rundir import RunDir, find_run
from workbench.display import displayable_line, line, shortened
from workbench.keys import LIST_KEYS, bind
from workbench.models.lineage_tree import Node, lineage_tree, matching, rows
from workbench.screens.base import PlaceScreen
from workbench.screens.question import Question
from workbench.screens.steering import do_again, do_exactly
from workbench.widgets.filter_field import NO_MATCH, Filterable

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp

STYLES = {
    "dataset": "$success",
    "tokenizer": "",
    "model": "$warning",
    "run": "bold",
    "checkpoint": "$primary",
    "labels": "$accent",
}
DIGEST = 8
"""Characters of a digest that are shown."""


class LineageList(OptionList, Filterable):
    """The lines of the tree, with hjkl. What is above and below a line that passes the filter is shown with it."""

    filter_hint = "words of kind, name, digest"

    BINDINGS = [
        *LIST_KEYS,
        bind("lineage.open", "enter", "select", "Open", "Go to the run, the data or the labels of this line."),
    ]


class LineageScreen(PlaceScreen):
    """Enter goes to what a line is about."""

    PLACE = "home"
    CSS_PATH = "lineage.tcss"
    AUTO_FOCUS = "LineageList"
    BINDINGS = [
        bind("lineage.again", "T", "again", "Again", "Do the run again: the same, or with a change."),
        bind("lineage.exactly", "E", "exactly", "Exactly", "Do the run again at once, exactly as it was.", show=False),
        bind("lineage.card", "m", "card", "Model card", "A card in Markdown: data, recipe, curves, figures, parents."),
        bind("lineage.delete", "d,delete", "delete", "Delete", "Throw the checkpoint into the bin, after a question."),
        bind("lineage.back", "escape", "back", "Back", "To where you were."),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._tree: list[Node] = []
        self._shown: list[Node] = []

    def compose_body(self) -> ComposeResult:
        with Vertical(id="lineage", classes="pane"):
            yield LineageList()
            yield Static("Nothing here yet: Home shows the first step.", id="lineage-empty", classes="muted")

    def on_mount(self) -> None:
        self.query_one("#lineage").border_title = "what was made from what"
        self.show_trail("lineage")
        self.poll(5.0, self._look)

    def offers(self, action: str) -> bool:
        """Only of runs and checkpoints."""
        node = self._node
        if action == "delete":
            return node is not None and node.kind == "checkpoint"
        return action not in ("again", "exactly", "card") or (node is not None and node.kind in ("run", "checkpoint"))

    @property
    def _node(self) -> Node | None:
        """What the cursor is on."""
        at = self.query_one(LineageList).highlighted if self.query(LineageList) else None
        return self._shown[at] if at is not None and at < len(self._shown) else None

    @on(OptionList.OptionHighlighted)
    def _highlighted(self) -> None:
        self.refresh_bindings()

    def action_back(self) -> None:
        """Leave."""
        self.dismiss(None)

    def action_again(self) -> None:
        """Open the form of the run, filled as it was."""
        self._with_run(do_again)

    def action_exactly(self) -> None:
        """Do the run again as it was, at once."""
        self._with_run(do_exactly)

    def _with_run(self, does: Callable[[WorkbenchApp, RunDir], None]) -> None:
        if (node := self._node) is None or node.kind not in ("run", "checkpoint"):
            self.notify("Only a run is done again: go to a line of a run or a checkpoint.")
            return
        try:
            run = find_run(self.workbench.workspace, node.key)
        except UserError as error:
            self.workbench.show_error(error)
            return
        does(self.workbench, run)

    def action_card(self) -> None:
        """Write the card of the checkpoint, or of a run's last one, and show it."""
        if (node := self._node) is None or node.kind not in ("run", "checkpoint"):
            self.notify("A card is of a checkpoint: go to a line of one, or of its run.")
            return
        self._write_card(node)

    @work(thread=True, exclusive=True, group="card")
    def _write_card(self, node: Node) -> None:
        from workbench.board.again import readable
        from workbench.models.model_card import card_of, write_card
        from workbench.plots.svg import legible_name
        from workbench.screens.card import CardScreen

        workspace = self.workbench.workspace
        try:
            checkpoint = resolve_checkpoint(workspace, node.name if node.kind == "checkpoint" else node.key)
            card = card_of(workspace, checkpoint)
            folder = workspace.root / "cards" / legible_name([readable(workspace, str(checkpoint.path))])
            write_card(card, folder)
        except UserError as error:
            self.app.call_from_thread(self.workbench.show_error, error)
            return
        self.app.call_from_thread(self.app.push_screen, CardScreen(node.name, card.markdown, folder))

    def action_delete(self) -> None:
        """Say what deleting the checkpoint means, and ask."""
        if (node := self._node) is None or node.kind != "checkpoint":
            self.notify("Here checkpoints are deleted: go to a line of one. Runs and data are deleted in their places.")
            return
        self._ask_to_delete(node)

    @work(thread=True, exclusive=True, group="delete")
    def _ask_to_delete(self, node: Node) -> None:
        try:
            run, step = find_run(self.workbench.workspace, node.key), int(node.name.rpartition("@")[2])
            told = told_before_deleting(self.workbench.workspace, run, step)
        except UserError as error:
            self.app.call_from_thread(self.workbench.show_error, error)
            return
        question = Question(f"Delete the checkpoint {node.name}?", told, yes="delete it")

        def answered(yes: bool | None) -> None:
            if yes:
                self._delete(run, step, node.name)

        self.app.call_from_thread(self.app.push_screen, question, answered)

    @work(thread=True, group="delete")
    def _delete(self, run: RunDir, step: int, name: str) -> None:
        try:
            delete_checkpoint(self.workbench.workspace, run, step)
        except UserError as error:
            self.app.call_from_thread(self.workbench.show_error, error)
            return
        self.app.call_from_thread(self.notify, f"{name} lies in the bin. B in Runs shows it.")
        self._read()

    @on(LineageList.Filtered)
    def _filter_changed(self) -> None:
        self._show(self._tree)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        node = self._shown[event.option_index]
        app = self.workbench
        if node.kind in ("run", "checkpoint"):
            try:
                run = find_run(app.workspace, node.key)
            except UserError as error:
                app.show_error(error)
                return
            self.dismiss(None)
            app.open_run(run)
        elif node.kind in ("dataset", "tokenizer"):
            self.dismiss(None)
            app.show_data(node.kind, node.name)
        elif node.kind == "labels":
            self.dismiss(None)
            app.go("rank")
        else:
            self.notify(f"{node.note}. `workbench models show {node.name}` tells more.", title=node.name)

    def _look(self) -> None:
        if not self.busy_with("look"):
            self._read()

    @work(thread=True, group="look")
    def _read(self) -> None:
        tree = lineage_tree(self.workbench.workspace)
        self.app.call_from_thread(self._show, tree)

    def _show(self, tree: list[Node]) -> None:
        if not self.query(LineageList):
            return  # the thread that looked was slower than the one who left
        self._tree = tree
        words = self.query_one(LineageList).filter_text.casefold().split()
        found = list(rows(matching(tree, words) if words else tree))
        listed, empty = self.query_one(LineageList), self.query_one("#lineage-empty", Static)
        width = max(40, self.size.width - 8)
        options = [_row(before, node, width) for before, node in found]
        if [node.name for _, node in found] != [node.name for node in self._shown] or len(listed.options) != len(found):
            at = listed.highlighted or 0
            listed.clear_options()
            listed.add_options([Option(option) for option in options])
            listed.highlighted = min(at, len(found) - 1) if found else None
        self._shown = [node for _, node in found]
        listed.display = bool(found)
        if found and self.focused is None:
            listed.focus()
        empty.display = not found
        if tree and not found:
            empty.update(NO_MATCH)

    def on_resize(self, _: Any) -> None:
        self._shown = []
        self._show(self._tree)


def _row(before: str, node: Node, width: int) -> Content:
    kind, digest = f"{node.kind} ", node.digest[:DIGEST]
    room = max(12, width - len(before) - len(kind) - DIGEST - 4)
    name = shortened(displayable_line(node.name), room)
    note = shortened(displayable_line(node.note), max(0, room - cell_len(name) - 2)) if node.note else ""
    gap = max(1, room - cell_len(name) - cell_len(note) - 2)
    return Content.assemble(
        (before, "$text-muted"),
        (kind, "$text-muted"),
        line(name, STYLES[node.kind]),
        "  ",
        line(note, "$text-muted"),
        " " * gap,
        line(digest, "$text-muted"),
    )
