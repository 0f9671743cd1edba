"""Building a dataset: whole or absent, the same every time, in bounded memory, and one clear line for bad input."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.build import build_dataset
from stages.data.records import RecordWriter, read_records, read_texts
from stages.store.building import building
from stages.store.datasets import find_dataset, list_datasets
from stages.store.errors import UserError, WorkFailed
from stages.store.records import texts_in
from stages.store.specs.build import Build
from stages.store.workspace import Workspace, installation_root
from tests.stages.data.parts import build, real
from tests.stages.helpers import ended, finish, wait_until
from workbench import runs


def folder_of_texts(root: Path, count: int = 60) -> Path:
    root.mkdir()
    for n in range(count):
        (root / f"{n:03}.txt").write_text(f"Document {n}.\n\nIt has words, and the number {n * n}.\n")
    return root


def everything(folder: Path, *sources: Path, **settings: Any) -> tuple[list[str], list[str]]:
    dataset = build(folder, *sources, **settings)
    return list(read_texts(dataset, "train")), list(read_texts(dataset, "val"))


def test_tiny_shakespeare_by_its_tail_is_one_text_and_the_rest(tmp_path: Path) -> None:
    path = real("tinyshakespeare/input.txt")
    text = path.read_bytes().decode()
    border = int(len(text) * 0.9)
    assert everything(tmp_path / "d", path, split="tail:0.1") == ([text[:border]], [text[border:]])


def test_a_large_text_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path: Path) -> None:
    path = real("wikitext2/wikitext2_valid.txt")
    dataset = build(tmp_path / "d", path, split="none", cut=2_000, deduplicate=False)
    texts = list(read_texts(dataset, "train"))
    assert "".join(texts) == path.read_bytes().decode()
    assert len(texts) > 500 and max(map(len, texts)) <= 2_000
    uncut = build(tmp_path / "e", path, split="none", cut=0)
    assert uncut.info.records["train"] == 1


def test_every_document_is_in_one_split_and_the_counts_agree(tmp_path: Path) -> None:
    dataset = build(tmp_path / "d", folder_of_texts(tmp_path / "texts"), split="documents:0.2")
    sides = {side: list(read_records(dataset, side)) for side in ("train", "val")}
    assert sorted(record.source for side in sides.values() for record in side) == [
        f"texts/{n:03}.txt" for n in range(60)
    ]
    for side, rows in sides.items():
        assert dataset.info.records[side] == len(rows) > 0
        assert dataset.info.characters[side] == sum(len(text) for row in rows for text in texts_in(row))
        assert dataset.info.bytes[side] == sum(len(text.encode()) for row in rows for text in texts_in(row))
    assert dataset.info.read == 60 and len(dataset.info.sources) == 60


@pytest.mark.parametrize("split", ["documents:0.2", "tail:0.2", "none"])
def test_the_same_sources_and_settings_give_the_same_digest_anywhere(tmp_path: Path, split: str) -> None:
    here = folder_of_texts(tmp_path / "texts")
    there = Path(shutil.copytree(here, tmp_path / "elsewhere" / "texts"))
    first, second = build(tmp_path / "a", here, split=split), build(tmp_path / "b", there, split=split)
    assert first.info.digest == second.info.digest
    (there / "000.txt").write_text("Another document.")
    assert build(tmp_path / "c", there, split=split).info.digest != first.info.digest
    assert [path.name for path in first.path.iterdir() if path.name.startswith(".")] == []


def test_the_report_tells_what_was_removed_and_what_could_not_be_read(tmp_path: Path) -> None:
    root = folder_of_texts(tmp_path / "texts")
    (root / "again.txt").write_text((root / "000.txt").read_text())
    (root / "bell.txt").write_text("ding\x07 dong")
    (root / "broken.txt").write_bytes(b"one\ntwo\n\xff\n")
    (root / "rows.jsonl").write_text('{"text": "good row"}\n{"words": 1}\n')
    info = build(tmp_path / "d", root, split="documents:0.2").info
    filters = {line.name: line for line in info.filters}
    assert filters["duplicates"].removed == 1 and filters["duplicates"].examples[0].startswith("Document 0.")
    assert filters["control characters"].changed == 1 and "ding" in filters["control characters"].examples[0]
    assert [(Path(p.file).name, p.line, p.field) for p in info.problems] == [
        ("broken.txt", 3, ""),
        ("rows.jsonl", 2, "text"),
    ]
    assert sum(info.records.values()) == 62 and info.problem_count == 2


def broken_utf8(folder: Path) -> Path:
    (folder / "broken.txt").write_bytes(b"fine\n\xff\n")
    return folder / "broken.txt"


def binary(folder: Path) -> Path:
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\0\0")
    return folder / "photo.png"


def empty(folder: Path) -> Path:
    (folder / "empty.txt").touch()
    return folder / "empty.txt"


def empty_folder(folder: Path) -> Path:
    (folder / "hollow").mkdir()
    return folder / "hollow"


def missing(folder: Path) -> Path:
    return folder / "missing.txt"


def one_document(folder: Path) -> Path:
    (folder / "one.txt").write_text("A single document.")
    return folder / "one.txt"


def one_good_one_bad(folder: Path) -> Path:
    (folder / "two.jsonl").write_text('{"text": "A single document."}\n{"text": "cut o\n')
    return folder / "two.jsonl"


BAD: list[tuple[Callable[[Path], Path], str]] = [
    (missing, "no file or folder"),
    (binary, "not text"),
    (broken_utf8, "broken.txt, line 2"),
    (empty, "no text"),
    (empty_folder, "no text"),
    (one_document, "validation"),
    (one_good_one_bad, "two.jsonl, line 2"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input_ends_in_one_clear_line(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(UserError) as error:
        build(tmp_path / "d", make(tmp_path))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_bad_line_is_blamed_before_the_split(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        build(tmp_path / "d", one_good_one_bad(tmp_path))
    assert str(error.value).index("line 2") < str(error.value).index("the 1 document left cannot be split")


def test_a_failed_build_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws").ensure()
    run = runs.launch(workspace, "build", "notes", {"sources": [str(one_document(tmp_path))]})
    wait_until(lambda: ended(run))
    state = run.state()
    assert run.status(state) == "failed" and state.error is not None
    assert "no validation documents" in state.error.message and "tail:0.1" in state.error.hint
    assert "Traceback" not in run.log.read_text()
    assert leftovers(workspace) == []


def test_a_built_dataset_is_listed_with_its_report(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws").ensure()
    source = folder_of_texts(tmp_path / "texts")
    run = finish(runs.launch(workspace, "build", "notes", {"sources": [str(source)], "split": "documents:0.2"}))
    dataset = find_dataset(workspace, "notes")
    assert run.state().result == {"dataset": "notes", "kind": "text", "records": dataset.info.records}
    assert dataset.info.run == run.id and run.state().unit == "bytes"
    (idle,) = (line for line in run.log.read_text().splitlines() if line.startswith("nothing to clean by: "))
    assert "line endings" in idle and idle.endswith("duplicates")


def large_text(path: Path, megabytes: int) -> Path:
    with path.open("w") as file:
        for n in range(megabytes * 10_000):
            file.write(f"line {n:>10} with a few more words, so that it has about 100 characters: {n * n:>25}\n\n")
    return path


def leftovers(workspace: Workspace) -> list[str]:
    return [path.name for path in workspace.datasets.iterdir() if path.is_dir()]


def started_on(workspace: Workspace, source: Path) -> runs.RunDir:
    """A build that is busy writing records."""
    run = runs.launch(workspace, "build", "large", {"sources": [str(source)], "deduplicate": False})
    wait_until(lambda: any(workspace.datasets.glob(".tmp-large-*/records/*.parquet")), what="the first records")
    return run


def test_cancelling_leaves_nothing_half_made(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws").ensure()
    run = started_on(workspace, large_text(tmp_path / "large.txt", 30))
    runs.stop(run)
    wait_until(lambda: ended(run))
    assert run.status() == "stopped" and leftovers(workspace) == []


def test_a_killed_build_leaves_nothing_that_is_listed_and_can_be_done_again(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws").ensure()
    source = large_text(tmp_path / "large.txt", 20)
    run = started_on(workspace, source)
    os.kill(run.state().pid or 0, signal.SIGKILL)
    wait_until(lambda: not run.alive())
    assert run.status() == "lost" and list_datasets(workspace) == []
    runs.start(run)
    finish(run)
    assert leftovers(workspace) == ["large"]
    assert find_dataset(workspace, "large").info.problem_count == 0


def test_two_builds_of_one_name_at_once_end_in_one_clear_line(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws").ensure()
    with building(workspace.datasets, "notes", "dataset") as folder:
        run = runs.launch(workspace, "build", "notes", {"sources": [str(folder_of_texts(tmp_path / "texts"))]})
        wait_until(lambda: ended(run))
        error = run.state().error
        assert error is not None and "Another process is building" in error.message
        (folder / "mine").touch()
    assert [path.name for path in (workspace.datasets / "notes").iterdir()] == ["mine"]


def test_replacing_keeps_the_old_dataset_until_the_new_one_is_whole(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws").ensure()
    source = folder_of_texts(tmp_path / "texts")
    settings = {"sources": [str(source)], "split": "documents:0.2"}
    run = finish(runs.launch(workspace, "build", "notes", settings))
    before = find_dataset(workspace, "notes").info.digest
    runs.start(run)
    wait_until(lambda: ended(run))
    assert run.status() == "failed" and find_dataset(workspace, "notes").info.digest == before
    for path in source.iterdir():
        path.unlink()
    with (
        pytest.raises(UserError),
        building(workspace.datasets, "notes", "dataset", replace=True) as folder,
    ):
        build_dataset(folder, "notes", Build(sources=[str(source)]), lambda phase, done, total: None)
    assert find_dataset(workspace, "notes").info.digest == before


def test_a_full_disk_is_named_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path / "ws").ensure()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RecordWriter, "_flush", full)
    with pytest.raises(WorkFailed, match="full"), building(workspace.datasets, "notes", "dataset") as folder:
        settings = Build(sources=[str(folder_of_texts(tmp_path / "texts"))])
        build_dataset(folder, "notes", settings, lambda phase, done, total: None)
    assert leftovers(workspace) == []


def test_records_that_the_disk_does_not_take_are_one_sentence_and_leave_the_old_dataset(tmp_path: Path) -> None:
    workspace, texts = Workspace(tmp_path / "ws").ensure(), folder_of_texts(tmp_path / "texts")
    dice = random.Random(0)
    (texts / "noise.txt").write_text("".join(chr(dice.randrange(0x4E00, 0x9000)) for _ in range(100_000)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with building(workspace.datasets, "notes", "dataset") as folder:
        (folder / "dataset.json").write_bytes(b"{}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with (
            pytest.raises(WorkFailed, match="allows no larger file") as caught,
            building(workspace.datasets, "notes", "dataset", replace=True) as folder,
        ):
            build_dataset(folder, "notes", Build(sources=[str(texts)]), lambda phase, done, total: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(workspace.datasets) in caught.value.title
    assert (workspace.datasets / "notes" / "dataset.json").read_bytes() == b"{}"
    assert leftovers(workspace) == ["notes"]


def test_too_little_space_is_noticed_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.store.files.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(WorkFailed, match="needed on the disk"):
        build(tmp_path / "d", folder_of_texts(tmp_path / "texts"))
    assert not (tmp_path / "d" / "records").exists()


MEASURE = """
import json, resource, sys
from pathlib import Path
from stages.build import build_dataset
from stages.store.records import texts_in
from stages.store.specs.build import Build
folder = Path(sys.argv[1])
folder.mkdir()
settings = Build(sources=sys.argv[3:], split=sys.argv[2])
info = build_dataset(folder, "d", settings, lambda phase, done, total: None)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"peak": peak / 1e3, "problems": info.problem_count, "records": sum(info.records.values())}))
"""


def measured(folder: Path, split: str, *sources: Path) -> dict[str, float]:
    """Peak memory in MB, problems and records of a build in a process of its own."""
    command = [sys.executable, "-c", MEASURE, str(folder), split, *map(str, sources)]
    done = subprocess.run(command, cwd=installation_root(), capture_output=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def test_a_line_of_100_mb_is_reported_and_takes_no_memory(tmp_path: Path) -> None:
    small, text, rows = large_text(tmp_path / "a.txt", 1), tmp_path / "b.txt", tmp_path / "c.jsonl"
    text.write_bytes(b"first\n" + b"x" * 100_000_000 + b"\nlast\n")
    rows.write_bytes(b'{"text": "' + b"x" * 100_000_000 + b'"}\n{"text": "last row"}\n')
    base = measured(tmp_path / "base", "documents:0.1", small)
    found = measured(tmp_path / "long", "documents:0.1", small, text, rows)
    assert found["problems"] == 2 and found["records"] == base["records"] + 2
    assert found["peak"] - base["peak"] < 70


@pytest.mark.parametrize("split", ["documents:0.1", "tail:0.1"])
def test_memory_does_not_grow_with_the_sources(tmp_path: Path, split: str) -> None:
    base = measured(tmp_path / "base", split, large_text(tmp_path / "a.txt", 12))
    found = measured(tmp_path / "large", split, large_text(tmp_path / "b.txt", 48))
    assert found["peak"] - base["peak"] < 30


OF_EACH_KIND: dict[str, dict[str, Any]] = {
    "text": {"text": "A text with the number {n}."},
    "chat": {"prompt": "What is {n}?", "completion": "A number."},
    "preference": {"prompt": "What is {n}?", "chosen": "A number.", "rejected": "A colour."},
    "prompts": {"prompt": "What is {n}?"},
    "labelled": {"text": "The number {n}.", "label": "number"},
}


def rows_of(path: Path, kind: str, count: int = 60) -> Path:
    template = json.dumps(OF_EACH_KIND[kind])
    path.write_text("".join(template.replace("{n}", str(n)) + "\n" for n in range(count)))
    return path


@pytest.mark.parametrize("kind", OF_EACH_KIND)
def test_every_kind_builds_to_the_same_digest_twice_and_to_another_for_another_record(
    tmp_path: Path, kind: str
) -> None:
    path = rows_of(tmp_path / "rows.jsonl", kind)
    first, second = (build(tmp_path / name, path) for name in ("a", "b"))
    assert first.info.kind == kind and first.info.digest == second.info.digest
    assert sum(first.info.records.values()) == 60 and min(first.info.records.values()) > 0
    for side, count in first.info.records.items():
        assert len(list(read_records(first, side))) == count
    rows_of(path, kind, 61)
    assert build(tmp_path / "c", path).info.digest != first.info.digest


def test_the_end_of_a_text_is_no_split_for_other_kinds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="records of kind chat"):
        build(tmp_path / "d", rows_of(tmp_path / "rows.jsonl", "chat"), split="tail:0.1")


KILLED = """
import os, signal, sys
left = int(sys.argv[1])

def count(event, arguments):
    global left
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "pyarrow"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

from pathlib import Path
import pyarrow.parquet as pq
from stages.build import build_dataset
from stages.store.building import building
from stages.store.records import texts_in
from stages.store.specs.build import Build
write = pq.ParquetWriter.write_table
close = pq.ParquetWriter.close
pq.ParquetWriter.write_table = lambda *args, **rest: (count("pyarrow", ()), write(*args, **rest))[1]
pq.ParquetWriter.close = lambda *args, **rest: (count("pyarrow", ()), close(*args, **rest))[1]
sys.addaudithook(count)
with building(Path(sys.argv[2]), "d", "dataset", replace=True) as folder:
    build_dataset(folder, "d", Build(sources=[sys.argv[3]]), lambda phase, done, total: None)
"""


def killed(workspace: Workspace, source: Path, after: int) -> bool:
    """Build, and be killed before the write, rename or removal of that number; whether it came to that."""
    command = [sys.executable, "-c", KILLED, str(after), str(workspace.datasets), str(source)]
    done = subprocess.run(command, cwd=installation_root(), capture_output=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0


def survive_kills(folder: Path, kind: str, every: int) -> None:
    """Kill replacements of a dataset at every so-manieth write: the old one or the new one is there, whole."""
    workspace = Workspace(folder / "ws").ensure()
    old, new = rows_of(folder / "old.jsonl", kind, 40), rows_of(folder / "new.jsonl", kind, 50)
    digests = {build(folder / path.stem, path).info.digest for path in (old, new)}
    assert not killed(workspace, old, 10_000)
    shutil.copytree(workspace.datasets / "d", folder / "kept")
    after = 0
    while killed(workspace, new, after):
        dataset = find_dataset(workspace, "d")
        assert dataset.info.digest in digests
        read = sum(len(list(read_records(dataset, side))) for side in ("train", "val"))
        assert read == sum(dataset.info.records.values()) in (40, 50)
        assert leftovers(workspace) == ["d"]
        shutil.rmtree(workspace.datasets / "d")
        shutil.copytree(folder / "kept", workspace.datasets / "d")
        after += every
    assert find_dataset(workspace, "d").info.records != {} and after > 2 * every


def test_a_kill_while_replacing_leaves_the_old_dataset_or_the_new_one(tmp_path: Path) -> None:
    survive_kills(tmp_path, "preference", 8)


@pytest.mark.soak
@pytest.mark.parametrize("kind", OF_EACH_KIND)
def test_a_kill_at_each_write_leaves_the_old_dataset_or_the_new_one(tmp_path: Path, kind: str) -> None:
    survive_kills(tmp_path, kind, 1)
