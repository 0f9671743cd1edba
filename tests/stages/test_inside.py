"""Looking inside: log-probabilities, expectations and attention equal those of transformers on the same folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from stages.asking.inside import Inside, attention, score
from stages.asking.inside_t5 import InsideT5
from stages.data.tokenizer import TextTokenizer, save_tokenizer, train_tokenizer
from stages.desk import Job
from stages.models.decoder import new_decoder
from stages.models.encoder import new_encoder, save_encoder
from stages.models.hf import save_weights
from stages.models.t5 import load_t5, new_t5, save_t5
from stages.models.transformer_xl import TransformerXL, new_transformer_xl, save_transformer_xl
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError
from stages.store.presets import load_preset
from stages.store.workspace import Workspace

TEXT = "Naïve <|endoftext|> \x1b[31m日本 and more."
SHAPES = {
    "gpt2": {"heads": 4},
    "llama": {"heads": 4, "kv_heads": 2, "norm_kind": "rms", "positions": "rotary", "gated": True, "activation": "silu"}
    | {"bias": False},
    "mistral": {"heads": 4, "kv_heads": 2, "norm_kind": "rms", "positions": "rotary", "gated": True}
    | {"activation": "silu", "bias": False, "window": 6},
}


def shape(family: str, **traits: object) -> ModelConfig:
    return ModelConfig(family=family, layers=2, width=32, context=64, vocab_size=260, **traits)  # type: ignore[arg-type]


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that attention is not the same everywhere."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model


@pytest.fixture(params=sorted(SHAPES))
def decoder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    model = lively(new_decoder(shape(request.param, **SHAPES[request.param]), 3))
    save_weights(model, tmp_path)  # type: ignore[arg-type]  # a Decoder
    save_tokenizer(train_tokenizer([], "byte", 260, split_digits=False), tmp_path)
    return tmp_path


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    texts = ["the cat sat on the mat and the dog lay on the log " * 4]
    tokenizer = train_tokenizer(texts, "wordpiece", 80, split_digits=False)
    save_tokenizer(tokenizer, tmp_path)
    config = ModelConfig(
        family="bert", layers=2, heads=4, width=32, context=32, vocab_size=80, types=2, norm="post", activation="gelu"
    )
    save_encoder(lively(new_encoder(config, 3)), tmp_path, pad_id=0)  # type: ignore[arg-type]  # an Encoder
    return tmp_path


def opened(auto: Callable[..., torch.nn.Module], folder: Path) -> torch.nn.Module:
    """The same folder by transformers, with attention that it can tell of."""
    return auto(folder, dtype=torch.float32, attn_implementation="eager").eval()


def test_scores_of_a_decoder_are_those_of_transformers(decoder: Path) -> None:
    inside = Inside(decoder)
    tokenizer = TextTokenizer.load(decoder)
    ids = [tokenizer.eos_id, *tokenizer.encode(TEXT)]
    found = inside.score(TEXT, count=5)
    with torch.no_grad():
        logs = opened(AutoModelForCausalLM.from_pretrained, decoder)(torch.tensor([ids])).logits[0].log_softmax(-1)
    told = torch.tensor([token.logprob for token in found.tokens])
    torch.testing.assert_close(told, logs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0], atol=1e-4, rtol=0)
    for place, token in enumerate(found.tokens):
        assert token.rank == 1 + int((logs[place] > logs[place, ids[place + 1]]).sum())
        torch.testing.assert_close(token.entropy, float(-(logs[place].exp() * logs[place]).sum()), atol=1e-4, rtol=1e-4)
        likely = logs[place].exp().topk(5).values
        torch.testing.assert_close(torch.tensor([one.probability for one in token.top]), likely, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.next[0].probability, float(logs[-1].exp().max()), atol=1e-4, rtol=0)
    assert "<|endoftext|>" in "".join(token.text for token in found.tokens), "what a person wrote is text, not a token"


def test_attention_of_a_decoder_is_that_of_transformers(decoder: Path) -> None:
    inside = Inside(decoder)
    for layer in range(2):
        reading, weights = inside.attention(TEXT, layer)
        with torch.no_grad():
            model = opened(AutoModelForCausalLM.from_pretrained, decoder)
            theirs = model(torch.tensor([reading.ids]), output_attentions=True).attentions[layer][0]
        torch.testing.assert_close(weights, theirs, atol=1e-5, rtol=0)
        assert weights.amax() > 0.5, "a model whose attention says something"
    assert inside.score("a").tokens[0].logprob == pytest.approx(inside.score("a").tokens[0].logprob), "no hook is left"


def test_an_encoder_is_scored_with_each_token_hidden_and_attends_both_ways(encoder: Path) -> None:
    inside = Inside(encoder)
    reading, weights = inside.attention("the cat sat on the dog", 1)
    theirs = opened(AutoModelForMaskedLM.from_pretrained, encoder)
    with torch.no_grad():
        expected = theirs(torch.tensor([reading.ids]), output_attentions=True).attentions[1][0]
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=0)
    mask = inside.tokenizer.id_of("[MASK]")
    found = inside.score("the cat sat on the dog")
    assert [token.id for token in found.tokens] == reading.ids[reading.first : reading.stop]
    for place, token in zip(range(reading.first, reading.stop), found.tokens, strict=True):
        hidden = torch.tensor([reading.ids])
        hidden[0, place] = mask
        with torch.no_grad():
            logs = theirs(hidden).logits[0, place].log_softmax(-1)
        assert token.logprob == pytest.approx(float(logs[token.id]), abs=1e-4)
    assert not found.next


def test_a_transformer_xl_reads_by_segments_and_its_attention_is_what_its_blocks_do(tmp_path: Path) -> None:
    config = load_preset("tiny-transformer-xl")
    config = msgspec.structs.replace(config, layers=2, width=32, heads=4, context=16, memory=16, vocab_size=260)
    model = lively(new_transformer_xl(config, 3))
    assert isinstance(model, TransformerXL)
    save_tokenizer(train_tokenizer([], "byte", 260, split_digits=False), tmp_path)
    save_transformer_xl(model, tmp_path, eos_id=0, pad_id=0)
    inside, text = Inside(tmp_path), TEXT * 2
    ids = torch.tensor([inside.read(text).ids])
    found, memory, total = inside.score(text), model.empty_memory(1), 0.0
    for inputs, targets in zip(ids[:, :-1].split(16, 1), ids[:, 1:].split(16, 1), strict=True):
        loss, memory = model(inputs, targets, memory)
        total -= loss.item() * targets.shape[1]
    assert sum(token.logprob for token in found.tokens) == pytest.approx(total, rel=1e-5) and not found.left_out
    reading, weights = inside.attention(text, 1)
    assert len(reading.ids) == 16
    block, given = inside.model.blocks[1], []
    block.register_forward_pre_hook(lambda _, values: given.extend(values))
    with torch.no_grad():
        inside._hidden_states(reading.ids)
        value_HTD = block.keys_in(given[0][0]).view(16, 8, 8).transpose(0, 1)[4:]  # type: ignore[operator]  # a Layer
        attended = block.attention_out((weights @ value_HTD).transpose(0, 1).reshape(16, -1))  # type: ignore[operator]
        torch.testing.assert_close(attended, block._attention(*given)[0], atol=1e-4, rtol=1e-4)  # type: ignore[operator]


@pytest.fixture(params=[2, 3], ids=["as deep", "deeper in writing"])
def t5(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    config = msgspec.structs.replace(
        load_preset("tiny-t5"), layers=2, decoder_layers=request.param, width=32, heads=4, context=32, vocab_size=270
    )
    save_t5(lively(new_t5(config, 3)), tmp_path, pad_id=1, eos_id=0)  # type: ignore[arg-type]  # a T5
    save_tokenizer(train_tokenizer([], "byte", 270, split_digits=False, sentinels=4), tmp_path)
    return tmp_path


def test_an_encoder_decoder_is_asked_what_it_writes_and_shows_all_three_attentions(t5: Path) -> None:
    inside = InsideT5(t5)
    theirs = opened(AutoModelForSeq2SeqLM.from_pretrained, t5)
    read, written = "one two", "zwei"
    ids = [*inside.tokenizer.encode(read), inside.tokenizer.eos_id]
    targets = inside.tokenizer.encode(written)
    begun = torch.tensor([[inside.tokenizer.pad_id, *targets]])
    with torch.no_grad():
        output = theirs(torch.tensor([ids]), decoder_input_ids=begun, output_attentions=True)
    logs = output.logits[0].log_softmax(-1)
    found = inside.score(f"{read} => {written}")
    assert [token.logprob for token in found.tokens] == pytest.approx(
        [float(logs[place, token]) for place, token in enumerate(targets)], abs=1e-4
    )
    assert found.next[0].probability == pytest.approx(float(logs[-1].exp().max()), abs=1e-4) and not found.hides
    S = len(ids)
    for layer in range(inside.layers):
        reading, rows = inside.attention(f"{read} => {written}", layer)
        assert reading.first == S + 1 and reading.ids == [*ids, *begun[0].tolist()]
        torch.testing.assert_close(rows[:, S:, S:], output.decoder_attentions[layer][0], atol=1e-4, rtol=0)
        torch.testing.assert_close(rows[:, S:, :S], output.cross_attentions[layer][0], atol=1e-4, rtol=0)
        above = output.encoder_attentions[layer][0] if layer < 2 else torch.zeros(4, S, S)
        torch.testing.assert_close(rows[:, :S, :S], above, atol=1e-4, rtol=0)
    with pytest.raises(UserError, match="There is no layer"):
        inside.attention(read, inside.layers)


def test_an_encoder_decoder_without_an_answer_has_each_token_hidden_behind_a_sentinel(t5: Path) -> None:
    inside = InsideT5(t5)
    theirs = opened(AutoModelForSeq2SeqLM.from_pretrained, t5)
    ids, sentinel = inside.tokenizer.encode("hello"), inside.tokenizer.id_of("<extra_id_0>")
    found = inside.score("hello")
    assert found.hides and not found.next and [token.id for token in found.tokens] == ids
    for place, token in enumerate(found.tokens):
        read = torch.tensor([[*ids[:place], sentinel, *ids[place + 1 :], inside.tokenizer.eos_id]])
        with torch.no_grad():
            logits = theirs(read, decoder_input_ids=torch.tensor([[inside.tokenizer.pad_id, sentinel]])).logits
        assert token.logprob == pytest.approx(float(logits[0, -1].log_softmax(-1)[token.id]), abs=2e-3)
    assert inside.attention("hello", 1)[1].shape == (4, 6, 6)


def test_a_blank_is_a_sentinel_on_either_side_of_the_arrow(t5: Path) -> None:
    inside = InsideT5(t5)
    reading, _ = inside.attention("a ___ b ___ => ___c", 0)
    marks = [inside.tokenizer.id_of(f"<extra_id_{number}>") for number in range(2)]
    assert [token for token in reading.ids if token in marks] == [*marks, marks[0]]
    assert inside.score("a ___ b => ___c").tokens[0].text == "<extra_id_0>"
    assert "its own answer" in inside.score("a ___ b").note
    with pytest.raises(UserError, match="more blanks than the 4"):
        inside.score("___ " * 5)


def test_an_encoder_decoder_that_was_tuned_shows_its_own_answer(t5: Path) -> None:
    save_t5(load_t5(t5), t5, pad_id=1, eos_id=0, prefixes={"questions": "q: "})
    inside = InsideT5(t5)
    found = inside.score("hi")
    assert [token.rank for token in found.tokens] == [1] * len(found.tokens), "it wrote the likeliest token each time"
    assert found.tokens and "its own answer" in found.note and not found.hides
    for text in ("hi => ", "q: hi => "):
        begins = math.exp(found.tokens[0].logprob)
        assert inside.score(text).next[0].probability == pytest.approx(begins, abs=1e-5), "the prefix is there once"


def test_a_text_beyond_the_context_is_cut_and_it_is_said(decoder: Path) -> None:
    found = Inside(decoder).score("x" * 100)
    assert (len(found.tokens), found.left_out) == (63, 37)
    assert Inside(decoder).score("").tokens == []


def test_the_desk_answers_with_plain_values_and_refuses_what_is_not_there(decoder: Path, tmp_path: Path) -> None:
    job = Job(Workspace(tmp_path / "ws").ensure())
    found = score(job, str(decoder), "hello", count=3)
    assert (found["layers"], found["heads"], found["hides"]) == (2, 4, False)
    assert [token["text"] for token in found["tokens"]] == list("hello")
    assert [len(token["top"]) for token in found["tokens"]] == [3] * 5
    rows = attention(job, str(decoder), "hello", 1, 3)["weights"]
    assert [sum(row) for row in rows] == pytest.approx([1.0] * 6, abs=1e-3)
    assert rows[0][1:] == [0.0] * 5
    for layer, head in ((2, 0), (0, 4), (-1, 0)):
        with pytest.raises(UserError, match="There is no"):
            attention(job, str(decoder), "hello", layer, head)
