"""What is asked: OpenAI's completions and chat completions, read strictly. What is not served is refused by name."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from stages.asking.completion import TextModel
from stages.asking.dialogue import Dialogue
from stages.generate import Sampling
from stages.serve.guard import Refused
from stages.store.chat import Turn
from stages.store.errors import UserError

MAX_ALTERNATIVES = 20
MAX_CHOICES = 64
MAX_STOPS = 16
DEFAULT_TOKENS = 16
"""Tokens of a completion where the request names no limit, as OpenAI has it. A chat answer may fill the context."""


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


class GenerationRequest(msgspec.Struct, kw_only=True):
    """What both kinds of request have in common."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    best_of: int | None = None
    suffix: str | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None


class CompletionRequest(GenerationRequest, kw_only=True):
    """POST /v1/completions."""

    prompt: str | list[Any]
    logprobs: int | None = None
    echo: bool | None = None


class Content(msgspec.Struct):
    """A part of a message."""

    type: str
    text: str = ""


class RequestMessage(msgspec.Struct):
    """A message of the conversation."""

    role: str
    content: str | list[Content] | None = None


class ChatRequest(GenerationRequest, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[RequestMessage]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


@dataclass
class Reading:
    """A request as the batcher takes it."""

    prompts: list[list[int]]
    samplings: list[Sampling | None]
    """One for each choice of a prompt; its seed differs from choice to choice. None: nothing is generated."""
    stops: tuple[str, ...]
    logprobs: int | None
    """Alternatives to report with every token; None: no log-probabilities."""
    echo: bool
    stream: bool
    usage: bool
    """Whether a stream ends with the count of tokens."""


A = TypeVar("A", bound=GenerationRequest)


def parse(body: bytes, kind: type[A], served: str) -> A:
    """The request in a body. Raises Refused when it cannot be read, or asks for what is not served."""
    try:
        request = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, "invalid_request", f"The request cannot be read: {str(error)[:300]}.") from error
    if request.model != served:
        raise Refused(
            404, "model_not_found", f"There is no model {request.model[:100]!r} here.", f"It is {served!r}.", "model"
        )
    refused = {
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "logit_bias": request.logit_bias,
        "suffix": request.suffix,
        "tools": request.tools,
        "functions": request.functions,
        "response_format": (request.response_format or {}).get("type", "text") != "text",
        "best_of": (request.best_of or 1) > (request.n or 1),
    }
    for name, value in refused.items():
        if value:
            raise Refused(400, "unsupported", f"{name} is not served here.", "Leave it out.", name)
    return request


def read_completion(request: CompletionRequest, model: TextModel, length: int) -> Reading:
    """A completion: texts or token ids, each continued."""
    prompts = [_encode(prompt, model) for prompt in _prompts(request.prompt)]
    limit = DEFAULT_TOKENS if request.max_tokens is None else request.max_tokens
    logprobs = request.logprobs
    _within("logprobs", logprobs, 0, MAX_ALTERNATIVES)
    return _reading(request, model, length, prompts, limit, logprobs, (), bool(request.echo))


def read_chat(request: ChatRequest, model: TextModel, dialogue: Dialogue | None, length: int) -> Reading:
    """A conversation, answered. Raises Refused for a base model."""
    if dialogue is None:
        raise Refused(400, "no_chat_template", "This is a base model: it has no chat template.", "Use /v1/completions.")
    turns = [Turn(message.role, _text(message.content)) for message in request.messages]
    try:
        prompt = dialogue.prompt(turns, 2**31)
    except UserError as error:
        raise Refused(400, "invalid_request", error.title, error.hint, "messages") from error
    limit = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    if limit is None:
        limit = max(1, length - len(prompt.tokens))
    if limit < 1:
        raise Refused(400, "invalid_request", "max_tokens must be at least 1.", param="max_tokens")
    _within("top_logprobs", request.top_logprobs, 0, MAX_ALTERNATIVES)
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    ends = () if prompt.end_of_turn is None else (prompt.end_of_turn,)
    return _reading(request, model, length, [prompt.tokens], limit, logprobs, ends, False)


def _reading(
    request: GenerationRequest,
    model: TextModel,
    length: int,
    prompts: list[list[int]],
    limit: int,
    logprobs: int | None,
    ends: tuple[int, ...],
    echo: bool,
) -> Reading:
    _within("n", request.n, 1, MAX_CHOICES)
    _within("max_tokens", limit, 0 if echo else 1, 2**31)
    for prompt in prompts:
        room = length - len(prompt)
        if room < min(limit, 1) or not prompt:
            text = (
                f"The prompt has {len(prompt):,} tokens, and the model sees {length:,}." if prompt else "It is empty."
            )
            raise Refused(400, "context_length_exceeded", text, "Shorten it." if prompt else "Send a prompt.", "prompt")
    if len(prompts) * (request.n or 1) > MAX_CHOICES:
        raise Refused(400, "invalid_request", f"A request may ask for at most {MAX_CHOICES} answers.", param="n")
    seed = request.seed if request.seed is not None else secrets.randbelow(2**31)
    samplings: list[Sampling | None] = [
        _sampling(request, model, limit, logprobs, ends, seed + choice) if limit else None
        for choice in range(request.n or 1)
    ]
    usage = bool(request.stream_options and request.stream_options.include_usage)
    return Reading(prompts, samplings, _stops(request.stop), logprobs, echo, bool(request.stream), usage)


def _sampling(
    request: GenerationRequest, model: TextModel, limit: int, logprobs: int | None, ends: tuple[int, ...], seed: int
) -> Sampling:
    try:
        return Sampling(
            temperature=1.0 if request.temperature is None else request.temperature,
            top_k=max(0, request.top_k or 0),
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=seed % 2**63,
            max_new_tokens=limit,
            stop_ids=tuple(sorted({*model.end_ids, *ends})),
            alternatives=logprobs or 0,
        )
    except ValueError as error:
        raise Refused(400, "invalid_request", "temperature must be at least 0, and top_p between 0 and 1.") from error


def _prompts(prompt: str | list[Any]) -> Sequence[str | list[int]]:
    """A text, several, token ids, or several lists of them."""
    if isinstance(prompt, str):
        return [prompt]
    if prompt and all(type(each) is int for each in prompt):
        return [prompt]
    if prompt and all(isinstance(each, str) for each in prompt):
        return prompt
    if prompt and all(isinstance(each, list) and each and all(type(id_) is int for id_ in each) for each in prompt):
        return prompt
    raise Refused(400, "invalid_request", "prompt is a text, a list of texts, or token ids.", param="prompt")


def _encode(prompt: str | list[int], model: TextModel) -> list[int]:
    if isinstance(prompt, list):
        if not all(0 <= token < model.decoder.config.vocab_size for token in prompt):
            raise Refused(400, "invalid_request", "prompt names a token that the model does not have.", param="prompt")
        return prompt
    return model.tokenizer.encode_prompt(prompt) or [model.tokenizer.eos_id]


def _text(content: str | list[Content] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if part.type != "text":
            raise Refused(400, "unsupported", f"Messages may hold text, not {part.type[:40]!r}.", param="messages")
    return "".join(part.text for part in content)


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > MAX_STOPS:
        raise Refused(400, "invalid_request", f"stop may name at most {MAX_STOPS} texts.", param="stop")
    return tuple(text for text in stops if text)


def _within(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise Refused(400, "invalid_request", f"{name} lies between {least} and {most:,}.", param=name)
