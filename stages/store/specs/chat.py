"""How a model is sampled when people talk to it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from stages.store.specs.base import about


class Chat(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How a model is sampled in chat."""

    temperature: Annotated[
        float, about("Below 1 likelier tokens get likelier still; 0 always takes the likeliest.", ge=0, le=10)
    ] = 0.8
    top_k: Annotated[int, about("Choose among so many likeliest tokens; 0: all.", unit="tokens", ge=0)] = 0
    top_p: Annotated[
        float, about("Choose among the likeliest tokens that make up this share of the probability.", gt=0, le=1)
    ] = 0.95
    max_new_tokens: Annotated[int, about("Longest answer.", unit="tokens", ge=1, le=1_048_576)] = 256
    seed: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None,
        about("Seed of the choices; left out: another one each time."),
    ] = None
    stop: Annotated[list[str], about("Texts at which an answer ends.")] = []
    system: Annotated[str, about("What a chat model is told before the conversation; a base model is not.")] = ""
