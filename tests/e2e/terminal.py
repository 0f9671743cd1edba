"""A real terminal: tmux runs the program, keys go in, the screen comes out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path


class Terminal:
    """One tmux server with one window. `close` is what closing the window does: everything in it gets SIGHUP."""

    def __init__(
        self, command: list[str], environment: Mapping[str, str], *, folder: Path, width: int = 120, height: int = 40
    ) -> None:
        self._socket = f"workbench-{uuid.uuid4().hex[:8]}"
        settings = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
        size = ["-x", str(width), "-y", str(height)]
        self._tmux("new-session", "-d", "-c", str(folder), *size, *settings, *command)

    def type(self, text: str) -> None:
        """Type text, literally."""
        self._tmux("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names: Enter, Escape, C-r."""
        self._tmux("send-keys", *keys)

    def screen(self) -> str:
        """The visible text."""
        return self._tmux("capture-pane", "-p")

    def wait_for(self, *texts: str, seconds: float = 60.0) -> str:
        """The screen, once it shows all of `texts`; fails with what it showed instead."""
        deadline = time.monotonic() + seconds
        while True:
            shown = self.screen()
            if all(text in shown for text in texts):
                return shown
            assert time.monotonic() < deadline, f"waited {seconds} s for {texts}; the screen shows:\n{shown}"
            time.sleep(0.1)

    def resize(self, width: int, height: int) -> None:
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def kill(self) -> None:
        """SIGKILL the program in the window."""
        os.kill(int(self._tmux("display-message", "-p", "#{pane_pid}")), signal.SIGKILL)

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self._socket, "kill-server"], capture_output=True, check=False)

    def _tmux(self, *arguments: str) -> str:
        outer = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "TMUX")}
        command = ["tmux", "-L", self._socket, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=outer)
        return done.stdout


def workbench(*arguments: str) -> list[str]:
    """The command that starts the program of this checkout."""
    return [sys.executable, "-P", "-m", "workbench", *arguments]


def environment(folder: Path) -> dict[str, str]:
    """A world of its own below `folder`."""
    root = str(Path(__file__).parents[2])
    return {
        "WORKBENCH_HOME": str(folder / "home"),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "PYTHONPATH": root,
        "OMP_NUM_THREADS": "1",
    }
