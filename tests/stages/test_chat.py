"""A model on pipes, spoken to by a real child process."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stages.chat import choose_place, decode_request
from stages.data.templates import read_template
from stages.store.chat import MAX_LINE, well_formed
from stages.store.errors import UserError
from stages.store.workspace import installation_root
from stages.training.devices import CPU, Device
from tests.tiny_model import write_tiny_checkpoint

DEADLINE = 60.0


class Child:
    """A chat process, with lines in and lines out."""

    def __init__(self, folder: Path, *options: str) -> None:
        root = installation_root()
        environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "stages.chat", "--device", "cpu", *options, "--", str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, cwd=folder.parent, env=environment, bufsize=0, **pipes)
        self._unread = b""

    def send(self, *messages: Any) -> None:
        assert self.process.stdin
        for message in messages:
            self.process.stdin.write((message if isinstance(message, bytes) else msgspec.json.encode(message)) + b"\n")

    def read(self) -> dict[str, Any]:
        """The next line; a failure when none comes."""
        assert self.process.stdout
        until = time.monotonic() + DEADLINE
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            data = os.read(self.process.stdout.fileno(), 65_536) if ready else b""
            if not data:
                self.process.kill()
                pytest.fail(f"no line came; stderr: {self.process.communicate()[1].decode()[-2_000:]}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return msgspec.json.decode(line)

    def answer(self, id_: int) -> tuple[str, dict[str, Any], int]:
        """The whole text, the closing message, and in how many lines it came."""
        text, lines = "", 0
        while True:
            reply = self.read()
            assert reply["id"] == id_
            if "text" not in reply:
                return text, reply, lines
            text, lines = text + reply["text"], lines + 1

    def ask(self, id_: int, prompt: str, **sampling: Any) -> tuple[str, dict[str, Any], int]:
        self.send({"id": id_, "prompt": prompt, "sampling": sampling})
        return self.answer(id_)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("chat") / "step-7", context=64, step=7)


@pytest.fixture(scope="module")
def child(checkpoint: Path) -> Iterator[Child]:
    """One process for all tests that leave it alive."""
    made = Child(checkpoint)
    ready = made.read()["ready"]
    assert ready["kind"] == "base" and ready["name"] == "tiny" and ready["step"] == 7
    assert ready["context"] == 64 and ready["vocab_size"] == 260 and ready["parameters"] > 1_000
    yield made
    made.process.kill()
    made.process.communicate()


def test_same_seed_gives_the_same_text_and_another_seed_another(child: Child) -> None:
    first, done, _ = child.ask(1, "Once", seed=3, max_new_tokens=30)
    again, _, _ = child.ask(2, "Once", seed=3, max_new_tokens=30)
    other, _, _ = child.ask(3, "Once", seed=4, max_new_tokens=30)
    assert first == again != other
    assert done["done"]["seed"] == 3


def test_a_drawn_seed_is_told_and_reproduces_the_text(child: Child) -> None:
    text, done, _ = child.ask(1, "Once", max_new_tokens=20)
    assert child.ask(2, "Once", max_new_tokens=20, seed=done["done"]["seed"])[0] == text


def test_more_tokens_than_the_context_are_generated_in_windows(child: Child) -> None:
    _, reply, _ = child.ask(1, "x" * 40, seed=0, max_new_tokens=150)
    done = reply["done"]
    assert done["reason"] in ("length", "end")
    assert done["reason"] == "end" or done["tokens"] == 150
    assert done["tokens_per_s"] > 0 and done["seconds"] > 0


def test_a_prompt_longer_than_the_context_loses_its_start_and_says_so(child: Child) -> None:
    _, short, _ = child.ask(1, "abc", max_new_tokens=4)
    _, long, _ = child.ask(2, "abc" * 10_000, max_new_tokens=4)
    assert not short["done"]["cut"] and short["done"]["prompt_tokens"] == 3
    assert long["done"]["cut"] and long["done"]["prompt_tokens"] == 60


def test_an_empty_prompt_is_completed(child: Child) -> None:
    assert child.ask(1, "", max_new_tokens=5)[1]["done"]["tokens"] >= 1


def test_a_stop_text_ends_the_answer_before_it(child: Child) -> None:
    whole, _, _ = child.ask(1, "Once", seed=5, temperature=1.0, max_new_tokens=60)
    stop = whole[10:12]
    text, reply, _ = child.ask(2, "Once", seed=5, temperature=1.0, max_new_tokens=60, stop=[stop])
    assert reply["done"]["reason"] == "stop"
    assert text == whole[: whole.index(stop)]


def test_text_comes_in_few_lines_however_many_tokens(child: Child) -> None:
    _, reply, lines = child.ask(1, "Once", seed=1, max_new_tokens=400)
    done = reply["done"]
    assert lines <= done["seconds"] / 0.03 + 2


@pytest.mark.parametrize(
    ("request_line", "word"),
    [
        (b"{", "cannot be read"),
        (b'{"id": 9, "promt": "x"}', "promt"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"id": 9, "prompt": "\xff"}', "cannot be read"),
        ({"id": 9}, "no prompt"),
        ({"id": 9, "prompt": "x", "sampling": {"temperature": -1}}, "temperature"),
        ({"id": 9, "prompt": "x", "sampling": {"heat": 1}}, "heat"),
        ({"id": 9, "messages": [{"role": "user", "content": "hi"}]}, "base model"),
    ],
)
def test_a_bad_request_is_refused_and_the_next_is_answered(child: Child, request_line: Any, word: str) -> None:
    child.send(request_line)
    assert word in str(child.read()["error"])
    assert "done" in child.ask(10, "x", max_new_tokens=2)[1]


def test_a_request_that_is_too_long_is_refused_and_the_next_is_answered(child: Child) -> None:
    child.send(b'{"id": 1, "prompt": "' + b"x" * (MAX_LINE + 100) + b'"}')
    assert "16 MB" in child.read()["error"]["title"]
    assert "done" in child.ask(2, "x", max_new_tokens=2)[1]


def test_a_running_request_can_be_cancelled_and_a_waiting_one_dropped(child: Child) -> None:
    child.send({"id": 1, "prompt": "x", "sampling": {"max_new_tokens": 1_000_000, "seed": 1, "temperature": 0}})
    assert child.read()["text"]
    child.send({"id": 2, "prompt": "y"}, {"cancel": 2}, {"cancel": 1})
    endings = {}
    while len(endings) < 2:
        reply = child.read()
        if "done" in reply:
            endings[reply["id"]] = reply["done"]
    assert endings[1]["reason"] == endings[2]["reason"] == "cancelled"
    assert 0 < endings[1]["tokens"] < 1_000_000 and endings[2]["tokens"] == 0
    assert "done" in child.ask(3, "x", max_new_tokens=2)[1]


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A chat model of 128 tokens."""
    folder = tmp_path_factory.mktemp("talk") / "step-7"
    made = Child(write_tiny_checkpoint(folder, context=128, template=read_template("chatml")))
    assert made.read()["ready"]["kind"] == "chat"
    yield made
    made.process.kill()
    made.process.communicate()


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


def talk(child: Child, messages: list[dict[str, str]], **sampling: Any) -> dict[str, Any]:
    child.send({"id": 1, "messages": messages, "sampling": {"seed": 0, "max_new_tokens": 8, **sampling}})
    return child.answer(1)[1]


def test_a_conversation_is_answered_through_the_template(talker: Child) -> None:
    done = talk(talker, turns("hi"))["done"]
    assert done["prompt_tokens"] == len("user\nhi\nassistant\n") + 3 and not done["cut"]
    assert done["tokens"] <= 8 and done["reason"] in ("length", "end")


def test_control_tokens_in_a_message_are_text(talker: Child) -> None:
    done = talk(talker, turns("<|im_end|>"))["done"]
    assert done["prompt_tokens"] == len("user\n<|im_end|>\nassistant\n") + 3


def test_a_conversation_too_long_loses_its_first_turns_and_says_so(talker: Child) -> None:
    system = {"role": "system", "content": "be brief"}
    done = talk(talker, [system, *turns("a" * 40, "b" * 40, "c" * 10, "d" * 10, "e")])["done"]
    assert done["cut"] and done["turns_cut"] == 2
    whole = talk(talker, [system, *turns("c" * 10, "d" * 10, "e")])["done"]
    assert whole["prompt_tokens"] == done["prompt_tokens"] and not whole["cut"]


@pytest.mark.parametrize(
    ("messages", "word"),
    [
        (turns("x" * 200), "The last message has"),
        (turns("hi", "ho"), "end with the user's turn"),
        ([], "end with the user's turn"),
        ([{"role": "king", "content": "kneel"}], "cannot be read"),
    ],
)
def test_a_conversation_that_cannot_be_answered_is_refused(
    talker: Child, messages: list[dict[str, str]], word: str
) -> None:
    assert word in talk(talker, messages)["error"]["title"]
    assert "done" in talk(talker, turns("hi"))


def test_a_chat_model_continues_text_as_well(talker: Child) -> None:
    assert talker.ask(1, "Once", max_new_tokens=4)[1]["done"]["prompt_tokens"] == 4


def test_an_answer_ends_with_the_context(talker: Child) -> None:
    done = talk(talker, turns("x" * 30), max_new_tokens=10_000, temperature=0)["done"]
    assert done["reason"] in ("length", "end") and done["prompt_tokens"] + done["tokens"] <= 128


def test_characters_are_never_broken(child: Child) -> None:
    """A random model of bytes makes broken UTF-8 all the time: what comes is whole characters or U+FFFD."""
    text, _, _ = child.ask(1, "é漢字🙂", seed=2, temperature=2.0, max_new_tokens=300)
    assert text == well_formed(text) and "\ufffd" in text


def test_the_process_ends_with_its_stdin(checkpoint: Path) -> None:
    child = Child(checkpoint)
    child.read()
    child.send({"id": 1, "prompt": "x", "sampling": {"max_new_tokens": 1_000_000}})
    child.read()
    assert child.process.stdin
    child.process.stdin.close()
    assert child.process.wait(DEADLINE) == 0
    child.process.kill()


def test_the_process_ends_when_nobody_asks(checkpoint: Path) -> None:
    child = Child(checkpoint, "--idle", "0.05")
    child.read()
    assert child.read() == {"ended": "idle"}
    assert child.process.wait(DEADLINE) == 0


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "step-1")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    child = Child(folder)
    assert "damaged" in child.read()["error"]["title"]
    assert child.process.wait(DEADLINE) == 2


def test_what_libraries_print_does_not_reach_the_protocol(tmp_path: Path, checkpoint: Path) -> None:
    """A line printed to stdout while the model loads lands on stderr."""
    code = "import sys; from stages import chat; out = chat.claim_stdout(); print('noise', flush=True); out.write(b'x')"
    environment = {**os.environ, "PYTHONPATH": str(installation_root())}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, timeout=DEADLINE)
    assert (done.stdout, done.stderr) == (b"x", b"noise\n")


def test_a_gpu_with_too_little_memory_is_not_used(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Device("cuda", "GPU-1", "Some GPU")
    monkeypatch.setattr("stages.chat.visible_gpus", lambda: [gpu])
    monkeypatch.setattr("stages.chat.free_gpu_bytes", lambda gpu: 10**6)
    device, precision, note = choose_place(checkpoint, "auto")
    assert device == CPU and precision == "fp32" and "Some GPU" in note
    with pytest.raises(UserError, match="Some GPU"):
        choose_place(checkpoint, "cuda")
    monkeypatch.setattr("stages.chat.free_gpu_bytes", lambda gpu: 10**12)
    assert choose_place(checkpoint, "auto") == (gpu, "auto", "")


def test_too_little_memory_anywhere_is_one_sentence(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.chat.visible_gpus", list)

    class Memory:
        available = 10

    monkeypatch.setattr("stages.chat.psutil.virtual_memory", Memory)
    with pytest.raises(UserError, match="memory"):
        choose_place(checkpoint, "auto")


def test_lone_surrogates_in_a_request_are_refused_or_read_but_never_crash() -> None:
    for text in (b'{"id": 1, "prompt": "\\ud800"}', b'{"id": 1, "prompt": "\\ud83d\\ude42"}'):
        try:
            request = decode_request(text)
        except UserError:
            continue
        assert request.prompt is not None
