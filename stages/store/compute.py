"""Floating-point operations that a training asks for, by the arithmetic of the models that take part in it.

N weights in matrix products, L attention layers, H heads, D width of a head, T tokens that a token sees. Of a token:

    forward    2 N + 4 L H D T         backward    twice that; 2 N less where the weights are frozen (adapters)

Sources: Kaplan et al. (arXiv 2001.08361), section 2.1, for N; Hoffmann et al. (arXiv 2203.15556), appendix F, for
attention and for a backward pass of two forward ones. N leaves embeddings out and counts the output layer by the share
of tokens that are asked for logits. Attention counts whole, though a causal mask halves it and a window cuts it; T is
the mean over tokens of the length of what each stands in. Norms, losses, adapters and the optimiser are of lower order
and left out, and so are padding, validation, samples, what is computed twice to save memory, and what is spared where
completions share a prompt.
"""

from __future__ import annotations

from typing import NamedTuple

from stages.store.architecture import ENCODERS, ModelConfig
from stages.store.sizes import parameter_count


class Work(NamedTuple):
    """What a run's compute is made up of, in floating-point operations."""

    per_token: float
    """Of those that updates are about."""
    per_drawn: float = 0.0
    """Of each token of prompt and completion that a policy writes and has scored, learnt from or not."""
    per_step: float = 0.0
    before: float = 0.0
    """Before the first step."""

    def done(self, step: int, tokens: int, drawn: int = 0) -> float:
        """All of it after so many steps, tokens learnt from and tokens drawn."""
        return self.before + self.per_step * step + self.per_token * tokens + self.per_drawn * drawn


def forward(config: ModelConfig, length: float, head: float = 1.0) -> float:
    """A token forward. length: T above. head: the share of tokens whose logits are wanted."""
    return 2 * _products(config, head) + _attention(config, length)


def training(config: ModelConfig, length: float, head: float = 1.0, *, frozen: bool = False) -> float:
    """A token forward and backward. frozen: only adapters learn."""
    return (4 if frozen else 6) * _products(config, head) + 3 * _attention(config, length)


def pair(config: ModelConfig, read: float, written: float) -> float:
    """Training an encoder-decoder to write so many tokens after reading so many.

    The encoder, and the keys and values that the decoder takes from it, are of what is read; all else of the decoder is
    of what is written.
    """
    one, inner, keys = _layer(config)
    heads, L, W = config.heads * config.head_width, config.layers, config.writing_layers
    reading, writing = L * (one + inner) + W * keys, W * (2 * one + inner - keys) + _head(config)
    attention = L * read * read + W * written * (written + read)
    return 6 * (reading * read + writing * written) + 12 * heads * attention


def recurrent(config: ModelConfig) -> float:
    """Training a token of Transformer-XL, which sees its segment and the memory, and has a third product by distance.

    Keys and values of what is remembered are computed again, without gradient to the layers below.
    """
    T, heads = config.context + config.memory, config.heads * config.head_width
    again = 4 * config.layers * _layer(config)[2] * config.memory / config.context
    return 6 * _products(config, 1.0) + again + 18 * config.layers * heads * T


class Answers(NamedTuple):
    """Tokens of a policy's prompts, on average, and of the longest completion: what follows from them is at most so."""

    prompt: float
    longest: int

    @property
    def length(self) -> float:
        """Of both together."""
        return self.prompt + self.longest

    @property
    def share(self) -> float:
        """Of the completion, whose logits are wanted."""
        return self.longest / self.length


def policy(
    config: ModelConfig,
    answers: Answers,
    *,
    frozen: bool,
    passes: int,
    looks: bool,
    reference: ModelConfig,
    scorer: ModelConfig | None = None,
) -> Work:
    """A policy that learns from its own completions. Prompts count as often as they are answered.

    Of each token drawn: written, and read by the reward model if one scores. Of each token learnt from: read by the
    reference, by the policy once more where its first update cannot tell what it thought (looks), and trained on
    `passes` times.
    """
    length, share = answers.length, answers.share
    once = forward(config, length, share)
    learnt = forward(reference, length, share) + passes * training(config, length, share, frozen=frozen)
    scored = forward(scorer, length, 0.0) if scorer else 0.0
    return Work(learnt + looks * once, once + scored)


def critic(config: ModelConfig, length: float, *, passes: int, looks: bool) -> float:
    """A value model of its own, of each token learnt from: as the policy, without an output layer."""
    return looks * forward(config, length, 0.0) + passes * training(config, length, 0.0)


def _products(config: ModelConfig, head: float) -> float:
    count = parameter_count(config)
    return count.attention + count.feed_forward + head * _head(config)


def _head(config: ModelConfig) -> int:
    """Weights of the output layer; of a BERT also those of the layer before it."""
    count = parameter_count(config)
    return count.head + count.tokens if config.family in ENCODERS and config.tied else max(count.head, count.tokens)


def _attention(config: ModelConfig, length: float) -> float:
    layers = config.layers + 2 * config.writing_layers
    return 4 * layers * config.heads * config.head_width * length


def _layer(config: ModelConfig) -> tuple[float, float, float]:
    """Weights of one attention layer, of one feed-forward layer, and of keys and values among the former."""
    count, L, W = parameter_count(config), config.layers, config.writing_layers
    keys = 2 * config.key_heads * config.head_width * config.width
    return count.attention / (L + 2 * W), count.feed_forward / (L + W), keys
