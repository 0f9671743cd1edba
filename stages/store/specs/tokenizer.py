"""What can be set for training a tokenizer."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about


class Tokenizer(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Train a tokenizer on the texts of a dataset of any kind."""

    type: Annotated[
        Literal["bpe", "wordpiece", "unigram", "byte"],
        about(
            "bpe: byte-level byte-pair encoding; wordpiece: as BERT has; unigram: as T5 has, over bytes; byte: bytes."
        ),
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
    sample_share: Annotated[float, about("Share of the text to train on, taken evenly.", gt=0, le=1)] = 1.0
    sample_megabytes: Annotated[int, about("Text to train on at most.", unit="MB", ge=1, le=100_000)] = 100
    sentinels: Annotated[
        int,
        about("Tokens <extra_id_0>, … that mark T5's gaps, in the entries; T5 has 100.", unit="tokens", ge=0, le=1_000),
    ] = 0
    replace: Annotated[bool, about("Replace the tokenizer of this name, once the new one is complete.")] = False

    lowercase: Annotated[bool, about("Capital letters become small ones (wordpiece).", group="wordpiece")] = True
    strip_accents: Annotated[bool, about("Accents are taken off (wordpiece).", group="wordpiece")] = True
    split_chinese: Annotated[
        bool, about("Every Chinese character is a word of its own (wordpiece).", group="wordpiece")
    ] = True
    split_punctuation: Annotated[
        bool, about("Punctuation marks are words of their own (wordpiece).", group="wordpiece")
    ] = True
