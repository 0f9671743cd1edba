"""Byte-level BPE, and bytes as the same with no merges: training one, and turning text into token ids and back.

Source of the method: Sennrich et al., Neural Machine Translation of Rare Words with Subword Units (arXiv 1508.07909),
over bytes as in Radford et al., Language Models are Unsupervised Multitask Learners (2019).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from stages.store.errors import UserError
from stages.store.files import write_atomic

END = "<|endoftext|>"
PAD = "<|pad|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL = (END, PAD, TURN_START, TURN_END)
"""In the order of their ids, from 0. Padding has a token of its own: it is never the end of text."""

ROLES = {"bos": END, "eos": END, "pad": PAD, "turn_start": TURN_START, "turn_end": TURN_END}

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"

PIECE = 100_000
"""Characters encoded at once. A longer text is cut where that cannot change its tokens."""

SAFE_CUT = re.compile(r"(?<=\S)[ \n]")
"""Between what is no space and a space, GPT-2's regular expression always splits, and neither side sees the other."""


class TextTokenizer:
    """Text to token ids and back. What a user wrote is always text: never a special token, whatever it looks like."""

    def __init__(self, tokenizer: Tokenizer, folder: Path, eos: str, pad: str) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True  # the library's name for: treat special tokens in text as text
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._bytes_of = {symbol: byte for byte, symbol in _byte_symbols().items()}
        self.folder = folder
        self.eos_id = self._special_id(eos)
        self.pad_id = self._special_id(pad)
        self.special_ids = frozenset(
            number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special
        )

    @classmethod
    def load(cls, folder: Path) -> TextTokenizer:
        """Open tokenizer.json and tokenizer_config.json of a tokenizer's or a checkpoint's folder.

        Raises UserError when they are missing, damaged, or name no end of text or padding.
        """
        config = _read_config(folder)
        try:
            tokenizer = Tokenizer.from_file(str(folder / FILE))
        except Exception as error:
            raise UserError(f"{folder / FILE} cannot be read: {error}.") from error
        return cls(tokenizer, folder, _content(config.get("eos_token")), _content(config.get("pad_token")))

    @property
    def vocab_size(self) -> int:
        """Entries, special tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; no special token is added or recognised."""
        if len(text) <= PIECE:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, on all cores."""
        pieces = [cut_for_encoding(text) for text in texts]
        flat = [piece for parts in pieces for piece in parts]
        encoded = iter(self._tokenizer.encode_batch_fast(flat, add_special_tokens=False))
        return [[token for _ in parts for token in next(encoded).ids] for parts in pieces]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of token ids; bytes that are not UTF-8 become U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token id stands for; those of its name for a special token. KeyError for an unknown id."""
        name = self._tokenizer.id_to_token(token)
        if name is None:
            raise KeyError(token)
        if token in self.special_ids:
            return name.encode()
        return bytes(self._bytes_of[symbol] for symbol in name)

    def _special_id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise UserError(f"The tokenizer in {self.folder} has no token {token!r} for its end of text or padding.")
        return found


def train_tokenizer(texts: Iterable[str], kind: str, vocab_size: int, *, split_digits: bool) -> Tokenizer:
    """Train on `texts`. `kind` is bpe or byte; bytes have 256 entries and the special tokens, and need no text.

    The same texts in the same order give the same tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, by_bytes]) if split_digits else by_bytes
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size if kind == "bpe" else 256 + len(SPECIAL),
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=[_byte_symbols()[byte] for byte in range(256)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts if kind == "bpe" else (), trainer)
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids of the special tokens by role."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return {role: vocabulary[token] for role, token in ROLES.items()}


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and the tokenizer_config.json with which transformers' AutoTokenizer opens it."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "pad_token": PAD,
        "extra_special_tokens": [TURN_START, TURN_END],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }
    write_atomic(folder / FILE, tokenizer.to_str(pretty=True).encode(), durable=False)
    write_atomic(folder / CONFIG, msgspec.json.format(msgspec.json.encode(config), indent=2), durable=False)


def copy_tokenizer(tokenizer: TextTokenizer, folder: Path) -> None:
    """Put the tokenizer's files into a checkpoint's folder."""
    for name in (FILE, CONFIG):
        shutil.copyfile(tokenizer.folder / name, folder / name)


def cut_for_encoding(text: str, size: int = PIECE) -> list[str]:
    """Cut `text` into pieces of about `size` characters without changing its byte-level tokens.

    A text without a place for it stays whole.
    """
    pieces, start = [], 0
    while len(text) - start > size:
        place = SAFE_CUT.search(text, start + size)
        cut = place.start() if place else len(text)
        pieces.append(text[start:cut])
        start = cut
    if start < len(text) or not pieces:
        pieces.append(text[start:])
    return pieces


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not (folder / FILE).is_file():
        raise UserError(f"There is no {FILE} in {folder}.", "Only tokenizers in this format can be read.")
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


def _content(token: Any) -> str:
    """A special token as tokenizer_config.json may write it: a string, or an object with `content`."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _byte_symbols() -> dict[int, str]:
    """GPT-2's printable symbol of each byte: itself where it is printable, else from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + n) for n, byte in enumerate(others)}
