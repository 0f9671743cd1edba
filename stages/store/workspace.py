"""The workspace: the one folder that holds datasets, tokenizers, imported models, runs and labels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stages.store.errors import UserError
from stages.store.files import path_of

KINDS = ("datasets", "tokenizers", "models", "runs")


@dataclass(frozen=True)
class Workspace:
    """Paths below the workspace's root. Nothing is created before `ensure`."""

    root: Path

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def tokenizers(self) -> Path:
        return self.root / "tokenizers"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def groups(self) -> Path:
        return self.root / "groups"

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def labels(self) -> Path:
        return self.root / "labels.db"

    def ensure(self) -> Workspace:
        """Create the folders; raise UserError when the place cannot be written."""
        try:
            for kind in KINDS:
                (self.root / kind).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"The workspace {self.root} cannot be created: {os.strerror(error.errno or 0).lower()}.",
                "Set WORKBENCH_HOME or [paths] workspace to a folder you can write.",
            ) from error
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise UserError(
                f"The workspace {self.root} is read-only.",
                "Set WORKBENCH_HOME or [paths] workspace to a folder you can write.",
            )
        return self


def find_workspace(configured: str | None = None) -> Workspace:
    """$WORKBENCH_HOME, else the configured path, else the platform's folder for user data."""
    chosen = os.environ.get("WORKBENCH_HOME") or configured
    if chosen:
        return Workspace(path_of(chosen).absolute())
    import platformdirs

    return Workspace(platformdirs.user_data_path("workbench"))


def state_folder() -> Path:
    """Where machine-wide state (the device queue) lives: platformdirs' state folder of the user."""
    import platformdirs

    return platformdirs.user_state_path("workbench")


def installation_root() -> Path:
    """The folder that holds the packages `workbench`, `stages`, `kernels` and `assets`."""
    return Path(__file__).resolve().parents[2]


def worker_environment() -> dict[str, str]:
    """The environment of a process of ours: it finds these packages, and none in the folder where a person stands."""
    return {**os.environ, "PYTHONPATH": str(installation_root()), "PYTHONSAFEPATH": "1"}
