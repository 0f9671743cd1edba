"""Pre-training as the detached worker it is: learning, resuming bit for bit, and doing what it is asked."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.data.tokenizer import TextTokenizer
from stages.generate import Sampling, generate
from stages.models.hf import load_model
from stages.store.checkpoints import list_checkpoints, write_manifest
from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.workspace import Workspace
from tests.stages.helpers import copy_of, ended, finish, pretrain, wait_until
from tests.stages.resuming import bits, kill, losses, rows
from workbench import runs


@pytest.fixture
def workspace(small_world: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(small_world, tmp_path)


def last_lr(run: RunDir) -> float:
    return [row["lr"] for row in rows(run.metrics) if "lr" in row][-1]


def steps(run: RunDir) -> int:
    return max((row["step"] for row in rows(run.metrics)), default=0) if run.metrics.exists() else 0


def test_a_model_learns_and_reports_what_it_reached(workspace: Workspace) -> None:
    run = finish(pretrain(workspace, "one", steps=150, lr=3e-3, eval_every=50, checkpoint_every=50, sample_every=50))
    metrics = rows(run.metrics)
    assert metrics[0]["train/loss"] > 5
    assert metrics[-1]["train/loss"] < 3
    validated = [row for row in metrics if "val/loss" in row]
    assert [row["step"] for row in validated] == [50, 100, 150]
    assert validated[-1]["val/bits_per_byte"] == pytest.approx(validated[-1]["val/loss"] / 0.6931, rel=0.02)
    assert "mfu" not in metrics[-1]  # nobody knows this CPU's peak
    assert run.state().result["checkpoint"] == "step-150"
    samples = rows(run.samples)
    assert [row["step"] for row in samples] == [50, 100, 150]
    assert samples[0]["prompt"] == samples[-1]["prompt"] != ""
    assert [c.step for c in list_checkpoints(run)] == [100, 150]


def test_a_checkpoint_opens_in_transformers(workspace: Workspace) -> None:
    run = finish(pretrain(workspace, "one"))
    folder = list_checkpoints(run)[-1].path
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = load_model(folder)
    text = "12 green bottles"
    ids = TextTokenizer.load(folder).encode(text)
    assert tokenizer(text)["input_ids"] == ids
    assert tokenizer.pad_token_id != tokenizer.eos_token_id == theirs.config.eos_token_id
    tokens = torch.tensor([ids])
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=0, atol=1e-4)
    greedy = theirs.generate(tokens[:, :8], do_sample=False, max_new_tokens=6, pad_token_id=tokenizer.pad_token_id)
    assert generate(ours, [ids[:8]], Sampling(temperature=0, max_new_tokens=6))[0] == greedy[0, 8:].tolist()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_worker_killed_at_random_ends_with_the_same_bits(workspace: Workspace, precision: str) -> None:
    settings = {"precision": precision, "dropout": 0.1, "micro_batch": 3, "steps": 40}
    kill_at_random(workspace, settings, kills=3, apart=9)


@pytest.mark.soak
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_worker_killed_fifty_times_ends_with_the_same_bits(workspace: Workspace, precision: str) -> None:
    settings = {"precision": precision, "dropout": 0.1, "micro_batch": 3, "steps": 4_000, "sample_every": 100}
    kill_at_random(workspace, settings, kills=50, apart=120)


def kill_at_random(workspace: Workspace, settings: dict[str, Any], *, kills: int, apart: int) -> None:
    """Train once in peace and once with SIGKILLs, each up to `apart` steps after the last, and compare every bit."""
    whole = finish(pretrain(workspace, "whole", **settings))
    dice = random.Random(str(settings))
    broken = pretrain(workspace, "broken", **settings)
    for _ in range(kills):
        target = steps(broken) + dice.randrange(1, apart)
        wait_until(lambda target=target: steps(broken) >= target or ended(broken), what=f"step {target}")
        if ended(broken):
            break
        kill(broken)
        assert broken.status() == "lost"
        runs.start(broken)
    finish(broken)
    assert bits(broken) == bits(whole)
    assert losses(broken) == losses(whole)


@pytest.mark.parametrize("part", ["random", "optimizer"])
def test_resuming_without_a_part_of_the_state_differs(workspace: Workspace, part: str) -> None:
    settings = {"dropout": 0.1, "steps": 24}
    whole = finish(pretrain(workspace, "whole", **settings))
    broken = pretrain(workspace, "broken", **settings)
    wait_until(lambda: bool(list_checkpoints(broken)), what="a checkpoint")
    kill(broken)
    last = list_checkpoints(broken)[-1]
    assert last.step < 24
    file = last.path / "resume" / f"{part}.safetensors"
    save_file({name: _other(tensor) for name, tensor in load_file(file).items()}, file)
    (last.path / "manifest.json").unlink()
    write_manifest(last.path)
    runs.start(broken)
    finish(broken)
    assert bits(broken) != bits(whole)


def _other(tensor: Any) -> Any:
    return torch.Generator().manual_seed(12345).get_state() if tensor.dtype == torch.uint8 else tensor * 0


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(workspace: Workspace) -> None:
    whole = finish(pretrain(workspace, "whole"))
    broken = pretrain(workspace, "broken")
    wait_until(lambda: len(list_checkpoints(broken)) >= 2, what="two checkpoints")
    kill(broken)
    last = list_checkpoints(broken)[-1]
    weights = last.path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    runs.start(broken)
    finish(broken)
    warnings = [row for row in rows_of_events(broken) if row["event"] == "warning"]
    assert last.name in warnings[0]["message"]
    assert bits(broken) == bits(whole)


def rows_of_events(run: RunDir) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.events.read_bytes().splitlines()]


def test_pause_and_resume_change_nothing(workspace: Workspace) -> None:
    whole = finish(pretrain(workspace, "whole", steps=60))
    run = pretrain(workspace, "paused", steps=60)
    wait_until(lambda: steps(run) >= 3, what="a few steps")
    runs.pause(run)
    wait_until(lambda: not run.alive(), what="the pause")
    assert run.status() == "paused"
    assert list_checkpoints(run)[-1].step == run.state().step
    runs.start(run)
    finish(run)
    assert bits(run) == bits(whole)


@pytest.mark.parametrize("how", ["request", "sigterm"])
def test_stopping_saves_a_checkpoint(workspace: Workspace, how: str) -> None:
    run = pretrain(workspace, "long", steps=100_000, checkpoint_every=100_000)
    wait_until(lambda: steps(run) >= 3, what="a few steps")
    if how == "request":
        runs.stop(run)
    else:
        pid = run.state().pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not run.alive(), what="the stop")
    assert run.status() == "stopped"
    assert list_checkpoints(run)[-1].step == run.state().step


def test_the_learning_rate_of_a_running_run_changes(workspace: Workspace) -> None:
    run = pretrain(workspace, "long", steps=100_000, lr=1e-3, warmup=0, checkpoint_every=100_000)
    wait_until(lambda: steps(run) >= 3, what="a few steps")
    with pytest.raises(UserError, match="'lr' is 7"):
        runs.set_lr(run, 7.0)
    runs.set_lr(run, 1e-5)
    wait_until(lambda: last_lr(run) < 2e-5, what="the new rate")
    changed = next(event["step"] for event in rows_of_events(run) if event["event"] == "set")
    runs.checkpoint_now(run)
    wait_until(lambda: any(c.step > changed for c in list_checkpoints(run)), what="a checkpoint with the new rate")
    kill(run)
    runs.start(run)
    wait_until(lambda: any(e["event"] == "resumed" for e in rows_of_events(run)), what="resuming")
    before = steps(run)
    wait_until(lambda: steps(run) > before, what="steps after resuming")
    assert last_lr(run) < 2e-5
    runs.stop(run)
    wait_until(lambda: not run.alive(), what="the stop")


def test_a_learning_rate_set_before_a_kill_is_set_again_at_its_step(workspace: Workspace) -> None:
    run = pretrain(workspace, "long", steps=100_000, checkpoint_every=100_000, eval_every=100_000, lr=1e-3, warmup=0)
    wait_until(lambda: steps(run) >= 3, what="a few steps")
    runs.set_lr(run, 1e-5)
    wait_until(lambda: last_lr(run) < 2e-5, what="the new rate")
    kill(run)
    before = {row["step"]: (row["lr"], row["train/loss"]) for row in rows(run.metrics)}
    runs.start(run)
    wait_until(lambda: any(e["event"] == "resumed" for e in rows_of_events(run)), what="resuming")
    wait_until(lambda: steps(run) >= max(before), what="the same steps again")
    after = {row["step"]: (row["lr"], row["train/loss"]) for row in rows(run.metrics)}
    assert {step: after[step] for step in before} == before
    runs.stop(run)
    wait_until(lambda: not run.alive(), what="the stop")


def test_a_loss_that_explodes_ends_the_run_with_a_sentence_and_a_good_checkpoint(workspace: Workspace) -> None:
    run = pretrain(workspace, "wild", steps=2_000, lr=1.0, warmup=1_500, clip=0.0, checkpoint_every=5)
    wait_until(lambda: not run.alive(), seconds=180, what="the failure")
    state = run.state()
    assert run.status() == "failed"
    assert state.error is not None
    assert "loss" in state.error.message or "gradient" in state.error.message
    assert "Traceback" not in run.log.read_text()
    assert list_checkpoints(run)[-1].step < state.step + 1


def test_two_runs_take_turns_on_one_device(workspace: Workspace) -> None:
    first = pretrain(workspace, "first", steps=100_000)
    wait_until(lambda: first.state().status == "running", what="the first")
    second = pretrain(workspace, "second")
    wait_until(lambda: "waiting" in second.state().phase, what="the second to queue")
    assert second.status() == "queued"
    runs.pause(first)
    finish(second)
    assert first.status() == "paused"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"heads": 3}, "no multiple of 3"),
        ({"preset": "tinny"}, "no preset"),
        ({"context": 15_000, "heads": 1, "layers": 1, "micro_batch": 1}, "shorter than one block"),
        ({"preset": "gpt2-xl", "layers": 512, "width": 65_536, "heads": 512}, "GB of memory"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(
    workspace: Workspace, settings: dict[str, Any], sentence: str
) -> None:
    run = pretrain(workspace, "bad", **settings)
    wait_until(lambda: not run.alive(), what="the refusal")
    error = run.state().error
    assert error is not None
    assert sentence in error.message
    assert "Traceback" not in run.log.read_text()
