"""A reader sees the old file or the new one; strays vanish; torn lines are cut."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages.store import files
from stages.store.errors import UserError, WorkFailed


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_atomic(path, b"old")
    files.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("text", ["~nosuchuser/x", "x" * 300, "./" + "b" * 300, "../x" * 2_000])
def test_what_is_no_path_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match="is no file or folder") as caught:
        files.path_of(text)
    assert len(str(caught.value)) < 200


def test_a_path_need_not_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.path_of("~/notes.txt") == tmp_path / "notes.txt"


def test_a_full_disk_is_named_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    files.write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkFailed, match="full") as caught:
        files.write_atomic(path, b"new")
    assert str(tmp_path) in caught.value.title
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_successor_that_cannot_take_its_name_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thing, temporary = tmp_path / "thing", files.temporary_beside(tmp_path / "thing")
    for folder, content in ((thing, b"old"), (temporary, b"new")):
        folder.mkdir()
        (folder / "a").write_bytes(content)
    real = Path.rename

    def full(self: Path, target: Path) -> Path:
        if self == temporary:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(WorkFailed, match="full"):
        files.publish_folder(temporary, thing)
    assert (thing / "a").read_bytes() == b"old"


LIMITED = """
import resource, sys
from pathlib import Path
from stages.store import files
from stages.store.errors import WorkFailed
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
try:
    files.write_atomic(Path(sys.argv[1]), bytes(2_000))
except WorkFailed as error:
    print(error)
"""


def test_a_file_the_system_does_not_let_grow_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], cwd=Path.cwd(), capture_output=True, text=True)
    assert str(tmp_path) in done.stdout
    assert "allows no larger file" in done.stdout
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_too_little_space_is_said_before_writing(tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match="are needed"):
        files.check_space(tmp_path / "not" / "yet", 10**18)


def test_a_torn_last_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a":1}\n{"a":2}\n{"a"' + b"x" * 200_000)
    files.drop_torn_line(path)
    assert path.read_bytes() == b'{"a":1}\n{"a":2}\n'


def test_a_line_without_any_newline_is_cut_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"torn")
    files.drop_torn_line(path)
    assert path.read_bytes() == b""


def test_a_short_write_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short:
        def __enter__(self) -> "Short":
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def write(self, data: bytes) -> int:
            return len(data) - 1

    monkeypatch.setattr(Path, "open", lambda *_args, **_kwargs: Short())
    with pytest.raises(WorkFailed, match="full"):
        files.append_line(tmp_path / "rows.jsonl", b"{}")


KILLED = """
import os, signal, sys
from pathlib import Path
from stages.store import files
calls = {"n": 0}
def dying(real):
    def call(*args, **kwargs):
        calls["n"] += 1
        if calls["n"] == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
os.fsync = dying(os.fsync)
Path.rename = dying(Path.rename)
files.shutil.rmtree = dying(files.shutil.rmtree)
folder = Path(sys.argv[1])
temporary = files.temporary_beside(folder / "thing")
temporary.mkdir()
(temporary / "a").write_bytes(b"new a")
(temporary / "b").write_bytes(b"new b")
files.publish_folder(temporary, folder / "thing")
"""


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("call", range(1, 10))
def test_publishing_a_folder_survives_a_kill_at_every_call(tmp_path: Path, call: int, replaced: bool) -> None:
    old, new = {"a": b"old a"}, {"a": b"new a", "b": b"new b"}
    thing = tmp_path / "thing"
    if replaced:
        thing.mkdir()
        (thing / "a").write_bytes(old["a"])
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(call)], cwd=Path.cwd())
    files.settle(tmp_path)
    found = {p.name: p.read_bytes() for p in thing.iterdir()} if thing.exists() else None
    if done.returncode == -signal.SIGKILL:
        assert found in ((old, new) if replaced else (None, new))
    else:
        assert found == new
    assert [p.name for p in tmp_path.iterdir()] == (["thing"] if found else [])


def test_what_is_not_there_is_told_with_the_nearest_name_or_what_makes_the_first(tmp_path: Path) -> None:
    from stages.store.datasets import find_dataset
    from stages.store.names import nearest
    from stages.store.rundir import find_run
    from stages.store.tokenizers import find_tokenizer
    from stages.store.workspace import Workspace

    assert nearest("wrold", ["notes", "world"], "data build") == "Did you mean 'world'?"
    assert nearest("qqq", ["notes", "world"], "data build") == "Known: notes, world."
    workspace = Workspace(tmp_path).ensure()
    for find, command in ((find_dataset, "data build"), (find_tokenizer, "tokenizer train"), (find_run, "train")):
        with pytest.raises(UserError, match=f"There is none yet: `workbench {command} .*` makes one\\."):
            find(workspace, "x")


def test_names_cannot_leave_the_workspace() -> None:
    from stages.store.names import check_name

    for bad in ("", ".", "..", "../x", "a/b", "/etc", "-x", "a\x1b[31m", "a b", "x" * 65, ".hidden", "a\n"):
        with pytest.raises(UserError):
            check_name(bad)
    assert check_name("shakespeare-2.bpe_512") == "shakespeare-2.bpe_512"
