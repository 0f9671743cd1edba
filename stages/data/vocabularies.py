"""Training the four kinds of tokenizers: byte-level BPE, bytes, WordPiece, and byte-level Unigram.

Sources. BPE: Sennrich et al., Neural Machine Translation of Rare Words with Subword Units (arXiv 1508.07909), over
bytes as in Radford et al., Language Models are Unsupervised Multitask Learners (2019). WordPiece: Wu et al., Google's
Neural Machine Translation System (arXiv 1609.08144), as BERT uses it (arXiv 1810.04805). Unigram: Kudo, Subword
Regularization (arXiv 1804.10959), here over bytes, so that it needs no unknown token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

END = "<|endoftext|>"
PAD = "<|pad|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL = (END, PAD, TURN_START, TURN_END)
"""In the order of their ids, from 0. Padding has a token of its own: it is never the end of text."""

BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", TURN_START, TURN_END)
"""Those of WordPiece, with BERT's names; [SEP] ends a text."""

PREFIX = "##"
"""What marks a WordPiece inside a word."""

CHARACTERS = 6_000
"""Different characters that a WordPiece vocabulary holds at most, and at most a third of its entries."""


class Words(NamedTuple):
    """How WordPiece sees a text: what its normaliser changes, and where words end."""

    lowercase: bool = True
    strip_accents: bool = True
    split_chinese: bool = True
    punctuation: bool = True
    """Whether punctuation is a word of its own, as for BERT; otherwise only white space parts words."""


def train_byte_level(texts: Iterable[str], kind: str, vocab_size: int, *, split_digits: bool) -> Tokenizer:
    """Train a tokenizer over bytes: bpe, unigram, or byte, which needs no text. Every text comes back exactly."""
    tokenizer = Tokenizer(models.Unigram() if kind == "unigram" else models.BPE())
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, by_bytes]) if split_digits else by_bytes
    tokenizer.decoder = decoders.ByteLevel()
    alphabet, special = [byte_symbols()[byte] for byte in range(256)], _added(SPECIAL)
    if kind == "unigram":
        trainer: trainers.Trainer = trainers.UnigramTrainer(
            vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    else:
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size if kind == "bpe" else 256 + len(SPECIAL),
            special_tokens=special,
            initial_alphabet=alphabet,
            show_progress=False,
        )
    tokenizer.train_from_iterator(texts if kind != "byte" else (), trainer)
    return tokenizer


def train_wordpiece(texts: Iterable[str], vocab_size: int, words: Words, *, split_digits: bool) -> Tokenizer:
    """Train WordPiece as for BERT. `texts` is gone through twice: it must start anew each time.

    Spaces, and what the normaliser changes, do not come back; a word with a character not in the vocabulary is [UNK].
    """
    characters = _characters(texts, words, min(CHARACTERS, vocab_size // 3))
    inside = [PREFIX + character for character in characters]
    # The trainer meets pieces inside words in the order of a hash table. Named beforehand, they have an order.
    learner = _wordpiece(models.WordPiece(unk_token="[UNK]"), words, split_digits)
    learner.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            special_tokens=[*BERT_SPECIAL, *characters, *inside],
            limit_alphabet=len(characters),
            continuing_subword_prefix=PREFIX,
            show_progress=False,
        ),
    )
    pieces = learner.get_vocab(with_added_tokens=True)
    tokenizer = _wordpiece(models.WordPiece(pieces, unk_token="[UNK]"), words, split_digits)
    tokenizer.add_special_tokens(_added(BERT_SPECIAL))
    start, end = (("[CLS]", pieces["[CLS]"]), ("[SEP]", pieces["[SEP]"]))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[start, end]
    )
    return tokenizer


def add_sentinels(tokenizer: Tokenizer, count: int) -> None:
    """Add T5's <extra_id_0> … as the last entries; as in T5, the first has the highest id."""
    tokenizer.add_special_tokens(_added([f"<extra_id_{number}>" for number in reversed(range(count))]))


@cache
def byte_symbols() -> dict[int, str]:
    """GPT-2's printable symbol of each byte: itself where it is printable, else from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + n) for n, byte in enumerate(others)}


def _wordpiece(model: models.WordPiece, words: Words, split_digits: bool) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = _normalizer(words)
    splitter: pre_tokenizers.PreTokenizer = (
        pre_tokenizers.BertPreTokenizer() if words.punctuation else pre_tokenizers.WhitespaceSplit()
    )
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([splitter, digits]) if split_digits else splitter
    tokenizer.decoder = decoders.WordPiece(prefix=PREFIX)
    return tokenizer


def _normalizer(words: Words) -> normalizers.Normalizer:
    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=words.split_chinese,
        strip_accents=words.strip_accents,
        lowercase=words.lowercase,
    )


def _characters(texts: Iterable[str], words: Words, limit: int) -> list[str]:
    """The characters that occur most often, in the order of their code points."""
    counts: Counter[str] = Counter()
    normalizer = _normalizer(words)
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    often = sorted((char for char in counts if not char.isspace()), key=lambda char: (-counts[char], char))
    return sorted(often[:limit])


def _added(names: Iterable[str]) -> list[AddedToken]:
    return [AddedToken(name, special=True, normalized=False) for name in names]
