"""What can be set for training a tokenizer."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about


class Tokenizer(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Train a tokenizer on a text dataset."""

    type: Annotated[
        Literal["bpe", "byte"], about("bpe: byte-level byte-pair encoding; byte: the same with no merges.")
    ] = "bpe"
    vocab_size: Annotated[
        int,
        about(
            "Entries, special tokens included; bytes always have 256 and the special tokens.",
            unit="tokens",
            ge=260,
            le=1_000_000,
        ),
    ] = 4_096
    split_digits: Annotated[bool, about("Every digit is a token of its own, so that sums can be learnt.")] = True
    sample_megabytes: Annotated[int, about("Text to train on at most.", unit="MB", ge=1, le=100_000)] = 100
    replace: Annotated[bool, about("Replace the tokenizer of this name, once the new one is complete.")] = False
