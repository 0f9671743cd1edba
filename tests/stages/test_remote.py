"""Models at endpoints: added, chatted with, sampled from and ranked, against our own server and against bad ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stages.data.templates import read_template
from stages.store.chat import Turn
from stages.store.checkpoints import resolve_checkpoint
from stages.store.completions import read_completions
from stages.store.endpoint_http import list_served, stream
from stages.store.endpoints import Endpoint, check_url, endpoint_in
from stages.store.errors import UserError, WorkFailed
from stages.store.rundir import find_run
from stages.store.specs.chat import Chat
from stages.store.workspace import Workspace
from tests.stages.test_serve import TOKEN, start
from tests.stages.test_serve import Endpoint as Served
from tests.tiny_model import write_tiny_checkpoint
from workbench.cli.root import run as command

ASKED = "Hello"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("remote") / "step-3"
    write_tiny_checkpoint(folder, context=128, template=read_template("chatml"))
    started = start(folder)
    yield started
    started.process.terminate()
    started.process.communicate(timeout=60)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "ws"))
    monkeypatch.setenv("THEIR_KEY", TOKEN)
    return Workspace(tmp_path / "ws").ensure()


def test_it_is_added_chatted_with_and_sampled_beside_a_checkpoint(
    served: Served, workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["import", served.url, "--name", "theirs", "--key-env", "THEIR_KEY"]) == 0
    kept = endpoint_in(resolve_checkpoint(workspace, "theirs").path)
    assert kept == Endpoint(url=served.url, model=str(served.folder), key="THEIR_KEY", server="workbench")
    assert TOKEN not in (workspace.models / "theirs" / "endpoint.json").read_text()
    capsys.readouterr()
    assert command(["chat", "theirs", "--once", ASKED, "--set", "max_new_tokens=20", "--set", "seed=4"]) == 0
    said = capsys.readouterr().out
    assert command(["chat", str(served.folder), "--once", ASKED, "--set", "max_new_tokens=20", "--set", "seed=4"]) == 0
    assert said.strip() == capsys.readouterr().out.strip() != ""
    ours = write_tiny_checkpoint(tmp_path / "ours" / "step-1", context=128, seed=1)
    arguments = ["sample", "--from", "theirs", "--from", str(ours), "--prompt", "One", "--prompt", "Two", "-k", "4"]
    assert command([*arguments, "--name", "both", "--set", "max_new_tokens=12"]) == 0
    lines = read_completions(find_run(workspace, "both"))
    assert sorted(line.checkpoint for line in lines) == ["step-1"] * 4 + ["theirs"] * 4
    assert len({line.text for line in lines}) == 8
    assert command(["models"]) == 0
    assert "theirs" in capsys.readouterr().out


def test_what_needs_weights_is_refused_in_a_sentence(served: Served, workspace: Workspace) -> None:
    command(["import", served.url, "--name", "theirs", "--key-env", "THEIR_KEY"])
    with pytest.raises(UserError, match="already a model"):
        command(["import", served.url, "--name", "theirs", "--key-env", "THEIR_KEY"])
    with pytest.raises(UserError, match="weights are not here"):
        command(["inside", "theirs", "a text"])


def test_wrong_addresses_models_and_keys_are_one_line(
    served: Served, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in (
        "http://",
        "ftp://x/v1",
        "http://x:y/v1",
        "http://a b/v1",
        "http://user:key@x/v1",
        "http://x/v1?key=1",
    ):
        with pytest.raises(UserError):
            check_url(wrong)
    with pytest.raises(UserError, match="does not serve 'gpt-9'"):
        command(["import", served.url, "--name", "a", "--model", "gpt-9", "--key-env", "THEIR_KEY"])
    with pytest.raises(UserError, match="answers 401"):
        command(["import", served.url, "--name", "a"])
    with pytest.raises(UserError, match="does not answer"):
        command(["import", "http://127.0.0.1:9/v1", "--name", "a"])
    monkeypatch.delenv("THEIR_KEY")
    with pytest.raises(UserError, match=r"\$THEIR_KEY is not set"):
        command(["import", served.url, "--name", "a", "--key-env", "THEIR_KEY"])
    assert not list(workspace.models.iterdir())


class LlamaCpp(BaseHTTPRequestHandler):
    """llama.cpp's server, as far as a list of models and a streamed answer go."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        models = [{"name": "m", "capabilities": ["completion"]}]
        listed = [{"id": "m", "object": "model", "owned_by": "llamacpp", "meta": {"n_ctx": 256}}]
        self._answer(json.dumps({"models": models, "object": "list", "data": listed}))

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        first = {"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}
        said = {"finish_reason": None, "index": 0, "delta": {"content": "gold"}}
        last = {"finish_reason": "length", "index": 0, "delta": {}}
        usage = {"choices": [], "usage": {"completion_tokens": 1, "prompt_tokens": 23}, "timings": {"predicted_n": 1}}
        events = [*({"choices": [choice]} for choice in (first, said, last)), usage]
        self._answer("".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n")

    def _answer(self, text: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_llama_cpp_is_told_to_choose_its_tokens_as_ours_are_chosen(workspace: Workspace) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), LlamaCpp)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert command(["import", f"http://127.0.0.1:{server.server_port}/v1", "--name", "theirs"]) == 0
    kept = endpoint_in(resolve_checkpoint(workspace, "theirs").path)
    assert kept is not None and kept.server == "llamacpp"
    for settings in (Chat(), Chat(top_k=7)):
        parts = list(stream(kept, [Turn("user", "Which metal?")], settings, 0))
        assert "".join(part.text for part in parts) == "gold" and parts[2].finished == "length"
        assert parts[-1].tokens == 1 and parts[-1].prompt_tokens == 23
    server.shutdown()
    every, seven = LlamaCpp.asked
    assert every["samplers"] == seven["samplers"] == ["top_k", "temperature", "top_p"]
    assert (every["top_k"], seven["top_k"]) == (0, 7), "without it, llama.cpp takes 40"


class Odd(BaseHTTPRequestHandler):
    """An endpoint that does what its path says."""

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        what = self.path.split("/")[1]
        if what == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()
            return
        self.send_response(500 if what == "refuse" else 200)
        self.end_headers()
        bodies: dict[str, Any] = {
            "refuse": b'{"error": {"message": "out of\\nmemory"}}',
            "html": b"<html>hello</html>",
            "cut": b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n',
            "error": b'data: {"error": {"message": "overloaded"}}\n\n',
            "garbage": b"data: {nonsense\n\n",
            "shape": b'data: {"choices": 3}\n\n',
            "empty": b'data: {"choices": [{"delta": {"content": null}, "finish_reason": "stop"}]}\n\n',
        }
        self.wfile.write(bodies[what])

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def odd() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.mark.parametrize(
    ("what", "kind", "sentence"),
    [
        ("refuse", UserError, "answers 500: out of memory"),
        ("redirect", UserError, "answers 302"),
        ("cut", WorkFailed, "broke off in the middle"),
        ("error", UserError, "overloaded"),
        ("garbage", WorkFailed, "broke off"),
        ("shape", WorkFailed, "does not stream"),
        ("html", WorkFailed, "broke off"),
    ],
)
def test_bad_answers_are_told_in_a_sentence(odd: str, what: str, kind: type[UserError], sentence: str) -> None:
    endpoint = Endpoint(url=f"{odd}/{what}", model="m")
    with pytest.raises(kind, match=sentence):
        list(stream(endpoint, "a", Chat(), 0))


def test_an_empty_answer_is_an_answer(odd: str) -> None:
    (part,) = stream(Endpoint(url=f"{odd}/empty", model="m"), "a", Chat(), 0)
    assert (part.text, part.finished) == ("", "stop")


def test_what_is_no_endpoint_lists_nothing(odd: str) -> None:
    with pytest.raises(UserError, match="does not list models"):
        list_served(f"{odd}/html", "")
