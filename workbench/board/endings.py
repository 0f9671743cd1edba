"""Which runs have come to an end since the last look: what a person who does other things wants to be told."""

from __future__ import annotations

from stages.store.workspace import Workspace
from workbench.board.run_board import Board, Entry

SAID = {"finished": "is finished", "failed": "has failed", "lost": "has died", "paused": "has paused itself"}
"""How the ends that nobody asked for are told; who stops a run knows that it ends."""


class Endings:
    """Looks at the runs of a workspace again and again. The first look finds no ends."""

    def __init__(self, workspace: Workspace) -> None:
        self._board = Board(workspace)
        self._live: set[str] = set()

    def look(self) -> list[Entry]:
        """The runs that were at work at the last look and have ended by themselves, the oldest first."""
        entries = self._board.look()
        ended = [entry for entry in entries if entry.run.id in self._live and entry.status in SAID]
        self._live = {entry.run.id for entry in entries if entry.live}
        return ended[::-1]


def notice(entries: list[Entry]) -> str:
    """What is said of them, in one line."""
    told = [f"{entry.spec.name} {SAID[entry.status]}" for entry in entries[:3]]
    return ", ".join([*told, *([f"{len(entries) - 3} more have ended"] if len(entries) > 3 else [])]) + "."


def desktop_notice(text: str) -> str:
    """The escape sequence (OSC 9) by which a terminal tells the desktop; `text` must be displayable already."""
    return f"\x1b]9;{text}\x07"
