"""What models cost: figures of presets and plans, what fits, the rate they are reckoned by, and the command."""

from __future__ import annotations

import json
import socket
from typing import Any

import msgspec
import pytest

from stages.store.errors import UserError
from stages.store.presets import load_preset
from stages.store.rundir import Parent, RunDir
from stages.store.sizes import flops_per_token
from stages.store.workspace import Workspace, state_folder
from tests.workbench.conftest import TOKENIZER_DIGEST, add_metrics, add_run
from workbench.cli import models as cli_models
from workbench.cli.root import run as command
from workbench.models.model_cards import Plan, all_cards, find_card, long, rate_of, size, time_of
from workbench.models.rates import Machine, nearest_rate, rates_of_runs, remember, remembered

CPU = Machine("2 CPU cores", 16 * 10**9, gpu=False)
GPU = Machine("NVIDIA H100", 80 * 10**9, gpu=True)


def test_every_card_counts_its_parts_and_costs_more_to_train_than_to_run() -> None:
    cards = all_cards()
    assert {"gpt1", "gpt2-xl", "gpt3", "bert-large", "t5-base", "deepseek-r1", "llama-3.2-1b", "qwen3-0.6b"} <= {
        card.name for card in cards
    }
    assert [card.parameters for card in cards] == sorted(card.parameters for card in cards)
    for card in cards:
        assert sum(card.parts.values()) == card.parameters >= card.active
        assert card.memory(Plan(), GPU).total > card.running(Plan()).total
        assert card.flops(Plan()) > 6 * 0.5 * card.active * card.tokens(Plan())


def test_what_fits_follows_from_the_memory_of_the_machine() -> None:
    assert find_card("gpt2-small").fits(Plan(), CPU) == "train"
    assert find_card("gpt2-xl").fits(Plan(), CPU) == "run"
    assert find_card("gpt2-xl").fits(Plan(), GPU) == "train"
    assert find_card("gpt2-xl").fits(Plan(micro_batch=512), GPU) == "run"
    assert find_card("gpt3").fits(Plan(), GPU) == "no"


def test_the_plan_says_tokens_and_context_and_the_model_bounds_the_context() -> None:
    card = find_card("gpt2-small")
    assert card.tokens(Plan()) == 20 * 124_439_808 and card.tokens(Plan(tokens=1e9)) == 1e9
    assert card.context(Plan(context=10**6)) == 1_024 and find_card("llama-3.2-1b").context(Plan()) == 4_096
    assert card.flops(Plan(tokens=1e9, context=128)) == 1e9 * flops_per_token(load_preset("gpt2-small"), 128)


def finished(workspace: Workspace, name: str, **changes: Any) -> RunDir:
    parents = {"dataset": Parent("world", "d1" * 32), "tokenizer": Parent("world-bpe", TOKENIZER_DIGEST)}
    settings = {"preset": "tiny"} | changes.pop("settings", {})
    state = {"device": "cpu", "host": socket.gethostname()} | changes
    run = add_run(workspace, "pretrain", name, settings=settings, parents=parents, **state)
    add_metrics(run, 20)
    return run


def test_the_rate_is_that_of_runs_of_this_machine_nearest_in_size(populated: Workspace) -> None:
    assert rates_of_runs(populated, CPU) == []  # the hand-made runs say no device and no speed of this host
    finished(populated, "a")
    finished(populated, "b", settings={"width": 256})
    finished(populated, "on-a-gpu", device="GPU-1")
    finished(populated, "elsewhere", host="another-host")
    finished(populated, "cut", status="stopped", settings={"width": 64})
    finished(populated, "broken", status="failed")
    rates = {rate.source: rate for rate in rates_of_runs(populated, CPU)}
    assert set(rates) == {"the run a", "the run b", "the run cut"}
    config = msgspec.structs.replace(load_preset("tiny"), vocab_size=4_096)
    assert rates["the run a"].flops == 52_000 * flops_per_token(config)
    assert [rate.source for rate in rates_of_runs(populated, GPU)] == ["the run on-a-gpu"]
    known = list(rates.values())
    assert nearest_rate(known, 1_000).source == "the run cut" and nearest_rate(known, 10**9).source == "the run b"  # type: ignore[union-attr]  # there is one
    assert nearest_rate([], 10**9) is None


def test_what_was_timed_is_remembered_for_this_device_alone(populated: Workspace) -> None:
    assert remembered(CPU) is None
    rate = remember(CPU, {"flops": 2e10, "precision": "bf16"})
    assert remembered(CPU) == rate and remembered(GPU) is None
    seconds, used = time_of(find_card("tiny"), Plan(), [], rate) or (0.0, None)
    assert seconds == find_card("tiny").flops(Plan()) / 2e10 and used == rate
    assert time_of(find_card("tiny"), Plan(), [], None) is None


def test_the_command_lists_costs_and_shows_a_model_by_its_parts(
    populated: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(cli_models, "ask_once", lambda _, verb, **__: asked.append(verb) or {"flops": 3e10})
    assert command(["models"]) == 0 and "nothing tells how long" in capsys.readouterr().err
    assert command(["models", "show", "deepseek-r1"]) == 0
    shown = capsys.readouterr().out
    assert "671,026,419,200" in shown and "it does not fit" in shown and "timed on this machine" in shown
    assert command(["models", "show", "gpt3", "--tokens", "300G", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["parameters"] == 174_604_259_328 and row["seconds"] > 1e12
    assert asked == ["rate.of"]
    finished(populated, "mine")
    assert command(["models", "--tokens", "1M"]) == 0
    assert "Times by the run mine." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["models", "show", "gpt2-smal"], "Did you mean 'gpt2-small'"),
        (["models", "--tokens", "many"], "no number of tokens"),
        (["models", "--micro-batch", "0"], "micro-batch"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(populated: Workspace, arguments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        command(arguments)


def test_times_sizes_and_rates_are_told_in_few_digits() -> None:
    assert [long(x) for x in (4, 90, 5_400, 9e4, 2e6, 6e7, 2e14)] == [
        "4 seconds",
        "1.5 minutes",
        "1.5 hours",
        "25 hours",
        "23 days",
        "1.9 years",
        "6.338M years",
    ]
    assert [size(x) for x in (1_500, 2.5e6, 1.26e9, 1.34e12, 1.5e11)] == [
        "2 kB",
        "2.5 MB",
        "1.26 GB",
        "1.34 TB",
        "150 GB",
    ]
    assert rate_of(2.004e10) == "20 GFLOP/s"


def test_a_cached_rate_that_cannot_be_read_counts_as_none(populated: Workspace) -> None:
    remember(CPU, {"flops": 1e9})
    (path,) = state_folder().glob("rate.json")
    for damage in (b"", b"[]", b'{"machine": "2 CPU cores"}', b'{"machine": "2 CPU cores", "flops": "x"}'):
        path.write_bytes(damage)
        assert remembered(CPU) is None
