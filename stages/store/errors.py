"""Errors that a person is meant to read: one sentence that says what and where, and a hint that says what to do."""

from __future__ import annotations

import msgspec

UNREADABLE = (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a file of JSON raises where it is not there, or damaged: msgspec calls no bad UTF-8 a DecodeError."""


class UserError(Exception):
    """A mistake or a circumstance that the user can act on.

    The app, the command line and a run's state file all show it the same way: `title`, then `hint`.
    `exit_code` is 2 when the request was wrong and 1 when the work itself failed.
    """

    def __init__(self, title: str, hint: str = "", *, exit_code: int = 2) -> None:
        super().__init__(title)
        self.title = title
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.title} {self.hint}".strip()


class WorkFailed(UserError):
    """The request was right, but the work could not be finished (exit code 1)."""

    def __init__(self, title: str, hint: str = "") -> None:
        super().__init__(title, hint, exit_code=1)
