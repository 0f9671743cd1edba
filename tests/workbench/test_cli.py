"""The command line: what it prints, what it refuses and with which exit code, and what it leaves running."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stages.store.bin import list_bin
from stages.store.checkpoints import list_checkpoints
from stages.store.datasets import find_dataset, list_datasets
from stages.store.files import drop_torn_line
from stages.store.lineage import delete_run
from stages.store.rundir import RunError, find_run, list_runs
from stages.store.tokenizers import find_tokenizer, list_tokenizers
from stages.store.workspace import Workspace, installation_root
from tests.workbench.conftest import add_dataset, add_run
from workbench import __main__ as entry
from workbench.cli import progress

Result = tuple[int, str, str]
Command = Callable[..., Result]
TEXT = "\n\n".join(f"Line {number} of a small text about the sea and the moon." for number in range(400))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workspace: Workspace) -> Command:
    """Run `workbench ARGUMENTS` in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["workbench", *arguments])
        code = entry.main()
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "sea.txt"
    path.write_text(TEXT, "utf-8")
    return path


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(installation_root()), "OMP_NUM_THREADS": "1", **changes}


def spawn(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """`workbench ARGUMENTS` as a process of its own."""
    command = [sys.executable, "-P", "-m", "workbench", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(), **{**pipes, **options})


def until(fact: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.02)
    return found


def one_line(text: str) -> str:
    assert text.endswith("\n")
    assert text.count("\n") == 1, text
    assert text.startswith("error: ")
    return text


# --- the whole life


def test_from_a_text_to_a_completion(command: Command, text: Path, workspace: Workspace) -> None:
    code, out, err = command("data", "build", str(text), "--name", "sea", "--split", "tail:0.1")
    assert code == 0, err
    assert "Built the dataset sea" in out
    assert find_dataset(workspace, "sea").info.split == "tail:0.1"

    code, out, err = command("tokenizer", "train", "--data", "sea", "--vocab-size", "270", "--name", "sea-bpe")
    assert code == 0, err
    assert find_tokenizer(workspace, "sea-bpe").info.vocab_size == 270

    sizes = ["layers=1", "heads=2", "width=16", "context=16", "batch_size=2", "steps=4", "eval_tokens=64", "threads=1"]
    options = [part for size in [*sizes, "sample_tokens=4"] for part in ("--set", size)]
    code, out, err = command(
        "train", "pretrain", "--data", "sea", "--tokenizer", "sea-bpe", "--name", "first", *options
    )
    assert code == 0, err
    assert "finished at step 4: val/loss" in out
    assert "4/4 steps" in err

    taught = ["--from", "first", "--set", "steps=2", "--set", "threads=1", "--set", "device=cpu", "--set", "alpha=1"]
    code, _, err = command("train", "distill", "--data", "sea", *taught)
    assert code == 2 and "Missing option '--teacher'" in err
    code, out, err = command("train", "distill", "--data", "sea", "--teacher", "first@4", "--name", "pupil", *taught)
    assert code == 0, err
    assert "pupil: from first at step 4, on sea, teacher first@4." in out
    parents = json.loads(command("runs", "show", "pupil", "--json")[1])["parents"]
    assert parents["teacher"]["name"].endswith("step-4") and parents["teacher"]["state"] == "present"

    code, out, err = command(
        "chat", "first", "--once", "Line 7", "--set", "max_new_tokens=24", "--set", "seed=1", "--device", "cpu"
    )
    assert code == 0, err
    assert out.strip()

    code, out, err = command("runs", "show", "first", "--json")
    shown = json.loads(out)
    assert shown["status"] == "finished"
    assert shown["parents"]["dataset"] == {**shown["parents"]["dataset"], "name": "sea", "state": "present"}
    assert [checkpoint["step"] for checkpoint in shown["checkpoints"]] == [4]


def test_a_run_is_steered_by_commands(command: Command, text: Path, workspace: Workspace) -> None:
    assert command("data", "build", str(text), "--name", "sea", "--split", "tail:0.1")[0] == 0
    assert command("tokenizer", "train", "--data", "sea", "--type", "byte", "--name", "bytes")[0] == 0
    sizes = ["layers=1", "heads=2", "width=16", "context=16", "batch_size=2", "eval_tokens=64", "threads=1"]
    endless = ["steps=10000000", "eval_every=10000000", "sample_every=0", "checkpoint_every=10000000"]
    options = [part for size in [*sizes, *endless] for part in ("--set", size)]
    train = ["train", "pretrain", "--data", "sea", "--tokenizer", "bytes", "--name", "long", "--detach", *options]
    assert command(*train)[0] == 0
    run = find_run(workspace, "long")
    until(lambda: run.state().step > 0)
    assert "is at work" in one_line(command("runs", "delete", "long")[2])
    assert "needed by run 'long'" in one_line(command("tokenizer", "delete", "bytes")[2])

    assert command("runs", "set", "long", "lr=0.0005")[0] == 0
    until(lambda: run.events.exists() and b'"lr":0.0005' in run.events.read_bytes())
    assert command("runs", "checkpoint", "long")[0] == 0
    until(lambda: list_checkpoints(run))

    code, out, err = command("runs", "pause", "long")
    assert code == 0, err
    assert out.startswith("long: paused")
    reached = run.state().step
    code, _, err = command("runs", "resume", "long", "--detach")
    assert code == 0, err
    until(lambda: run.state().step > reached)
    code, out, err = command("runs", "stop", "long")
    assert code == 0, err
    assert out.startswith("long: stopped")
    assert list_checkpoints(run)[-1].step == run.state().step


def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Press ctrl+c, and again where the first was lost on a busy moment; what the process has said at its end."""
    for _ in range(6):
        process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            continue
    pytest.fail("ctrl+c did not end the wait")


def test_interrupting_the_wait_leaves_the_run_at_work(tmp_path: Path, text: Path, workspace: Workspace) -> None:
    (tmp_path / "long").mkdir()
    for number in range(2_000):
        (tmp_path / "long" / f"{number}.txt").write_text(f"{number} {TEXT}")
    listen = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    options = {"start_new_session": True, "preexec_fn": listen}
    waiting = spawn("data", "build", str(tmp_path / "long"), "--name", "long", **options)
    until(lambda: any(run.state().status == "running" for run in list_runs(workspace)))
    (run,) = list_runs(workspace)
    worker = run.state().pid
    assert worker is not None
    os.kill(worker, signal.SIGSTOP)  # so that the work cannot end before the wait for it is interrupted
    try:
        assert waiting.stderr is not None
        until(lambda: "running" in waiting.stderr.readline())
        _, err = interrupted(waiting)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert waiting.returncode == 130, err
    assert "Detached" in err
    assert "workbench runs attach long" in err
    run = find_run(workspace, "long")
    assert run.alive() or run.state().status == "finished"
    assert spawn("runs", "attach", "long").wait(timeout=120) == 0
    assert run.status() == "finished"
    assert [dataset.name for dataset in list_datasets(workspace)] == ["long"]


def test_detach_returns_before_the_work_is_done(command: Command, text: Path, workspace: Workspace) -> None:
    code, out, _ = command("data", "build", str(text), "--name", "sea", "--detach")
    assert code == 0
    assert "workbench runs attach sea" in out
    assert until(lambda: find_run(workspace, "sea").status() == "finished")


def test_progress_is_redrawn_in_one_line_on_a_terminal(text: Path, workspace: Workspace) -> None:
    ours, theirs = pty.openpty()
    process = spawn("data", "build", str(text), "--name", "sea", stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 65_536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not data:
            break
        shown += data
    os.close(ours)
    assert process.wait(timeout=120) == 0
    lines = shown.decode().rstrip("\r\n").split("\n")
    assert len(lines) == 1
    assert "finished" in lines[0].split("\r")[-1]


# --- what the tables say


def test_tables_are_also_lists_of_objects_with_name_and_kind(command: Command, populated: Workspace) -> None:
    for arguments in (["data", "list"], ["tokenizer", "list"], ["runs"], ["models"]):
        code, out, _ = command(*arguments)
        assert code == 0
        heading = re.split(r"  +", out.splitlines()[0])
        assert heading[:2] == ["name", "kind"]
        rows = json.loads(command(*arguments, "--json")[1])
        assert len(rows) == len(out.splitlines()) - 1
        assert all(row["name"] and row["kind"] for row in rows)


def test_a_lost_run_is_shown_as_lost(command: Command, populated: Workspace) -> None:
    rows = {row["name"]: row for row in json.loads(command("runs", "--json")[1])}
    assert rows["cut-off"]["status"] == "lost"
    assert rows["too-hot"]["error"] == "The loss is not finite at step 212."
    assert "Lower lr" in command("runs", "show", "too-hot")[1]


def test_figures_that_a_rewind_took_back_are_not_shown(command: Command, populated: Workspace) -> None:
    run = find_run(populated, "world-tiny")
    rows = ['{"step": 5, "train/loss": 2.5}', '{"step": 9, "train/loss": 9.5, "val/loss": 8.5}', '{"rewind_to": 5}']
    run.metrics.write_text("\n".join([*rows, '{"step": 6, "lr"']))
    assert json.loads(command("runs", "show", "world-tiny", "--json")[1])["metrics"] == {"train/loss": 2.5}


def test_an_unreadable_run_does_not_hide_the_others(command: Command, populated: Workspace) -> None:
    broken = add_run(populated, "pretrain", "broken")
    (broken.path / "state.json").write_text("{")
    code, out, _ = command("runs")
    assert code == 0
    assert "unreadable" in out
    assert "world-tiny" in out


def test_a_report_names_what_was_removed_and_what_could_not_be_read(command: Command, populated: Workspace) -> None:
    out = command("data", "show", "notes")[1]
    assert "41 removed" in out
    assert "The sky is blue." in out
    assert "notes.jsonl: line 10, text: the field is missing" in out
    assert json.loads(command("data", "show", "notes", "--json")[1])["problem_count"] == 3


def test_the_presets_have_their_exact_counts(command: Command) -> None:
    rows = {row["name"]: row["parameters"] for row in json.loads(command("models", "--json")[1])}
    assert rows["gpt2-small"] == 124_439_808
    assert "124,439,808" in command("models")[1]


def test_help_names_every_setting_with_its_default(command: Command) -> None:
    code, out, _ = command("train", "pretrain", "--help")
    assert code == 0
    assert re.search(r"\blr +Peak learning rate of AdamW", out)
    assert "default 0.1" in out


def test_help_tells_every_command_by_a_whole_sentence_in_the_order_of_a_life(command: Command) -> None:
    _, out, _ = command("--help")
    listed = re.findall(r"^  ([a-z-]+)  ", out.partition("Commands:")[2], re.MULTILINE)
    assert [name for name in listed if name in ("data", "tokenizer", "train", "evaluate", "labels", "chat")] == [
        "data",
        "tokenizer",
        "train",
        "evaluate",
        "labels",
        "chat",
    ]
    told = out + command("train", "--help")[1]
    assert not re.search(r"\w\.\.\.$", told, re.MULTILINE), "a sentence is cut"
    assert "which of two completions people prefer." in " ".join(told.split())


def test_help_writes_a_default_on_one_line(command: Command) -> None:
    out = command("in-context", "--help")[1]
    assert r"default \n\n,\nQuestion:]" in " ".join(out.split())
    assert "default empty" in out and "default ]" not in " ".join(out.split())


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "build", "/no/such/file", "--name", "x"], "There is no file or folder '/no/such/file'."),
        (["data", "build", "starter:world", "--name", "../x"], "cannot be the name of a dataset"),
        (["data", "build", "--name", "x"], "No source is given."),
        (["data", "build", "starter:world"], "The new dataset has no name."),
        (["data", "build", "starter:world", "--name", "x", "--split", "half"], "'split' is 'half'"),
        (["data", "build", "starter:world", "--name", "x", "--set", "sede=3"], "Did you mean 'seed'?"),
        (["data", "build", "starter:world", "--name", "world"], "There is already a dataset 'world'."),
        (["data", "show", "wrld"], "There is no dataset 'wrld'. Did you mean 'world'?"),
        (["tokenizer", "train", "--data", "world", "--name", "t", "--type", "bep"], "Did you mean 'bpe'?"),
        (
            ["tokenizer", "train", "--data", "world", "--name", "t", "--vocab-size", "3"],
            "expected a whole number from 260",
        ),
        (["tokenizer", "train", "--data", "nil", "--name", "t"], "There is no dataset 'nil'."),
        (["runs", "stop", "world-tiny"], "is not at work. It is finished."),
        (["runs", "show", "world-tyni"], "Did you mean 'world-tiny'?"),
        (["runs", "resume", "world-tiny"], "is finished"),
        (["runs", "set", "world-tiny", "steps=3"], "cannot be changed"),
        (["runs", "set", "world-tiny", "lr=3"], "expected a number from 0 to 1"),
        (["chat", "nobody"], "There is no run 'nobody'."),
        (["chat", "world-tiny@7"], "has no checkpoint at step 7. It has: 2000."),
        (["chat", "world-tiny", "--set", "top_p=2", "--once", "x"], "'top_p' is 2"),
        (["rns"], "Did you mean 'runs'?"),
        (["data", "list", "--jsno"], "No such option"),
        (["chat", "~nosuchuser/x", "--once", "x"], "no such user"),
        (["chat", "n" * 300, "--once", "x"], "file name too long"),
        (["data", "check", "n" * 300], "file name too long"),
        (["data", "build", "n" * 300, "--name", "x"], "file name too long"),
        (["labels", "import", "~nosuchuser/x", "--name", "x"], "no such user"),
        (["labels", "export", "n" * 300], "file name too long"),
        (["score", "world-tiny", "--file", "~nosuchuser/x"], "no such user"),
        (["tokenizer", "import", "~nosuchuser/x", "--name", "x"], "no such user"),
        (["runs", "note", "world-tiny", "\udcff"], "is not in UTF-8"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(
    command: Command, populated: Workspace, arguments: list[str], message: str
) -> None:
    before = [run.id for run in list_runs(populated)]
    code, out, err = command(*arguments)
    assert code == 2
    assert out == ""
    assert message in one_line(err)
    assert [run.id for run in list_runs(populated)] == before, "nothing was started"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["preset=tyni"], "There is no preset named 'tyni'. Did you mean 'tiny'?"),
        (["heads=3"], "`heads` must divide `width`"),
        (["stps=3"], "Did you mean 'steps'?"),
        (["steps=3.5"], "expected a whole number"),
        (["lr"], "expected KEY=VALUE"),
    ],
)
def test_training_is_refused_before_anything_starts(
    command: Command, populated: Workspace, settings: list[str], message: str
) -> None:
    before = [run.id for run in list_runs(populated)]
    pairs = [part for pair in settings for part in ("--set", pair)]
    code, _, err = command("train", "pretrain", "--data", "world", "--tokenizer", "world-bpe", *pairs)
    assert code == 2
    assert message in one_line(err)
    assert [run.id for run in list_runs(populated)] == before


def test_a_file_without_text_ends_in_one_line_and_leaves_nothing(
    command: Command, tmp_path: Path, workspace: Workspace
) -> None:
    (tmp_path / "empty.txt").touch()
    code, _, err = command("data", "build", str(tmp_path / "empty.txt"), "--name", "empty")
    assert code == 2
    one_line(err.splitlines()[-1] + "\n")
    assert list_datasets(workspace) == []
    assert not list(workspace.datasets.glob(".tmp-*"))


def test_a_run_that_failed_is_told_with_its_own_words(command: Command, populated: Workspace) -> None:
    code, _, err = command("runs", "attach", "too-hot")
    assert code == 1
    assert err.splitlines()[-1] == "error: The loss is not finite at step 212. Lower lr, or raise warmup."
    code, _, err = command("runs", "attach", "cut-off")
    assert code == 1
    assert "workbench runs resume cut-off" in err


def test_settings_of_the_nearest_file_reach_the_run_and_options_go_before(
    command: Command, text: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text.parent / "workbench.toml").write_text("[build]\nseed = 5\nmin_characters = 2")
    monkeypatch.chdir(text.parent)
    code, _, err = command("data", "build", "sea.txt", "--name", "sea", "--split", "none", "--set", "seed=6")
    assert code == 0, err
    settings = find_run(workspace, "sea").spec().settings
    assert (settings["seed"], settings["min_characters"]) == (6, 2)
    (text.parent / "workbench.toml").write_text("[build]\nsede = 5")
    code, _, err = command("data", "list")
    assert code == 2
    assert "unknown key 'build.sede'. Did you mean 'seed'?" in one_line(err)


def test_a_mistake_of_ours_is_one_line_that_names_the_traceback(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("workbench.cli.data.list_datasets", lambda workspace: 1 / 0)
    code, _, err = command("data", "list")
    assert code == 1
    path = Path(re.findall(r"The traceback is in (\S+)\.$", one_line(err).rstrip())[0])
    assert tmp_path in path.parents
    assert "ZeroDivisionError" in path.read_text()


def test_the_app_without_a_terminal_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "workbench"],
        env=environment(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert "needs a terminal" in one_line(done.stderr)


def test_warnings_are_told_from_where_a_killed_worker_left_off(populated: Workspace) -> None:
    run = find_run(populated, "cut-off")
    run.append_event("warning", message="old")
    with run.events.open("ab") as events:
        events.write(b'{"event":"warning","message":"to')  # killed while it wrote
    warnings = progress._Warnings(run.events)
    assert warnings.new() == []
    drop_torn_line(run.events)
    for message in ("a long new one", "another"):
        run.append_event("warning", message=message)
    assert warnings.new() == ["a long new one", "another"]


def test_a_reader_that_leaves_early_is_no_error(populated: Workspace) -> None:
    process = spawn("data", "show", "notes", stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=120) == 0


# --- what acts on the workspace


def test_deleting_names_what_is_in_the_way(command: Command, populated: Workspace) -> None:
    code, _, err = command("data", "delete", "world")
    assert code == 2
    assert "needed by tokenizer 'world-bpe'" in one_line(err)
    for run in ("too-hot", "cut-off", "world-tiny"):
        assert command("runs", "delete", run)[0] == 0
    assert command("tokenizer", "delete", "world-bpe")[0] == 0
    assert command("data", "delete", "world")[0] == 0
    assert [dataset.name for dataset in list_datasets(populated)] == ["notes"]
    assert list_tokenizers(populated) == []


@pytest.mark.parametrize(("typed", "left"), [(b"n\n", 1), (b"\x03", 1), (b"y\n", 0)])
def test_who_sits_at_a_terminal_is_asked_though_what_is_printed_goes_elsewhere(
    populated: Workspace, typed: bytes, left: int
) -> None:
    delete_run(populated, "cut-off")
    ours, theirs = pty.openpty()
    process = spawn("bin", "empty", stdin=theirs, stderr=theirs, start_new_session=True, preexec_fn=control_terminal)
    os.close(theirs)
    asked = b""
    while b"for good? [y/N]" not in asked:
        asked += os.read(ours, 1_000)
    for _ in range(20):  # an interrupt just before Python begins to read is seen only with the next one
        os.write(ours, typed)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
            break
    assert process.wait(timeout=10) == (130 if left else 0)
    os.close(ours)
    assert len(list_bin(populated)) == left


def control_terminal() -> None:
    """Have what stdin is as the terminal from which ctrl+c comes."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_foreign_text_reaches_the_terminal_as_visible_symbols(command: Command, workspace: Workspace) -> None:
    add_dataset(workspace, "hostile", sources=["/tmp/\x1b]0;owned\x07name.txt"])
    error = RunError("UserError", "bad \x1b[2Jline\nnext", "hint \x9b31m")
    add_run(workspace, "pretrain", "evil", "failed", error=error)
    for arguments in (["data", "show", "hostile"], ["runs", "show", "evil"], ["runs", "attach", "evil"]):
        _, out, err = command(*arguments)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out + err), arguments


def test_logs_go_byte_for_byte_to_a_pipe_and_are_made_visible_on_a_terminal(populated: Workspace) -> None:
    run = find_run(populated, "world-tiny")
    run.log.write_bytes(b"first\n\x1b[2J \xff\n")
    assert (
        spawn("runs", "logs", "world-tiny", "--follow", text=False).communicate(timeout=120)[0] == run.log.read_bytes()
    )
    ours, theirs = pty.openpty()
    assert spawn("runs", "logs", "world-tiny", stdout=theirs).wait(timeout=120) == 0
    os.close(theirs)
    assert os.read(ours, 1_000) == "first\r\n␛[2J \\xff\r\n".encode()
    os.close(ours)


# --- what sources hold


def test_a_dry_run_shows_what_would_be_read_and_builds_nothing(
    command: Command, workspace: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("frage,antwort,id\n2+2?,4,a\nWhy?,So.,b\n")
    code, _, err = command("data", "build", str(path), "--dry-run")
    assert code == 2 and "its fields are: frage, antwort, id" in one_line(err)
    code, out, err = command(
        "data", "build", str(path), "--dry-run", "--map", "prompt=frage", "--map", "completion=antwort"
    )
    assert code == 0, err
    assert "chat records, from 1 file" in out and "frage as prompt, antwort as completion" in out
    assert "2+2?" in out and "meta    id" in out
    assert not any(workspace.datasets.iterdir()) and not any(workspace.runs.iterdir())


def test_standard_input_is_kept_until_it_has_been_built(command: Command, workspace: Workspace) -> None:
    rows = "".join(f'{{"prompt": "What is {n}?", "completion": "A number."}}\n' for n in range(30))
    for arguments, shows in ((("--dry-run",), "chat records"), (("--name", "piped"), "Built the dataset piped")):
        process = spawn("data", "build", "-", *arguments, stdin=subprocess.PIPE)
        out, err = process.communicate(rows, timeout=60)
        assert process.returncode == 0, err
        assert shows in out
        assert list((workspace.root / "spool").iterdir()) == []
    info = find_dataset(workspace, "piped").info
    assert info.kind == "chat" and sum(info.records.values()) == 30
