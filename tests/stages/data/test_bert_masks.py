"""Masks: the stated shares within sampling error, never a special token, whole words where asked for."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from stages.data.bert_masks import IGNORED, Blanks, masked
from stages.data.tokenizer import TextTokenizer, save_tokenizer, train_tokenizer
from stages.store.errors import UserError

TEXT = "the quick brown fox jumps over the lazy dog while unbelievable counterexamples keep reappearing "


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("wordpiece")
    save_tokenizer(train_tokenizer([TEXT * 20], "wordpiece", 60, split_digits=False), folder)
    return TextTokenizer.load(folder)


@pytest.fixture(scope="module")
def blanks(tokenizer: TextTokenizer) -> Blanks:
    return Blanks.of(tokenizer)


def near(count: int, of: int, share: float) -> bool:
    """Whether a count lies within five standard errors of its share."""
    return abs(count - of * share) < 5 * math.sqrt(of * share * (1 - share))


@pytest.mark.parametrize("share", [0.15, 0.25])
def test_a_million_tokens_are_asked_masked_and_replaced_in_the_stated_shares(blanks: Blanks, share: float) -> None:
    dice = torch.Generator().manual_seed(7)
    tokens_BT = blanks.ordinary[torch.randint(len(blanks.ordinary), (1_000, 1_000), generator=dice)]
    seen_BT, targets_BT = masked(tokens_BT, blanks, share=share, generator=dice)
    asked_BT = targets_BT != IGNORED
    asked = int(asked_BT.sum())
    assert near(asked, tokens_BT.numel(), share)
    assert bool((targets_BT[asked_BT] == tokens_BT[asked_BT]).all())
    assert bool((seen_BT[~asked_BT] == tokens_BT[~asked_BT]).all())
    hidden = int((seen_BT[asked_BT] == blanks.mask).sum())
    assert near(hidden, asked, 0.8)
    others = int((seen_BT[asked_BT] != tokens_BT[asked_BT]).sum()) - hidden
    ordinary = len(blanks.ordinary)
    assert near(others, asked, 0.1 * (ordinary - 1) / ordinary)  # one draw in `ordinary` is the token itself


def test_special_tokens_are_never_asked_about(blanks: Blanks) -> None:
    tokens_BT = blanks.framed(blanks.ordinary[:20].repeat(50, 1))
    _, targets_BT = masked(tokens_BT, blanks, share=0.99)
    assert bool((targets_BT[:, [0, -1]] == IGNORED).all())
    assert int((targets_BT != IGNORED).sum()) > 900


def test_all_masks_whatever_is_asked_about(blanks: Blanks) -> None:
    tokens_BT = blanks.ordinary[:50].repeat(50, 1)
    seen_BT, targets_BT = masked(tokens_BT, blanks, share=0.5, recipe="all")
    assert bool((seen_BT[targets_BT != IGNORED] == blanks.mask).all())


def test_whole_words_are_asked_about_together(tokenizer: TextTokenizer, blanks: Blanks) -> None:
    ids = tokenizer.encode(TEXT)
    inner = [tokenizer.name_of(token).startswith("##") for token in ids]
    assert any(inner)
    torch.manual_seed(0)
    _, targets_BT = masked(torch.tensor([ids] * 2_000), blanks, share=0.3, whole_words=True)
    asked_BT = (targets_BT != IGNORED).tolist()
    for row in asked_BT:
        for place in range(1, len(ids)):
            if inner[place]:
                assert row[place] == row[place - 1]
    askable = sum(not blanks.special[token] for token in ids)
    assert 0.28 < sum(map(sum, asked_BT)) / (2_000 * askable) < 0.32


def test_equal_seeds_give_equal_masks(blanks: Blanks) -> None:
    tokens_BT = blanks.ordinary[:30].repeat(4, 1)
    twice = [masked(tokens_BT, blanks, share=0.4, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(twice[0][0], twice[1][0])
    assert torch.equal(twice[0][1], twice[1][1])


def test_a_tokenizer_without_a_mask_is_refused(tmp_path: Path) -> None:
    save_tokenizer(train_tokenizer([], "byte", 260, split_digits=False), tmp_path)
    with pytest.raises(UserError, match="no token that masks"):
        Blanks.of(TextTokenizer.load(tmp_path))
