"""Copying out of the app: by OSC 52 to the clipboard of whoever's terminal this is, and into a file for others.

The clipboard works over SSH where the terminal knows OSC 52; whether it does cannot be asked, so the file is written
always and the notice names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.store.errors import UserError
from stages.store.files import write_atomic
from stages.store.workspace import state_folder
from workbench.display import path_lines

if TYPE_CHECKING:
    from textual.app import App
    from textual.screen import Screen
    from textual.widgets import DataTable

OSC52_LIMIT = 74_000
"""Bytes of text beyond which terminals drop what is sent to their clipboard."""
FILE = "copied.txt"


def copy_out(app: App[None], text: str) -> None:
    """Copy a text as it is, and say where it went."""
    data = text.encode("utf-8", "replace")
    path = state_folder() / FILE
    told = []
    if len(data) <= OSC52_LIMIT:
        app.copy_to_clipboard(data.decode())
        told.append("Sent to the terminal's clipboard (OSC 52).")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data, durable=False)
        told.append(f"Written to\n{path_lines(path)}")
    except (OSError, UserError) as error:
        told.append(f"Not written: {error}.\n{path_lines(path)}")
    app.notify("\n".join(told), title=f"{len(text):,} characters")


def worth_copying(screen: Screen[object]) -> str | None:
    """What is copied where one is: the table that has the focus, or the folder of the run in view."""
    from textual.widgets import DataTable  # here, since the first paint has no table

    if isinstance(table := screen.focused, DataTable):
        return table_text(table)
    in_view = getattr(screen, "run_in_view", None)
    entry = in_view() if in_view is not None else None
    return str(entry.run.path) if entry is not None else None


def table_text(table: DataTable[Any]) -> str:
    """A table's heads and rows as they are shown, a line each, tabs between cells: what spreadsheets take."""
    heads = [str(column.label).strip() for column in table.ordered_columns]
    rows = [[str(cell).strip() for cell in table.get_row(row.key)] for row in table.ordered_rows]
    return "".join("\t".join(cells) + "\n" for cells in (heads, *rows))
