"""Asking an OpenAI-compatible endpoint: what it serves, and what its model says, taken as it streams."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from stages.store.chat import Turn
from stages.store.endpoints import Endpoint
from stages.store.errors import UserError, WorkFailed
from stages.store.specs.chat import Chat

TIMEOUT = 300.0
"""Seconds without a byte after which an endpoint counts as gone: a large model may load first."""
LONGEST = 2**20
"""Bytes of a line that are read: an endpoint is not trusted to end it."""
OURS: dict[str, dict[str, Any]] = {
    "llamacpp": {"top_k": 0, "samplers": ["top_k", "temperature", "top_p"]},
    "vllm": {"top_k": -1, "min_p": 0},
}
"""What makes a server choose its tokens as ours are chosen, by the program that it is.

Where nothing is said, llama.cpp takes the 40 likeliest tokens and those of a twentieth of the likeliest's probability,
and takes the temperature last; vLLM does what the model's folder says.
"""


class Part(NamedTuple):
    """A piece of text, and why the answer ends with it, if it does."""

    text: str
    finished: str | None = None
    tokens: int | None = None
    """Tokens of the whole answer, where the endpoint counts them."""
    prompt_tokens: int | None = None


class _NoRedirects(HTTPRedirectHandler):
    """A key goes to the address that was given and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = build_opener(_NoRedirects)


def list_served(url: str, key: str) -> dict[str, str]:
    """The models that an endpoint says it serves, and who is said to own each: the names of the programs that serve.

    Raises UserError when it does not answer as an endpoint.
    """
    with _open(url, "/models", key) as answer:
        try:
            listed = json.loads(answer.read(LONGEST))["data"]
            return {str(each["id"]): str(each.get("owned_by") or "")[:100] for each in listed}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{url}/models does not list models.", "Is it an OpenAI-compatible endpoint?") from error


def stream(endpoint: Endpoint, asked: str | Sequence[Turn], settings: Chat, seed: int) -> Iterator[Part]:
    """What the endpoint's model says to a conversation, or how it continues a text, piece by piece.

    Raises UserError when it refuses, WorkFailed when it breaks off.
    """
    body: dict[str, Any] = {
        "model": endpoint.model,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_new_tokens,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        **OURS.get(endpoint.server, {}),
        **({"stop": settings.stop} if settings.stop else {}),
        **({"top_k": settings.top_k} if settings.top_k else {}),
    }
    if isinstance(asked, str):
        path, body["prompt"] = "/completions", asked
    else:
        path, body["messages"] = "/chat/completions", [{"role": t.role, "content": t.content} for t in asked]
    with _open(endpoint.url, path, endpoint.secret(), body) as answer:
        yield from _parts(answer, endpoint.url)


def _parts(answer: http.client.HTTPResponse, url: str) -> Iterator[Part]:
    """The server-sent events of an answer."""
    ended = False
    try:
        while line := answer.readline(LONGEST):
            data = line.strip().removeprefix(b"data:").strip()
            if not line.startswith(b"data:") or not data:
                continue
            if data == b"[DONE]":
                return
            part = _part(json.loads(data), url)
            ended = ended or part.finished is not None
            yield part
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise WorkFailed(f"{url} broke off: {_reason(error)}.", "See what it says itself, and ask again.") from error
    if not ended:
        raise WorkFailed(f"{url} broke off in the middle of an answer.", "See what it says itself, and ask again.")


def _part(event: Any, url: str) -> Part:
    try:
        if error := event.get("error"):
            raise UserError(f"{url} says: {_message(error)}.")
        usage = event.get("usage") or {}
        counts = usage.get("completion_tokens"), usage.get("prompt_tokens")
        if not event.get("choices"):
            return Part("", None, *counts)
        choice = event["choices"][0]
        text = choice["text"] if "text" in choice else (choice.get("delta") or {}).get("content")
        return Part(str(text or ""), choice.get("finish_reason"), *counts)
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise WorkFailed(f"{url} does not stream as OpenAI's API does.") from error


@contextlib.contextmanager
def _open(url: str, path: str, key: str, body: dict[str, Any] | None = None) -> Iterator[http.client.HTTPResponse]:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    try:
        answer = _opener.open(Request(url + path, data, headers), timeout=TIMEOUT)
    except HTTPError as error:
        with error:
            raise UserError(f"{url} answers {error.code}: {_told(error)}.", _advice(error.code)) from error
    except (URLError, OSError, http.client.HTTPException, ValueError) as error:
        hint = "Is it running, and is the address right?"
        raise UserError(f"{url} does not answer: {_reason(error)}.", hint) from error
    with answer:
        yield answer


def _told(error: HTTPError) -> str:
    """What an endpoint says about an error, in a line."""
    try:
        return _message(json.loads(error.read(LONGEST))["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(error.reason)


def _message(error: Any) -> str:
    text = error.get("message", "") if isinstance(error, dict) else error
    return " ".join(str(text).split())[:300].rstrip(".")


def _advice(code: int) -> str:
    return {401: "Give the variable that holds its key: --key-env NAME.", 404: "Is the model's name right?"}.get(
        code, ""
    )


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)[:200]
