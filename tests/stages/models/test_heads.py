"""Heads that label, against transformers' classes: logits, loss and gradients, and model folders both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from stages.models.decoder import Decoder, new_decoder
from stages.models.encoder import Encoder, load_encoder, new_encoder
from stages.models.heads import Classifier, load_classifier, new_classifier, read_head, save_classifier, take_pooler
from stages.models.hf import load_model
from stages.models.value import load_value_model
from stages.store.architecture import ModelConfig
from stages.store.classifiers import Head
from stages.store.errors import UserError
from tests.stages.models.families import saved
from tests.stages.models.test_encoder import CONFIG, random_encoder

CLASSES = Head(task="classify", labels=["a", "b", "c"])
TAGS = Head(task="tokens", labels=["O", "B-x", "I-x", "B-y"])
OPTIONS = Head(task="choice", labels=[])
LENGTHS = [12, 7, 9]
PAD = 0


def decoder(family: str, folder: Path) -> Decoder:
    """A small decoder of a family, with weights large enough that a mistake shows."""
    saved(family, folder)
    return load_model(folder)


def noisy(model: Classifier) -> Classifier:
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if not name.startswith("body."):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.data.add_(noise * 0.3)
    return model.eval()


def padded(vocabulary: int = 53) -> tuple[Tensor, Tensor]:
    """Rows of unequal length and which of their tokens are real."""
    dice = torch.Generator().manual_seed(1)
    tokens_BT = torch.randint(1, vocabulary, (3, 12), generator=dice)
    real_BT = torch.arange(12) < torch.tensor(LENGTHS)[:, None]
    return tokens_BT.masked_fill(~real_BT, PAD), real_BT


def ours_of(model: Classifier, tokens_BT: Tensor, real_BT: Tensor, types_BT: Tensor | None = None) -> Tensor:
    """Our answers about the same rows, laid end to end; of words, about every real token."""
    documents = torch.tensor([0, *LENGTHS]).cumsum(0)
    types_BT = torch.zeros_like(tokens_BT) if types_BT is None else types_BT
    h_NC = model.hidden_states(tokens_BT[real_BT][None], documents, types_BT[real_BT][None])
    each = torch.arange(len(documents))
    return model.answers(h_NC, documents, each, torch.arange(sum(LENGTHS)))


def bert(head: Head) -> Classifier:
    return noisy(new_classifier(random_encoder(), head, 0))


@pytest.mark.parametrize("head", [CLASSES, TAGS])
def test_bert_agrees_with_transformers_in_logits_loss_and_gradients(head: Head, tmp_path: Path) -> None:
    ours = bert(head)
    save_classifier(ours, tmp_path, pad_id=PAD)
    opens: Any = AutoModelForTokenClassification if head.each_token else AutoModelForSequenceClassification
    theirs = opens.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert isinstance(theirs, BertForTokenClassification if head.each_token else BertForSequenceClassification)
    tokens_BT, real_BT = padded()
    types_BT = (torch.arange(12) >= 4).long().expand(3, 12)
    found = ours_of(ours, tokens_BT, real_BT, types_BT)
    wanted = theirs(tokens_BT, attention_mask=real_BT.long(), token_type_ids=types_BT).logits
    wanted = wanted[real_BT] if head.each_token else wanted
    assert (found - wanted).abs().max() < 1e-4
    targets = torch.arange(len(found)) % len(head.labels)
    losses = [functional.cross_entropy(logits, targets) for logits in (found, wanted)]
    for loss in losses:
        loss.backward()
    assert abs(losses[0].item() - losses[1].item()) < 1e-5
    pairs = [(ours.body.tokens, theirs.bert.embeddings.word_embeddings.weight)]
    if ours.pooler is not None:
        pairs.append((ours.pooler.weight, theirs.bert.pooler.dense.weight))
    for our, their in pairs:
        assert our.grad is not None and torch.allclose(our.grad, their.grad, rtol=1e-4, atol=1e-6)
    assert theirs.config.id2label[1] == head.labels[1]


def test_we_open_what_transformers_saved(tmp_path: Path) -> None:
    shape: dict[str, Any] = {
        "vocab_size": 53,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 40,
        "max_position_embeddings": 20,
        "num_labels": 3,
    }
    tokens_BT, real_BT = padded()
    for number, kind in enumerate((BertForSequenceClassification, BertForTokenClassification)):
        folder = tmp_path / str(number)
        theirs = kind(BertConfig(**shape)).eval()
        theirs.save_pretrained(folder)
        ours = load_classifier(folder)
        wanted = theirs(tokens_BT, attention_mask=real_BT.long()).logits
        wanted = wanted[real_BT] if ours.head.each_token else wanted
        assert (ours_of(ours, tokens_BT, real_BT) - wanted).abs().max() < 1e-4
        assert ours.head.labels == ["LABEL_0", "LABEL_1", "LABEL_2"]


@pytest.mark.parametrize("family", ["gpt2", "gpt1", "llama", "mistral", "qwen2", "qwen3"])
def test_decoders_that_class_texts_agree_with_transformers(family: str, tmp_path: Path) -> None:
    ours = noisy(new_classifier(decoder(family, tmp_path), CLASSES, 0, language=True))
    folder = tmp_path / "classes"
    folder.mkdir()
    save_classifier(ours, folder, pad_id=PAD)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokens_BT, real_BT = padded()
    wanted = theirs(tokens_BT, attention_mask=real_BT.long()).logits
    assert (ours_of(ours, tokens_BT, real_BT) - wanted).abs().max() < 1e-4
    again = load_classifier(folder)
    assert torch.equal(ours_of(again, tokens_BT, real_BT), ours_of(ours, tokens_BT, real_BT))
    assert isinstance(again.body, Decoder) and isinstance(ours.body, Decoder)
    assert torch.equal(again.body.head_weight, ours.body.head_weight)


@pytest.mark.parametrize("family", ["gpt2", "gpt1", "llama", "qwen3"])
def test_decoders_that_label_words_agree_with_transformers(family: str, tmp_path: Path) -> None:
    ours = noisy(new_classifier(decoder(family, tmp_path), TAGS, 0))
    folder = tmp_path / "words"
    folder.mkdir()
    save_classifier(ours, folder, pad_id=PAD)
    tokens_BT, real_BT = padded()
    found = ours_of(ours, tokens_BT, real_BT)
    assert torch.equal(ours_of(load_classifier(folder), tokens_BT, real_BT), found)
    if family == "gpt1":  # has no such class there: the base and a head apart
        assert AutoModelForCausalLM.from_pretrained(folder) is not None and (folder / "head.safetensors").is_file()
        return
    theirs = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32).eval()
    assert (found - theirs(tokens_BT, attention_mask=real_BT.long()).logits[real_BT]).abs().max() < 1e-4


def test_options_of_a_question_share_a_softmax(tmp_path: Path) -> None:
    ours = bert(OPTIONS)
    save_classifier(ours, tmp_path, pad_id=PAD)
    tokens_BT, real_BT = padded()
    theirs = AutoModelForMultipleChoice.from_pretrained(tmp_path, dtype=torch.float32).eval()
    wanted = theirs(tokens_BT[None], attention_mask=real_BT.long()[None]).logits[0]
    documents = torch.tensor([0, *LENGTHS]).cumsum(0)
    h_NC = ours.hidden_states(tokens_BT[real_BT][None], documents, torch.zeros(1, sum(LENGTHS), dtype=torch.long))
    one = ours.answers(h_NC, documents, torch.tensor([0, 3]), documents[:0])
    assert (one[0] - wanted).abs().max() < 1e-4
    two = ours.answers(h_NC, documents, torch.tensor([0, 2, 3]), documents[:0])
    assert torch.equal(two[0], one[0, :2]) and two[1, 0] == one[0, 2] and two[1, 1] == -torch.inf


def test_both_orders_are_summed(tmp_path: Path) -> None:
    head = Head(task="pair", labels=["no", "yes"], both_orders=True)
    model = noisy(new_classifier(decoder("gpt2", tmp_path), head, 0))
    ids = torch.randint(1, 61, (12,), generator=torch.Generator().manual_seed(3))
    documents, none = torch.tensor([0, 6, 12]), torch.zeros(1, 12, dtype=torch.long)
    found = [
        model.answers(model.hidden_states(order[None], documents, none), documents, torch.tensor([0, 2]), documents[:0])
        for order in (ids, ids.roll(6))
    ]
    assert found[0].shape == (1, 2)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)


def test_texts_laid_end_to_end_do_not_see_each_other() -> None:
    tokens_BT, real_BT = padded()
    model = bert(CLASSES)
    assert isinstance(model.body, Encoder)
    documents = torch.tensor([0, *LENGTHS]).cumsum(0)
    packed = model.body.hidden_states(tokens_BT[real_BT][None], documents=documents)
    rows = model.body.hidden_states(tokens_BT, torch.tensor(LENGTHS)).view(3, 12, -1)[real_BT]
    torch.testing.assert_close(packed, rows, rtol=0, atol=1e-5)


def test_the_pooler_of_a_pre_trained_encoder_is_kept(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=53,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=20,
    )
    theirs = BertForPreTraining(config)
    theirs.save_pretrained(tmp_path / "whole")
    model = bert(CLASSES)
    assert take_pooler(model, tmp_path / "whole") and model.pooler is not None
    assert torch.equal(model.pooler.weight, theirs.bert.pooler.dense.weight)
    saved("gpt2", tmp_path / "other")
    assert not take_pooler(model, tmp_path / "other")


def test_the_same_seed_gives_the_same_head() -> None:
    one, same, other = (new_classifier(new_encoder(CONFIG, 0), CLASSES, seed) for seed in (1, 1, 2))
    assert one.sequence_head is not None and same.sequence_head is not None and other.sequence_head is not None
    assert torch.equal(one.sequence_head.weight, same.sequence_head.weight)
    assert not torch.equal(one.sequence_head.weight, other.sequence_head.weight)


def test_what_labels_does_not_write_and_what_writes_does_not_label(tmp_path: Path) -> None:
    config = ModelConfig(layers=1, heads=2, width=16, context=20, vocab_size=53)
    for number, head in enumerate((CLASSES, TAGS, OPTIONS)):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_classifier(new_classifier(new_decoder(config, 0), head, 0), folder, pad_id=PAD)
        with pytest.raises(UserError, match="model that labels texts and writes none"):
            load_model(folder)
        with pytest.raises(UserError, match="labels"):
            load_value_model(folder)
    save_classifier(bert(CLASSES), tmp_path, pad_id=PAD)
    with pytest.raises(UserError, match="model that labels texts and writes none"):
        load_encoder(tmp_path)
    saved("gpt2", tmp_path / "plain")
    with pytest.raises(UserError, match="holds no model that labels"):
        read_head(tmp_path / "plain")


def test_a_damaged_head_is_refused_in_a_sentence(tmp_path: Path) -> None:
    model = new_classifier(decoder("gpt1", tmp_path), TAGS, 0)
    folder = tmp_path / "words"
    folder.mkdir()
    save_classifier(model, folder, pad_id=PAD)
    (folder / "head.safetensors").write_bytes(b"{}")
    with pytest.raises(UserError, match=r"head\.safetensors cannot be read"):
        load_classifier(folder)
    (folder / "classifier.json").write_text(json.dumps({"task": "sing"}))
    with pytest.raises(UserError, match=r"classifier\.json cannot be read"):
        load_classifier(folder)
