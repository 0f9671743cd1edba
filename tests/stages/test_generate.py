"""The engine against recomputation without a cache, against transformers, and against itself alone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from stages.generate import Engine, Sampling, Token, alike, choose, generate
from stages.models.decoder import Decoder, new_decoder
from stages.models.hf import load_model
from stages.models.inference import InferenceDecoder
from stages.store.errors import WorkFailed
from stages.store.presets import ModelConfig

GREEDY = Sampling(temperature=0, max_new_tokens=10)
WARM = Sampling(temperature=0.9, top_k=9, top_p=0.9, seed=5, max_new_tokens=10)
FREE = Sampling(seed=7, max_new_tokens=10)


@pytest.fixture(scope="module", params=["gpt2", "gpt1"])
def model(request: pytest.FixtureRequest) -> Decoder:
    norm = "pre" if request.param == "gpt2" else "post"
    shape = {"layers": 2, "heads": 2, "width": 16, "context": 24, "vocab_size": 29}
    model = new_decoder(ModelConfig(family=request.param, norm=norm, **shape), 0)
    for number, parameter in enumerate(model.parameters()):
        parameter.data.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.2)
    return model.eval()


def run(engine: Engine) -> dict[int, list[Token]]:
    """All tokens by slot, until every slot has finished."""
    seen: dict[int, list[Token]] = {}
    while events := engine.step():
        for event in events:
            seen.setdefault(event.slot, []).append(event)
    return seen


def uncached(model: Decoder, prompt: list[int], sampling: Sampling) -> tuple[list[int], list[float]]:
    """The same sequence with every step computed from the start."""
    tokens, logprobs, generator = list(prompt), [], torch.Generator().manual_seed(sampling.seed)
    while len(tokens) - len(prompt) < sampling.max_new_tokens and len(tokens) < model.config.context:
        logits = model(torch.tensor([tokens]))[:, -1].detach()
        u = torch.rand((), dtype=torch.float64, generator=generator).item()
        token = int(choose(logits, [sampling], [u])[0])
        logprobs.append(logits.log_softmax(-1)[0, token].item())
        tokens.append(token)
    return tokens[len(prompt) :], logprobs


@pytest.mark.parametrize("sampling", [GREEDY, WARM, FREE])
def test_the_cache_changes_nothing(model: Decoder, sampling: Sampling) -> None:
    for prompt in ([3], [1, 2, 3, 4, 5], list(range(20))):
        engine = Engine(model, 1)
        slot = engine.add(prompt, sampling)
        events = run(engine)[slot]
        tokens, logprobs = uncached(model, prompt, sampling)
        assert [event.token for event in events] == tokens
        assert [event.logprob for event in events] == pytest.approx(logprobs, abs=1e-4)
        assert [event.finished for event in events] == [None] * (len(tokens) - 1) + ["length"]


def test_a_batch_gives_what_each_sequence_gives_alone(model: Decoder) -> None:
    draw = random.Random(1)
    requests = [
        ([draw.randrange(29) for _ in range(draw.randint(1, 15))], Sampling(seed=i, max_new_tokens=draw.randint(1, 12)))
        for i in range(9)
    ]
    requests += [([4, 4], WARM), ([8], GREEDY)]
    alone = [uncached(model, prompt, sampling)[0] for prompt, sampling in requests]
    assert generate(model, [p for p, _ in requests], [s for _, s in requests], max_slots=4) == alone


def test_the_cache_grows_with_the_longest_sequence(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [[3], [1, 2, 3, 4, 5, 6, 7, 8, 9], [5, 5]]
    expected = generate(model, prompts, GREEDY)
    monkeypatch.setattr(Engine, "START", 3)
    assert generate(model, prompts, GREEDY, max_slots=2) == expected


def test_random_numbers_drawn_ahead_are_those_drawn_one_by_one(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.generate.DRAWN_AHEAD", 3)
    assert generate(model, [[3]], FREE) == [uncached(model, [3], FREE)[0]]


def test_prompts_of_like_length_are_read_together(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    prefill_rows = InferenceDecoder.prefill_rows

    def noting(self: InferenceDecoder, tokens_BT: torch.Tensor, *rest: Any) -> None:
        read.append(tuple(tokens_BT.shape))
        prefill_rows(self, tokens_BT, *rest)

    monkeypatch.setattr(InferenceDecoder, "prefill_rows", noting)
    prompts = [[4] * n for n in (9, 2, 10, 1, 3, 11)]
    together = generate(model, prompts, GREEDY)
    assert read == [(2, 2), (3, 10)]
    assert together == [uncached(model, prompt, GREEDY)[0] for prompt in prompts]


def test_equal_prompts_are_read_once(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = InferenceDecoder.prefill_rows

    def counted(self: InferenceDecoder, tokens_BT: torch.Tensor, *rest: Any) -> None:
        seen.append(len(tokens_BT))
        real(self, tokens_BT, *rest)

    monkeypatch.setattr(InferenceDecoder, "prefill_rows", counted)
    prompts = [[1, 2, 3, 4], [5, 6, 7], [1, 2, 3, 4], [5, 6, 7], [1, 2, 3, 4]]
    each = [Sampling(seed=seed, max_new_tokens=6) for seed in range(5)]
    found = generate(model, prompts, each, max_slots=5)
    assert seen == [2]
    assert found == [generate(model, [prompt], one)[0] for prompt, one in zip(prompts, each, strict=True)]


def test_groups_of_like_length_hold_little_padding_and_a_bounded_number_of_tokens() -> None:
    lengths = [1, 100, 90, 2, 40, 41, 42, 300]
    assert list(alike(lengths, 150)) == [[0, 3], [4, 5, 6], [2], [1], [7]]
    assert list(alike(lengths, 1_000)) == [[0, 3], [4, 5, 6], [2, 1], [7]]
    assert list(alike([], 10)) == []


def test_a_slot_cancelled_before_its_prompt_is_read_leaves_its_room_to_others(model: Decoder) -> None:
    engine = Engine(model, 2)
    first, second = engine.add([1, 2, 3], GREEDY), engine.add([7, 8], GREEDY)
    assert engine.cancel(first)
    third = engine.add([5, 6, 7, 8], GREEDY)
    tokens = {slot: [event.token for event in events] for slot, events in run(engine).items()}
    assert tokens == {second: uncached(model, [7, 8], GREEDY)[0], third: uncached(model, [5, 6, 7, 8], GREEDY)[0]}


def test_cancel_frees_the_slot_and_disturbs_no_other(model: Decoder) -> None:
    engine = Engine(model, 3)
    slots = [engine.add([n, n + 1], Sampling(seed=n, max_new_tokens=12)) for n in range(3)]
    tokens: dict[int, list[int]] = {slot: [] for slot in slots}
    with pytest.raises(ValueError, match="all 3 slots"):
        engine.add([1])
    for _ in range(4):
        for event in engine.step():
            tokens[event.slot].append(event.token)
    assert engine.cancel(slots[0]) and not engine.cancel(slots[0])
    assert engine.free_slots == 1 and engine.active == [slots[2], slots[1]]
    late = engine.add([9], GREEDY)
    assert late not in slots
    for slot, events in run(engine).items():
        tokens.setdefault(slot, []).extend(event.token for event in events)
    for n in (1, 2):
        assert tokens[slots[n]] == uncached(model, [n, n + 1], Sampling(seed=n, max_new_tokens=12))[0]
    assert tokens[late] == uncached(model, [9], GREEDY)[0]
    assert len(tokens[slots[0]]) == 4 and engine.free_slots == 3 and engine.step() == []


def test_greedy_equals_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32, "vocab_size": 41}
    theirs = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=None)).eval()
    for parameter in theirs.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    theirs.save_pretrained(tmp_path)
    prompt = [5, 9, 2]
    expected = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=20, pad_token_id=0)[0, 3:]
    ours = generate(load_model(tmp_path), [prompt], Sampling(temperature=0, max_new_tokens=20))
    assert ours == [expected.tolist()]


def test_stops_end_a_sequence_and_are_reported(model: Decoder) -> None:
    free = generate(model, [[3, 1]], FREE)[0]
    stop = free[4]
    by_id = Engine(model)
    by_id.add([3, 1], Sampling(seed=7, stop_ids=(stop,)))
    events = run(by_id)[0]
    assert [e.token for e in events] == free[: free.index(stop) + 1]
    assert events[-1].finished == "stop"
    by_sequence = Engine(model)
    by_sequence.add([3, 1], Sampling(seed=7, stop_sequences=((99,), tuple(free[2:4]))))
    assert [e.token for e in run(by_sequence)[0]] == free[:4]


def test_a_sequence_ends_at_the_context_and_longer_prompts_are_refused(model: Decoder) -> None:
    engine = Engine(model, 2, max_length=1000)
    assert engine.max_length == 24
    engine.add([1] * 20, Sampling(max_new_tokens=100))
    events = run(engine)[0]
    assert len(events) == 4 and events[-1].finished == "length"
    for prompt in ([], [1] * 24, [29], [-1]):
        with pytest.raises(ValueError, match="prompt"):
            engine.add(prompt)
    assert engine.free_slots == 2


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    uniforms = [(i + 0.5) / 1000 for i in range(1000)]

    def counts(**settings: float) -> list[int]:
        chosen = choose(logits.expand(1000, 4), [Sampling(**settings)] * 1000, uniforms)  # type: ignore[arg-type]
        return torch.bincount(chosen, minlength=4).tolist()

    assert counts() == pytest.approx([500, 300, 150, 50], abs=1)
    assert counts(top_k=2) == pytest.approx([625, 375, 0, 0], abs=1)
    assert counts(top_p=0.6) == pytest.approx([625, 375, 0, 0], abs=1)
    assert counts(top_p=0.49) == [1000, 0, 0, 0]
    assert counts(top_k=3, top_p=0.8) == pytest.approx([625, 375, 0, 0], abs=1)
    assert counts(temperature=0.5) == pytest.approx([685, 247, 62, 7], abs=2)
    assert counts(temperature=0) == counts(temperature=1e-300) == [1000, 0, 0, 0]


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"max_new_tokens": 0}])
def test_settings_out_of_bounds_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must hold"):
        Sampling(**wrong)


def test_dropout_is_off_while_generating_and_the_mode_is_restored() -> None:
    config = ModelConfig(layers=1, heads=1, width=8, context=16, vocab_size=11, dropout=0.5)
    model = new_decoder(config, 0).train()
    first, second = (generate(model, [[1, 2, 3]], GREEDY) for _ in range(2))
    assert first == second and model.training


def test_damaged_weights_are_said_rather_than_sampled() -> None:
    model = new_decoder(ModelConfig(layers=1, heads=1, width=8, context=16, vocab_size=11), 0)
    model.positions.data.fill_(float("nan"))
    engine = Engine(model, 1)
    engine.add([1])
    with pytest.raises(WorkFailed, match="not a number"):
        engine.step()
