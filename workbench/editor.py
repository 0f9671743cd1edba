"""Editing a text in the person's own editor, with the app set aside."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from textual.app import App, SuspendNotSupported


def edit_text(app: App[Any], text: str) -> tuple[str, str]:
    """`text` as $VISUAL or $EDITOR (else vi) leaves it, and a sentence when it could not be edited."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.txt"
        path.write_bytes(text.encode("utf-8", "replace"))
        try:
            with app.suspend():
                code = subprocess.call([*shlex.split(command), str(path)])
        except (OSError, ValueError) as error:
            return text, f"{command} could not be started: {error}. Set EDITOR."
        except SuspendNotSupported:
            return text, "This terminal cannot set the app aside for an editor."
        if code:
            return text, f"{command} ended with exit code {code}; nothing was changed."
        edited = path.read_bytes().decode("utf-8", "replace")
        return (edited if text.endswith("\n") else edited.removesuffix("\n")), ""
