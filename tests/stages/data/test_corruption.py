"""Span corruption: nothing of a text is lost, lengths and rates are T5's, and spans lie evenly."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.data.corruption import Sentinels, corrupted, hidden_places, lengths_of, text_for
from stages.store.errors import UserError

SENTINELS = Sentinels(torch.arange(1_099, 999, -1), end=1)
SHARES, MEANS = st.floats(0.01, 0.95), st.floats(1, 10)


def restored(read: Sequence[int], written: Sequence[int], sentinels: Sentinels) -> list[int]:
    """The text whose corruption these are, without the ends: each sentinel gives way to what is written after it.

    A sentinel that is not written, as a model may leave one out, gives way to nothing.
    """
    known = set(sentinels.ids.tolist())
    filled: dict[int, list[int]] = {}
    current: list[int] = []
    for token in without_end(written, sentinels.end):
        if token in known:
            current = filled.setdefault(token, [])
        else:
            current.append(token)
    pieces = (filled.get(token, []) if token in known else [token] for token in without_end(read, sentinels.end))
    return [token for piece in pieces for token in piece]


def without_end(tokens: Sequence[int], end: int) -> Sequence[int]:
    return tokens[:-1] if tokens and tokens[-1] == end else tokens


@settings(max_examples=200, deadline=None)
@given(text=st.integers(2, 300), share=SHARES, mean=MEANS, seed=st.integers(0, 2**31))
def test_what_is_read_and_written_is_the_text_again(text: int, share: float, mean: float, seed: int) -> None:
    dice = torch.Generator().manual_seed(seed)
    lengths = lengths_of(text, share, mean)
    tokens_BL = torch.randint(0, 5, (3, text), generator=dice)  # ends of text among them
    many = Sentinels(torch.arange(1_300, 1_000, -1), end=1)
    hidden_BL = hidden_places(3, lengths, dice)
    read_BS, written_BT = corrupted(tokens_BL, hidden_BL, many)
    assert read_BS.shape == (3, lengths.read)
    assert written_BT.shape == (3, lengths.written)
    for row in range(3):
        assert restored(read_BS[row].tolist(), written_BT[row].tolist(), many) == tokens_BL[row].tolist()
        assert not set(tokens_BL[row][hidden_BL[row]].tolist()) & set(many.ids.tolist())
    assert (hidden_BL.sum(1) == lengths.hidden).all()


def test_a_sentence_looks_as_in_the_paper() -> None:
    tokens = torch.tensor([[10, 11, 12, 13, 14, 15, 16, 17, 18, 19]])
    hidden = torch.tensor([[0, 0, 1, 1, 0, 0, 0, 0, 1, 0]]).bool()
    read, written = corrupted(tokens, hidden, SENTINELS)
    assert read.tolist() == [[10, 11, 1_099, 14, 15, 16, 17, 1_098, 19, 1]]
    assert written.tolist() == [[1_099, 12, 13, 1_098, 18, 1_097, 1]]


def test_the_rates_over_a_million_tokens_are_those_stated() -> None:
    lengths = text_for(512, 0.15, 3.0)
    count = 1_000_000 // lengths.text + 1
    hidden_BL = hidden_places(count, lengths, torch.Generator().manual_seed(0))
    assert hidden_BL.numel() >= 1_000_000
    assert hidden_BL.float().mean().item() == pytest.approx(0.15, abs=0.5 / lengths.text)  # rounded once for each text
    starts_BL = hidden_BL & ~torch.cat((torch.zeros(count, 1, dtype=torch.bool), hidden_BL[:, :-1]), 1)
    assert (starts_BL.sum(1) == lengths.spans).all()
    assert hidden_BL.sum().item() / starts_BL.sum().item() == pytest.approx(3.0, abs=0.05)
    # The first token is never hidden, the last always; those in the middle alike, within five standard errors.
    middle = hidden_BL[:, lengths.text // 3 : 2 * lengths.text // 3].float().mean().item()
    share = lengths.hidden / lengths.text
    tokens = count * (lengths.text // 3)
    assert abs(middle - share) < 5 * (3 * share * (1 - share) / tokens) ** 0.5  # neighbours come in spans of about 3
    assert not hidden_BL[:, 0].any()
    assert hidden_BL[:, -1].all()


def test_the_lengths_of_spans_are_those_of_even_cuts() -> None:
    """A cut of 85 tokens into 28 pieces has pieces of length one with probability 27 / 84."""
    lengths = text_for(512, 0.15, 3.0)
    hidden_BL = hidden_places(4_000, lengths, torch.Generator().manual_seed(1))
    padded = torch.cat((torch.zeros(4_000, 1), hidden_BL.float(), torch.zeros(4_000, 1)), 1).diff(dim=1)
    runs = (padded == -1).nonzero()[:, 1] - (padded == 1).nonzero()[:, 1]
    single = (runs == 1).float().mean().item()
    assert single == pytest.approx(27 / 84, abs=5 * (0.32 * 0.68 / len(runs)) ** 0.5)


def test_lengths_are_those_of_the_released_code() -> None:
    lengths = text_for(512, 0.15, 3.0)
    assert (lengths.text, lengths.read, lengths.written) == (568, 512, 114)
    assert text_for(512, 0.5, 3.0).read <= 512


@given(room=st.integers(4, 2_000), share=SHARES, mean=MEANS)
@settings(max_examples=100, deadline=None)
def test_the_longest_text_that_fits_is_taken(room: int, share: float, mean: float) -> None:
    lengths = text_for(room, share, mean)
    assert lengths.read <= room
    assert lengths_of(lengths.text + 1, share, mean).read > room


def test_too_few_sentinels_and_too_little_room_are_refused() -> None:
    with pytest.raises(UserError, match="28 hidden spans, and the tokenizer has 5 sentinels"):
        Sentinels(torch.arange(5), 1).check(text_for(512, 0.15, 3.0))
    with pytest.raises(UserError, match="too short"):
        text_for(2, 0.15, 3.0)
