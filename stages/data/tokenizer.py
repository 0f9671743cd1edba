"""Turning text into token ids and back, with tokenizers of any kind: ours, and those that others trained."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Encoding, Tokenizer, decoders

from stages.data.cutting import PIECE, cut_for_encoding, safe_cuts
from stages.data.vocabularies import (
    END,
    PAD,
    SPECIAL,
    TURN_END,
    TURN_START,
    Words,
    add_sentinels,
    byte_symbols,
    train_byte_level,
    train_wordpiece,
)
from stages.store.endpoints import refuse_endpoint
from stages.store.errors import UserError
from stages.store.files import write_atomic

__all__ = ["END", "PAD", "SPECIAL", "TextTokenizer", "cut_for_encoding", "save_tokenizer", "train_tokenizer"]

ROLES = {"bos": END, "eos": END, "pad": PAD, "turn_start": TURN_START, "turn_end": TURN_END}
BERT_ROLES = {
    "pad": "[PAD]",
    "unk": "[UNK]",
    "cls": "[CLS]",
    "sep": "[SEP]",
    "mask": "[MASK]",
    "bos": "[CLS]",
    "eos": "[SEP]",
    "turn_start": TURN_START,
    "turn_end": TURN_END,
}

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"


class TextTokenizer:
    """Text to token ids and back. What a user wrote is always text: never a special token, whatever it looks like."""

    def __init__(self, tokenizer: Tokenizer, folder: Path, eos: str, pad: str, unk: str = "") -> None:
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True  # the library's name for: treat special tokens in text as text
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.folder = folder
        self.eos_id = self._special_id(eos, "end-of-text", "eos_token")
        self.pad_id = self._special_id(pad, "padding", "pad_token")
        self.special_ids = frozenset(
            number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special
        )
        self._control = self.special_ids - {self._unknown_id(unk)}
        self._cuts = safe_cuts(tokenizer)
        self.by_bytes = isinstance(tokenizer.decoder, decoders.ByteLevel) and tokenizer.normalizer is None
        """Whether the bytes of tokens, joined, are exactly the bytes of the text."""

    @classmethod
    def load(cls, folder: Path) -> TextTokenizer:
        """Open tokenizer.json and tokenizer_config.json of a tokenizer's or a checkpoint's folder.

        Raises UserError when they are missing, damaged, or name no end of text.
        """
        refuse_endpoint(folder)
        config = _read_config(folder)
        try:
            tokenizer = Tokenizer.from_file(str(folder / FILE))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # the library's panics are no Exceptions
            raise UserError(f"{folder / FILE} cannot be read: {_one_line(error)}.") from error
        # A model of others may have no row left for a token of padding. Padded places are masked: any token will do.
        end, pad, unknown = (content_of(config.get(f"{role}_token")) for role in ("eos", "pad", "unk"))
        return cls(tokenizer, folder, end, pad or end, unknown)

    def vocabulary(self) -> dict[str, int]:
        """Every token with its id, special ones included."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    @cached_property
    def vocab_size(self) -> int:
        """Ids, special tokens included: one more than the highest, so that it is also the rows that a model needs."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @cached_property
    def start_ids(self) -> list[int]:
        """What the tokenizer itself puts before a text, such as Llama's begin of text; often nothing."""
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        whole = self._tokenizer.encode("a", add_special_tokens=True).ids
        places = [n for n in range(len(whole)) if plain and whole[n : n + len(plain)] == plain]
        return whole[: places[0]] if places else []

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; no special token is added or recognised."""
        return self.encode_batch([text])[0] if len(text) > PIECE else self._encoding(text).ids

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a prompt that a program put together: in it the name of a special token is that token.

        What the tokenizer itself puts before a text comes first, once. Nothing that a user wrote belongs here.
        """
        marked = any(self.name_of(number) in text for number in self.special_ids)
        ids = self._reading_names.encode(text, add_special_tokens=False).ids if marked else self.encode(text)
        start = self.start_ids
        return ids if ids[: len(start)] == start else [*start, *ids]

    @cached_property
    def _reading_names(self) -> Tokenizer:
        """A copy that recognises special tokens by their names: a tokenizer does so for all that ask, or for none."""
        return Tokenizer.from_str(self._tokenizer.to_str())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, on all cores."""
        pieces = [self.cut(text) for text in texts]
        flat = [piece for parts in pieces for piece in parts]
        encoded = zip(flat, self._tokenizer.encode_batch_fast(flat, add_special_tokens=False), strict=True)
        return [[token for _ in parts for token in self._plain_ids(*next(encoded))] for parts in pieces]

    def cut(self, text: str) -> list[str]:
        """The text in pieces that can be encoded one by one to the same tokens."""
        return cut_for_encoding(text, PIECE, self._cuts)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of token ids; bytes that are not UTF-8 become U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token id stands for; those of its name for a special token. KeyError for an unknown id.

        Marks of a word's beginning or inside are part of the name, and stand here as a space or not at all.
        """
        name = self._tokenizer.id_to_token(token)
        if name is None:
            raise KeyError(token)
        if token in self.special_ids:
            return name.encode()
        if isinstance(self._tokenizer.decoder, decoders.ByteLevel):
            return b"".join(_bytes_of(symbol) for symbol in name)
        if found := re.fullmatch(r"<0x([0-9A-F]{2})>", name):
            return bytes.fromhex(found[1])
        return name.removeprefix("##").replace("▁", " ").encode()

    def id_of(self, name: str) -> int | None:
        """The id of a token by its name."""
        return self._tokenizer.token_to_id(name)

    def name_of(self, token: int) -> str:
        """A token's name as its vocabulary writes it; nothing for an unknown id."""
        return self._tokenizer.id_to_token(token) or ""

    def spans(self, text: str) -> list[tuple[int, int, int]]:
        """Tokens of a text with where each stands in it, in characters: (id, start, end)."""
        found, before = [], 0
        for piece in self.cut(text):
            encoding = self._encoding(piece)
            found += [
                (token, before + a, before + b) for token, (a, b) in zip(encoding.ids, encoding.offsets, strict=True)
            ]
            before += len(piece)
        return found

    def _encoding(self, text: str) -> Encoding:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding if self._control.isdisjoint(encoding.ids) else self._broken(text)

    def _plain_ids(self, text: str, encoding: Encoding) -> list[int]:
        ids = encoding.ids
        return ids if self._control.isdisjoint(ids) else self._broken(text).ids

    def _broken(self, text: str) -> Encoding:
        """Encode a text in which the model itself found a special token by its name, with that name in two parts."""
        names = [self._tokenizer.id_to_token(number) or "" for number in self._control]
        pattern = re.compile("|".join(rf"(?<={re.escape(n[0])})(?={re.escape(n[1:])})" for n in names if len(n) > 1))
        places = [0, *(found.start() for found in pattern.finditer(text)), len(text)]
        parts = [text[a:b] for a, b in pairwise(places)]
        encodings = [self._tokenizer.encode(part, add_special_tokens=False) for part in parts]
        whole = Encoding.merge(encodings, growing_offsets=True)
        if forged := self._control.intersection(whole.ids):
            name = self._tokenizer.id_to_token(min(forged))
            raise UserError(f"The tokenizer in {self.folder} reads plain text as its control token {name!r}.")
        return whole

    def _unknown_id(self, named: str) -> int | None:
        """The special token that stands for what the vocabulary lacks: the one that plain text may become."""
        name = getattr(self._tokenizer.model, "unk_token", None) or named  # a Unigram model does not tell
        found = self._tokenizer.token_to_id(name) if name else None
        return None if found in (self.eos_id, self.pad_id) else found

    def _special_id(self, token: str, what: str, key: str) -> int:
        found = self._tokenizer.token_to_id(token) if token else None
        if found is None:
            said = f"has no token {token!r}, which it names as its {what} token" if token else f"names no {what} token"
            raise UserError(
                f"The tokenizer in {self.folder} {said}.",
                f"`workbench tokenizer import` makes a copy with one; or set {key} in its {CONFIG}.",
            )
        return found


def train_tokenizer(
    texts: Iterable[str],
    kind: str,
    vocab_size: int,
    *,
    split_digits: bool,
    sentinels: int = 0,
    words: Words | None = None,
) -> Tokenizer:
    """Train on `texts`, which must start anew each time they are gone through. kind: bpe, wordpiece, unigram or byte.

    `vocab_size` counts special tokens and sentinels; bytes have 256 and these, and need no text. The same texts in the
    same order give the same tokenizer, but for unigram, where the library adds numbers up in an order of its own.
    """
    if kind == "wordpiece":
        tokenizer = train_wordpiece(texts, vocab_size - sentinels, words or Words(), split_digits=split_digits)
    else:
        tokenizer = train_byte_level(texts, kind, vocab_size - sentinels, split_digits=split_digits)
    add_sentinels(tokenizer, sentinels)
    return tokenizer


def roles_of(tokenizer: Tokenizer) -> dict[str, str]:
    """The special tokens of one that we trained, by role."""
    return BERT_ROLES if tokenizer.token_to_id("[SEP]") is not None else ROLES


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids of the special tokens of one that we trained, by role."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return {role: vocabulary[token] for role, token in roles_of(tokenizer).items()}


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and the tokenizer_config.json with which transformers' AutoTokenizer opens it."""
    roles = roles_of(tokenizer)
    named = {f"{role}_token": token for role, token in roles.items() if not role.startswith("turn_")}
    sentinels = sorted(t.content for t in tokenizer.get_added_tokens_decoder().values() if _is_sentinel(t.content))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "additional_special_tokens": [TURN_START, TURN_END, *sentinels],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }
    write_files(folder, tokenizer.to_str(pretty=True).encode(), config)


def write_files(folder: Path, tokenizer: bytes, config: dict[str, Any]) -> None:
    """Write the two files of a tokenizer."""
    write_atomic(folder / FILE, tokenizer, durable=False)
    write_atomic(folder / CONFIG, msgspec.json.format(msgspec.json.encode(config), indent=2), durable=False)


def copy_tokenizer(tokenizer: TextTokenizer, folder: Path) -> None:
    """Put the tokenizer's files into a checkpoint's folder."""
    for name in (FILE, CONFIG):
        shutil.copyfile(tokenizer.folder / name, folder / name)


def content_of(token: Any) -> str:
    """A special token as tokenizer_config.json may write it: a string, or an object with `content`."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not (folder / FILE).is_file():
        raise UserError(f"There is no {FILE} in {folder}.", "Only tokenizers in this format can be read.")
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


def _bytes_of(symbol: str) -> bytes:
    """The byte that a symbol of GPT-2's stands for; itself for what is none, as decoding takes it."""
    byte = _symbol_bytes().get(symbol)
    return symbol.encode() if byte is None else bytes([byte])


@cache
def _symbol_bytes() -> dict[str, int]:
    return {symbol: byte for byte, symbol in byte_symbols().items()}


def _is_sentinel(name: str) -> bool:
    return re.fullmatch(r"<extra_id_\d+>", name) is not None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
