"""The endpoint as programs meet it: `workbench serve` in a process, and OpenAI's own client, or raw bytes."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import openai
import pytest
import torch
from transformers import AutoModelForCausalLM

from stages.data.templates import read_template
from stages.data.tokenizer import TextTokenizer
from stages.serve.guard import MAX_BODY
from stages.store.workspace import installation_root
from tests.tiny_model import write_tiny_checkpoint

TOKEN = "a-secret"
CONTEXT = 256


class Endpoint(NamedTuple):
    folder: Path
    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, token: str = TOKEN) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=token, max_retries=0, timeout=60)

    def health(self) -> dict[str, Any]:
        with urlopen(f"http://127.0.0.1:{self.port}/health", timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


def start(folder: Path, *options: str) -> Endpoint:
    """Start `workbench serve` on a free port and wait for its address."""
    environment = {**os.environ, "WORKBENCH_SERVE_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "workbench", "serve", str(folder), "--port", "0", "--device", "cpu", *options]
    process = subprocess.Popen(
        command, cwd=installation_root(), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout
    said = ""
    while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/v1", said)):
        line = process.stdout.readline()
        assert line, said
        said += line
    return Endpoint(folder, int(found[1]), process)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A chat model of random weights."""
    folder = tmp_path_factory.mktemp("serve") / "step-3"
    write_tiny_checkpoint(folder, context=CONTEXT, template=read_template("chatml"))
    started = start(folder, "--slots", "4")
    yield started
    started.process.terminate()
    started.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def model(endpoint: Endpoint) -> str:
    (only,) = endpoint.client().models.list().data
    assert only.id == str(endpoint.folder)
    return only.id


HELLO: list[Any] = [{"role": "user", "content": "Hello, you"}]


def test_a_chat_answer_counts_its_tokens_and_repeats_by_seed(endpoint: Endpoint, model: str) -> None:
    def ask(seed: int) -> Any:
        return endpoint.client().chat.completions.create(model=model, messages=HELLO, max_tokens=12, seed=seed)

    first, again, other = ask(1), ask(1), ask(2)
    assert first.choices[0].message.content == again.choices[0].message.content != other.choices[0].message.content
    assert first.choices[0].message.role == "assistant"
    assert first.choices[0].finish_reason == "length"
    assert first.usage.completion_tokens == 12
    assert first.usage.total_tokens == first.usage.prompt_tokens + 12


def test_a_stream_says_what_the_whole_answer_says(endpoint: Endpoint, model: str) -> None:
    client = endpoint.client()
    asked: dict[str, Any] = {"model": model, "messages": HELLO, "max_tokens": 30, "seed": 5, "n": 2}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3)
    texts, tokens, reasons, usage = ["", ""], [0, 0], [None, None], None
    for chunk in client.chat.completions.create(
        **asked, logprobs=True, top_logprobs=3, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            tokens[choice.index] += len(choice.logprobs.content) if choice.logprobs else 0
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert texts[0] != texts[1]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert tokens == [len(choice.logprobs.content) for choice in whole.choices]
    assert usage and usage.completion_tokens == whole.usage.completion_tokens


def test_logprobs_are_those_of_transformers(endpoint: Endpoint, model: str) -> None:
    tokenizer = TextTokenizer.load(endpoint.folder)
    prompt = tokenizer.encode("All that is gold")
    found = endpoint.client().completions.create(
        model=model, prompt=prompt, max_tokens=1, temperature=0, logprobs=4, echo=True
    )
    told = found.choices[0].logprobs
    theirs = AutoModelForCausalLM.from_pretrained(endpoint.folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logprobs = theirs(torch.tensor([prompt])).logits[0].log_softmax(-1)
    assert told.token_logprobs[0] is None
    assert len(told.tokens) == len(prompt) + 1
    expected = logprobs[:-1].gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
    assert torch.tensor(told.token_logprobs[1:-1]) == pytest.approx(expected, abs=1e-4)
    assert told.token_logprobs[-1] == pytest.approx(float(logprobs[-1].max()), abs=1e-4)
    best = sorted(told.top_logprobs[3].values(), reverse=True)
    assert best == pytest.approx(logprobs[2].topk(4).values.tolist(), abs=1e-4)
    assert found.choices[0].text.startswith("All that is gold")
    assert told.text_offset == [sum(map(len, told.tokens[:n])) for n in range(len(told.tokens))]


def test_a_prompt_may_be_scored_alone_and_several_at_once(endpoint: Endpoint, model: str) -> None:
    found = endpoint.client().completions.create(
        model=model, prompt=["one two", "three"], max_tokens=0, echo=True, logprobs=1
    )
    assert [choice.text for choice in found.choices] == ["one two", "three"]
    assert [len(choice.logprobs.tokens) for choice in found.choices] == [7, 5]
    assert found.usage.completion_tokens == 0


def harness_scores(endpoint: Endpoint, model: str, prompts: Any, read: list[int]) -> list[float]:
    """log p of each prompt beyond its first `read` tokens, asked for and added up as lm-evaluation-harness does it."""
    found = endpoint.client().completions.create(
        model=model, prompt=prompts, temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True
    )
    told = [choice.logprobs for choice in sorted(found.choices, key=lambda choice: choice.index)]
    assert all(each.top_logprobs[-2].keys() for each in told)
    return [sum(each.token_logprobs[start:-1]) for each, start in zip(told, read, strict=True)]


def test_a_harness_finds_the_likelihoods_of_transformers_even_where_the_text_ends(
    endpoint: Endpoint, model: str
) -> None:
    """It drops the last log-probability, that of the one token it must ask for: the end of the text has one too."""
    theirs = AutoModelForCausalLM.from_pretrained(endpoint.folder, dtype=torch.float32).eval()
    end = TextTokenizer.load(endpoint.folder).eos_id
    some = torch.randint(4, 260, (2_000, 8), generator=torch.Generator().manual_seed(0))
    some[:, 0], some[:1_000, -1] = end, end  # models of random weights say the last token again
    with torch.no_grad():
        logprobs = theirs(some).logits.log_softmax(-1)
    ending = int((logprobs[:, -1].argmax(-1) == end).nonzero()[0])
    prompts = [some[ending].tolist(), some[ending, :5].tolist(), some[7].tolist()]
    of_tokens = logprobs[:, :-1].gather(2, some[:, 1:, None])[..., 0]
    expected = [float(of_tokens[ending, 2:].sum()), float(of_tokens[ending, :4].sum()), float(of_tokens[7].sum())]
    assert harness_scores(endpoint, model, prompts, [3, 1, 1]) == pytest.approx(expected, abs=1e-3)


def test_a_completion_reads_special_tokens_by_name_and_a_chat_does_not(endpoint: Endpoint, model: str) -> None:
    text = "<|endoftext|>gold <|im_start|>"
    end, start = (TextTokenizer.load(endpoint.folder).id_of(name) for name in ("<|endoftext|>", "<|im_start|>"))
    ids = [end, *TextTokenizer.load(endpoint.folder).encode("gold "), start]
    by_text, by_ids = (harness_scores(endpoint, model, prompt, [1]) for prompt in (text, ids))
    assert by_text == by_ids
    chat = endpoint.client().chat.completions
    said = [chat.create(model=model, messages=[{"role": "user", "content": each}], max_tokens=1) for each in ("", text)]
    assert said[1].usage.prompt_tokens - said[0].usage.prompt_tokens == len(text)


def test_stops_end_a_text_before_them(endpoint: Endpoint, model: str) -> None:
    def ask(**more: Any) -> Any:
        asked = {"model": model, "prompt": "abc", "max_tokens": 40, "seed": 3, **more}
        return endpoint.client().completions.create(**asked).choices[0]

    whole = ask()
    assert whole.finish_reason == "length"
    stop = whole.text[5:7]
    cut = ask(stop=[stop, "not there"])
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]


def test_mistakes_come_back_as_errors_that_the_client_knows(endpoint: Endpoint, model: str) -> None:
    client = endpoint.client()
    with pytest.raises(openai.AuthenticationError, match="token"):
        endpoint.client("wrong").models.list()
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-9'"):
        client.completions.create(model="gpt-9", prompt="a")
    with pytest.raises(openai.BadRequestError, match="model sees 256"):
        client.completions.create(model=model, prompt="a" * 300)
    with pytest.raises(openai.BadRequestError, match="logit_bias is not served"):
        client.completions.create(model=model, prompt="a", logit_bias={"5": 3})
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model=model, prompt="a", temperature=-1)
    with pytest.raises(openai.BadRequestError, match="n lies between"):
        client.completions.create(model=model, prompt="a", n=1_000)
    with pytest.raises(openai.BadRequestError, match="token that the model does not have"):
        client.completions.create(model=model, prompt=[1, 99_999])
    with pytest.raises(openai.BadRequestError, match="user's turn"):
        client.chat.completions.create(model=model, messages=[{"role": "assistant", "content": "a"}])
    with pytest.raises(openai.BadRequestError, match="image_url"):
        parts: Any = [{"type": "image_url", "image_url": {"url": "x"}}]
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}])
    with pytest.raises(openai.NotFoundError, match="not served"):
        client.embeddings.create(model=model, input="a")
    assert client.completions.create(model=model, prompt="a", max_tokens=1).choices[0].finish_reason == "length"


def raw(endpoint: Endpoint, head: str, body: bytes = b"") -> bytes:
    """The first bytes of the answer to a request written by hand."""
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=60) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        return connection.recv(65_536)


def test_the_door_refuses_foreign_hosts_missing_tokens_and_oversize_bodies(endpoint: Endpoint) -> None:
    key = f"Authorization: Bearer {TOKEN}"
    ours = f"Host: 127.0.0.1:{endpoint.port}"
    assert b" 200 " in raw(endpoint, f"GET /v1/models HTTP/1.1\n{ours}\n{key}")
    assert b" 200 " in raw(endpoint, f"GET /v1/models HTTP/1.1\nHost: localhost:{endpoint.port}\n{key}")
    assert b" 401 " in raw(endpoint, f"GET /v1/models HTTP/1.1\n{ours}")
    assert b" 401 " in raw(endpoint, f"GET /v1/models HTTP/1.1\n{ours}\nAuthorization: Basic {TOKEN}")
    for foreign in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "192.168.1.7", "[", ""):
        assert b" 403 " in raw(endpoint, f"GET /v1/models HTTP/1.1\nHost: {foreign}\n{key}"), foreign
    post = f"POST /v1/completions HTTP/1.1\n{ours}\n{key}\n"
    assert b" 413 " in raw(endpoint, f"{post}Content-Length: {MAX_BODY + 1}")
    chunk = b"%x\r\n" % (MAX_BODY + 1) + b" " * (MAX_BODY + 1) + b"\r\n0\r\n\r\n"
    assert b" 413 " in raw(endpoint, f"{post}Transfer-Encoding: chunked", chunk)
    assert b" 400 " in raw(endpoint, f"{post}Content-Length: 9", b"[" * 9)


def test_a_client_that_leaves_frees_its_slot_within_a_second(endpoint: Endpoint, model: str) -> None:
    for stream in (True, False):
        asked = {"model": model, "prompt": "a", "max_tokens": 250, "n": 16, "stream": stream}
        body = json.dumps(asked).encode()
        head = f"POST /v1/completions HTTP/1.1\nHost: localhost\nAuthorization: Bearer {TOKEN}\n"
        connection = socket.create_connection(("127.0.0.1", endpoint.port), timeout=60)
        connection.sendall(f"{head}Content-Length: {len(body)}\n\n".replace("\n", "\r\n").encode() + body)
        while not endpoint.health()["running"]:
            time.sleep(0.01)
        connection.close()
        left = time.monotonic()
        while (busy := endpoint.health())["running"] or busy["waiting"]:
            assert time.monotonic() - left < 1, busy
            time.sleep(0.01)


def test_more_requests_than_slots_wait_and_all_are_answered(endpoint: Endpoint, model: str) -> None:
    def ask(seed: int) -> str:
        found = endpoint.client().completions.create(model=model, prompt="abc", max_tokens=20, seed=seed)
        return found.choices[0].text

    alone = [ask(seed) for seed in range(3)]
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        together = list(pool.map(ask, range(64)))
    assert together[:3] == alone
    assert len(set(together)) > 50


def test_a_base_model_completes_and_says_why_it_does_not_chat(tmp_path: Path) -> None:
    endpoint = start(write_tiny_checkpoint(tmp_path / "base"), "--max-length", "20")
    try:
        client, model = endpoint.client(), str(endpoint.folder)
        with pytest.raises(openai.BadRequestError, match="no chat template"):
            client.chat.completions.create(model=model, messages=HELLO)
        with pytest.raises(openai.BadRequestError, match="model sees 20"):
            client.completions.create(model=model, prompt="a" * 20)
        request = Request(f"{endpoint.url}/models", headers={"Authorization": f"Bearer {TOKEN}"})
        with urlopen(request, timeout=60) as answer:
            assert json.load(answer)["data"][0]["max_model_len"] == 20
    finally:
        endpoint.process.terminate()
        assert endpoint.process.wait(60) in (0, -15)


def test_a_port_in_use_and_a_folder_that_is_none_are_one_line(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "base")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments in ([str(folder), "--port", port], [str(tmp_path / "none")]):
            command = [sys.executable, "-m", "workbench", "serve", *arguments]
            found = subprocess.run(command, cwd=installation_root(), capture_output=True, text=True, timeout=120)
            assert found.returncode == 2
            assert found.stderr.count("\n") == 1
            assert found.stderr.startswith("error: ")
