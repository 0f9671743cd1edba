"""Settings: what workbench.toml may say, checked key by key, the nearest file over the user's own.

Flags of the command line come over both. `workbench.toml` in the root of the project is the complete example.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import tomli

from stages.store import strict
from stages.store.errors import UserError
from stages.store.files import path_of
from stages.store.names import nearest
from stages.store.specs import STAGES
from stages.store.specs.base import about
from stages.store.specs.chat import Chat
from stages.store.specs.retrieval import Retrieval

FILE = "workbench.toml"


class Paths(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where things are."""

    workspace: Annotated[
        str | None,
        about(
            "Folder of datasets, tokenizers and runs; relative to this file. Left out: the system's folder for user "
            "data. The environment variable WORKBENCH_HOME comes before it."
        ),
    ] = None


class AppSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How the app looks."""

    theme: Annotated[
        Literal["dark", "light", "ansi"], about("Colours. ansi: the terminal's own sixteen, on its own background.")
    ] = "dark"
    notice: Annotated[
        Literal["none", "bell", "desktop"],
        about("When a run ends while the app is open. bell: the terminal's bell. desktop: its notice as well (OSC 9)."),
    ] = "bell"


class QueueSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The device queue of this machine. A GPU trains one run at a time."""

    cpu_width: Annotated[int, about("Runs that may train on the CPU at once.", unit="runs", ge=1, le=1_024)] = 1


class LaunchSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How the processes of a run on several GPUs are started, when that is not by torchrun on this machine."""

    command: Annotated[
        list[str],
        about(
            "Words of a command: {torchrun} in it starts all processes on one machine, {worker} is the command of one, "
            "of which it starts {gpus}. Several machines must see the workspace under the same path. Empty: torchrun "
            "here. Whatever the command waits for gives the GPUs; the queue of this machine is not joined."
        ),
    ] = []


class LabelSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Judging completions by hand."""

    annotator: Annotated[
        Annotated[str, msgspec.Meta(min_length=1)] | None, about("Who labels. Left out: the name of the login.")
    ] = None
    people: Annotated[int, about("People who judge each prompt of a new set.", unit="people", ge=1, le=100)] = 1
    repeat_share: Annotated[
        float,
        about(
            "Share of a new set's prompts that are silently asked again, to see how far people agree with themselves.",
            ge=0,
            le=0.5,
        ),
    ] = 0.05
    reward_model: Annotated[
        str,
        about(
            "Reward model whose order of a chat's answers is told once yours is given. Empty: the newest there is. "
            "none: no order is told."
        ),
    ] = ""


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """All settings, merged and checked. `Settings()` holds the defaults."""

    paths: Paths = Paths()
    app: AppSettings = AppSettings()
    keys: dict[str, str] = {}
    """Keys by the id of a binding; several are separated by commas."""
    queue: QueueSettings = QueueSettings()
    launch: LaunchSettings = LaunchSettings()
    chat: Chat = Chat()
    retrieval: Retrieval = Retrieval()
    labels: LabelSettings = LabelSettings()
    build: dict[str, Any] = {}
    importing: dict[str, Any] = {}
    evaluate: dict[str, Any] = {}
    in_context: dict[str, Any] = {}
    sample: dict[str, Any] = {}
    best_of: dict[str, Any] = {}
    tokenizer: dict[str, Any] = {}
    pretrain: dict[str, Any] = {}
    bert: dict[str, Any] = {}
    t5: dict[str, Any] = {}
    transformer_xl: dict[str, Any] = {}
    seq2seq: dict[str, Any] = {}
    sft: dict[str, Any] = {}
    distill: dict[str, Any] = {}
    classify: dict[str, Any] = {}
    assess: dict[str, Any] = {}
    reward: dict[str, Any] = {}
    dpo: dict[str, Any] = {}
    grpo: dict[str, Any] = {}
    ppo: dict[str, Any] = {}
    report: dict[str, Any] = {}
    label: dict[str, Any] = {}
    """What the files say about the spec of each stage: a part of it. One table a stage, by the stage's name."""
    files: tuple[Path, ...] = ()
    """Files that were read, the nearest first."""

    def stage(self, name: str) -> dict[str, Any]:
        """What the files say about the spec of a stage, to be overridden by flags or a form."""
        return dict(getattr(self, name))


TABLES: dict[str, type[msgspec.Struct]] = {
    "paths": Paths,
    "app": AppSettings,
    "queue": QueueSettings,
    "launch": LaunchSettings,
    "chat": Chat,
    "retrieval": Retrieval,
    "labels": LabelSettings,
}
"""Tables of the app itself. Beside them stand [keys] and a table for every stage."""


def load_settings(start: Path | None = None) -> Settings:
    """The nearest workbench.toml from `start` (the current folder) upward, over the user's, over the defaults.

    Raises UserError, in one line, for a file that cannot be read, an unknown key, a wrong type or a value out of range.
    """
    files = find_files(start)
    merged: dict[str, dict[str, Any]] = {}
    for path in reversed(files):
        for table, values in read_file(path).items():
            merged.setdefault(table, {}).update(values)
    return Settings(
        paths=Paths(**merged.get("paths", {})),
        app=AppSettings(**merged.get("app", {})),
        keys=merged.get("keys", {}),
        queue=QueueSettings(**merged.get("queue", {})),
        launch=LaunchSettings(**merged.get("launch", {})),
        chat=Chat(**merged.get("chat", {})),
        retrieval=Retrieval(**merged.get("retrieval", {})),
        labels=LabelSettings(**merged.get("labels", {})),
        files=tuple(files),
        **{stage: merged.get(stage, {}) for stage in STAGES},
    )


def find_files(start: Path | None = None) -> list[Path]:
    """The files that apply, the nearest first: at most one from `start` upward, and the user's own."""
    here = (start or _current_folder()).absolute()
    near = [folder / FILE for folder in (here, *here.parents) if (folder / FILE).is_file()][:1]
    own = user_file()
    return near + ([own] if own.is_file() and own not in near else [])


def user_file() -> Path:
    """Where the user's own settings are looked for."""
    import platformdirs

    return platformdirs.user_config_path("workbench") / FILE


def read_file(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of one file, checked; UserError naming file, key and what was expected."""
    try:
        content = tomli.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{path} cannot be read: {reason}.") from error
    except (tomli.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{path}: {error}.", "Expected TOML: key = value, in [tables].") from error
    return {table: _check_table(table, values, path) for table, values in content.items()}


def _check_table(table: str, values: Any, path: Path) -> dict[str, Any]:
    known = [*TABLES, "keys", *STAGES]
    if table not in known:
        raise UserError(
            f"{path}: unknown {'table' if isinstance(values, dict) else 'key'} {table!r}.", nearest(table, known)
        )
    if not isinstance(values, dict):
        raise UserError(f"{path}: {table!r} is {values!r}; expected a table, [{table}].")
    if table == "keys":
        return _check_keys(values, path)
    checked = strict.check_some(TABLES.get(table) or STAGES[table], values, str(path), f"{table}.")
    if table == "paths" and checked.get("workspace"):
        checked["workspace"] = str(path.parent / path_of(checked["workspace"]))
    return checked


def _check_keys(values: Mapping[str, Any], path: Path) -> dict[str, str]:
    checked: dict[str, str] = {}
    for binding, key in _flat(values, ""):
        if not isinstance(key, str) or not key.strip():
            raise UserError(f'{path}: {"keys." + binding!r} is {key!r}; expected the name of a key, such as "ctrl+n".')
        checked[binding] = key
    return checked


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """`runs.stop = "x"` is a nested table to TOML, but the binding `runs.stop` to us."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return found


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise UserError("The current folder no longer exists.", "Change to one that does.") from error
