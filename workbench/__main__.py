"""`workbench`: without arguments the app, with arguments the command line."""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING

from stages.store.errors import UserError

if TYPE_CHECKING:
    from workbench.app import WorkbenchApp

INTERRUPTED = 130
"""Exit code after ctrl+c, by the convention of shells."""

COMPLETING = "_WORKBENCH_COMPLETE"
"""Set by a shell that asks how a command line could go on."""

FRAMES = "120"
"""Paints a second, at most. A paint that comes soon after another waits for up to two periods, and keys with it."""


def main() -> int:
    """Run what the arguments ask for; the exit code is 0 done, 1 the work failed, 2 the request was wrong."""
    try:
        alone = len(sys.argv) == 1 and COMPLETING not in os.environ
        return open_app() if alone else run_command(sys.argv[1:])
    except UserError as error:
        return complain(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone (`workbench runs | head`): nothing more to say, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the boundary of the process: one line for people, the rest in a file
        return complain(keep_traceback(error))


def open_app() -> int:
    """The app, in this terminal. click is not imported on this path."""
    if not on_terminal():
        raise UserError("The app needs a terminal.", "`workbench --help` lists the commands that do without one.")
    os.environ.setdefault("TEXTUAL_FPS", FRAMES)  # Textual reads it when it is imported
    from stages.store.workspace import find_workspace
    from workbench.app import WorkbenchApp
    from workbench.settings import load_settings
    from workbench.terminal.escape_key import read_escapes

    read_escapes()
    settings = load_settings()
    return show(WorkbenchApp(settings, find_workspace(settings.paths.workspace)))


def keep_answering() -> None:
    """Keep the interpreter's own pauses out of the time between a key and its answer.

    Threads that read files hand over to the one that answers keys ten times as soon as Python's 5 ms. What the imports
    made is never garbage, and the rows of metrics hold no cycles, so the collector looks less often.
    """
    sys.setswitchinterval(0.0005)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def on_terminal() -> bool:
    """Whether the app can be shown: Textual reads from stdin and draws on stderr."""
    return sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()


def show(app: WorkbenchApp) -> int:
    """Run the app until it is closed. A mistake of ours that ended it is raised as the sentence about it."""
    keep_answering()
    app.run()
    if app.failure is not None:
        raise app.failure
    return app.return_code or 0


def run_command(arguments: list[str]) -> int:
    """A command; see `workbench --help`."""
    from workbench.cli.root import run

    return run(arguments)


def complain(error: UserError) -> int:
    """Print one line to stderr, title and hint; the exit code that belongs to it."""
    from workbench.display import displayable_line

    print(displayable_line(f"error: {error}"), file=sys.stderr)
    return error.exit_code


def keep_traceback(error: BaseException) -> UserError:
    """Write the traceback of an unexpected error to a file; the sentence that names it."""
    from stages.store.workspace import state_folder

    text = "".join(traceback.format_exception(error))
    path = state_folder() / "errors" / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
    hint = f"The traceback is in {path}."
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"workbench {' '.join(sys.argv[1:])}\n{text}", "utf-8", errors="backslashreplace")
    except OSError as refused:
        hint = f"The traceback could not be written to {path}: {refused.strerror}."
    shown = f"{type(error).__name__}: {error}"[:300]
    return UserError(f"Workbench made a mistake: {shown}.", hint, exit_code=1)


if __name__ == "__main__":
    sys.exit(main())
