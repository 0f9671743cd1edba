"""GRPO and PPO as runs: learning, resuming bit for bit, alarms that pause, references, what is kept as best."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages import grpo, ppo
from stages.models.logprobs import token_logprobs
from stages.models.opening import open_decoder
from stages.models.value import load_value_model
from stages.policies.alarms import FURTHER, Alarms, Watched
from stages.policies.needs import fitting_sharding, needs_of
from stages.policies.progress import PolicyProgress
from stages.policies.rollouts import Rollouts
from stages.run import Run, Stopped
from stages.store.bands import GAUGES, Band, band_of, sentence_of
from stages.store.checkpoints import Best, best_checkpoint, list_checkpoints, prune, write_manifest
from stages.store.errors import UserError, WorkFailed
from stages.store.records import Message
from stages.store.rundir import RunDir
from stages.store.specs.grpo import GRPO
from stages.store.workspace import Workspace
from stages.training import distributed
from stages.training.memory import kept_by_autograd
from tests.stages.data.chats import chat_dataset
from tests.stages.helpers import copy_of
from tests.stages.policy_helpers import SMALL, policy_run, policy_workspace, prompt_dataset, sums, text_dataset
from tests.stages.resuming import events, killed_and_gone_on, rows
from tests.tiny_model import write_tiny_checkpoint, write_tiny_judge
from workbench import runs

STAGES: dict[str, Any] = {"grpo": grpo, "ppo": ppo}
MORE: dict[str, dict[str, Any]] = {
    "grpo": {"group": 4, "passes": 2, "minibatches": 2},
    "ppo": {
        "batch_size": 8,
        "passes": 2,
        "minibatches": 2,
        "kl_target": 0.1,
        "kl_horizon": 100,
        "normalise": "running",
    },
}
LORA = {"method": "lora", "lora_rank": 4}
THRIFTY = {"activation_checkpointing": True}
JUDGED = {"extra": {"reward": "judge"}, "reward": "auto"}


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = policy_workspace(tmp_path_factory.mktemp("policy"))
    write_tiny_checkpoint(made.models / "other", context=96, seed=5)
    return made


@pytest.fixture
def workspace(original: Workspace, tmp_path: Path) -> Workspace:
    return copy_of(original, tmp_path)


def job_in(workspace: Workspace, stage: str, name: str = "job", **more: Any) -> Any:
    """A run prepared in this process."""
    return STAGES[stage].prepare(policy_run(workspace, stage, name, **MORE[stage] | more))


def again(job: Any) -> Any:
    """The same run, as a new worker opens it."""
    return STAGES[job.course.run.spec.stage].prepare(Run(job.course.run.dir.path))


def train(workspace: Workspace, stage: str, name: str, **settings: Any) -> RunDir:
    """Launch a small run as a detached worker."""
    values = SMALL | MORE[stage] | settings
    return runs.launch(workspace, stage, name, values, dataset="sums", checkpoint="base")


def bits(run: RunDir) -> dict[str, bytes]:
    """All that the last checkpoint holds of weights and optimisers."""
    last = list_checkpoints(run)[-1].path
    files = sorted(last.rglob("*.safetensors"))
    return {str(file.relative_to(last)): file.read_bytes() for file in files if "random" not in file.name}


@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_a_worker_killed_in_mid_run_ends_with_the_same_bits(workspace: Workspace, stage: str) -> None:
    launch = partial(train, workspace, stage, steps=24)
    whole, broken = killed_and_gone_on(launch, steps=24, checkpoints=2)
    assert bits(broken) == bits(whole) and len(bits(whole)) == (2 if stage == "grpo" else 4)
    assert figures(broken) == figures(whole)
    assert texts(broken) == texts(whole)


def figures(run: RunDir) -> list[tuple[int, float, float]]:
    return [(r["step"], r["train/loss"], r["policy/coefficient"]) for r in rows(run.metrics) if "train/loss" in r]


def texts(run: RunDir) -> list[tuple[int, str, str]]:
    return [(row["step"], row["kind"], row["text"]) for row in rows(run.samples)]


PARTS = {
    "grpo": [None, "optimizer", "drawn"],
    "ppo": [None, "optimizer", "optimizer.value", "value", "coefficient", "rewards", "asked"],
}


@pytest.mark.parametrize(
    ("stage", "lost", "how"),
    [
        *((stage, lost, {}) for stage in PARTS for lost in PARTS[stage]),
        ("grpo", None, LORA | {"resample": 1}),
        ("grpo", None, LORA | {"lora_keep": "adapter"}),
        ("ppo", None, LORA),
        ("ppo", None, {"value": "head"}),
        ("ppo", None, {"precision": "bf16"}),
        ("ppo", "value", {"value": "head"}),
    ],
)
def test_resuming_changes_no_bit_unless_a_part_is_lost(
    workspace: Workspace, stage: str, lost: str | None, how: dict[str, Any]
) -> None:
    whole, broken = (job_in(workspace, stage, name, **how) for name in ("whole", "broken"))
    steps = [whole.step() for _ in range(5)]
    first = [broken.step() for _ in range(2)]
    broken.course.save()
    broken.step()  # lost with the process
    if lost:
        forget(list_checkpoints(broken.course.run.dir)[-1].path, lost)
    resumed = again(broken)
    assert resumed.policy.progress.step == 2
    same = first + [resumed.step() for _ in range(3)] == steps
    assert same == (lost is None)
    assert torch.equal(resumed.policy.optimizer.master, whole.policy.optimizer.master) == (lost is None)


def forget(checkpoint: Path, part: str) -> None:
    """Put something else in place of a part of what resuming needs."""
    progress = checkpoint / "resume" / "progress.json"
    values = json.loads(progress.read_bytes())
    if part in values:
        values[part] = {"asked": 0, "drawn": 0, "coefficient": 0.9, "rewards": {"count": 9, "mean": 5, "squares": 9}}[
            part
        ]
        progress.write_text(json.dumps(values))
    else:
        (file,) = (checkpoint / "value").glob("*.safetensors") if part == "value" else [resume_file(checkpoint, part)]
        save_file({name: other(tensor) for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint)


def resume_file(checkpoint: Path, part: str) -> Path:
    return checkpoint / "resume" / f"{part}.safetensors"


def other(tensor: Tensor) -> Tensor:
    return tensor * 0.5


@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_what_the_reward_pays_for_grows_and_what_it_takes_is_told(workspace: Workspace, stage: str) -> None:
    job = job_in(
        workspace, stage, steps=30, batch_size=16, lr=1e-2, reward_pattern="^[^0-9]*$", missing_end_penalty=0.0
    )
    earned = [job.step()["reward/raw"] for _ in range(30)]
    assert np.mean(earned[-5:]) > np.mean(earned[:5]) + 0.05


@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_a_run_writes_what_the_cockpit_shows(workspace: Workspace, stage: str) -> None:
    run = policy_run(workspace, stage, "shown", **MORE[stage])
    result = STAGES[stage].run(run)
    found = rows(run.dir.metrics)
    assert [row["step"] for row in found if "train/loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in found if "val/reward" in row] == [0, 2, 3, 4, 6]
    last = found[-1]
    shared = "reward/mean reward/std reward/raw policy/kl policy/kl_token policy/entropy policy/length policy/ended "
    shared += "policy/ratio policy/ratio_first policy/clipped policy/advantage_std policy/coefficient train/loss lr "
    shared += "tokens_per_s val/reward val/kl"
    own = ["policy/dead_groups"] if stage == "grpo" else ["value/loss", "value/explained_variance"]
    assert {*shared.split(), *own} <= last.keys()
    assert last["policy/ratio_first"] == pytest.approx(1, abs=1e-5)
    assert result["best"] and result["completions"] == 6 * (16 if stage == "grpo" else 8)
    shown = [row for row in rows(run.dir.samples) if row["kind"] == "rollout"]
    assert sorted({row["step"] for row in shown}) == [1, 3, 6] and len(shown) == 24
    for row in shown:
        lists = [row[name] for name in ("pieces", "token_kl", "token_advantage", "token_logprob")]
        assert len({len(each) for each in lists}) == 1
        assert row["kl"] == pytest.approx(sum(row["token_kl"]), abs=1e-2)
    fixed = [row for row in rows(run.dir.samples) if row["kind"] == "fixed"]
    assert [(row["step"], row["prompt"]) for row in fixed] == [(step, "1+1") for step in (0, 3, 6)]


def test_the_kl_is_zero_at_the_start_and_against_another_reference_is_not(workspace: Workspace) -> None:
    assert job_in(workspace, "grpo").step()["policy/kl"] == pytest.approx(0, abs=1e-4)
    apart = job_in(workspace, "grpo", "apart", extra={"reference": "other"}).step()
    assert abs(apart["policy/kl"]) > 1e-3


@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_with_adapters_the_reference_is_the_base_without_them(workspace: Workspace, stage: str) -> None:
    job = job_in(workspace, stage, lr=3e-2, lora_dropout=0.3, **LORA)
    for _ in range(3):
        job.step()
    policy = job.policy
    assert policy.reference.model is policy.model
    rollouts = policy.roll(4)
    base = open_decoder(workspace.models / "base")
    with torch.no_grad():
        wanted = token_logprobs(base, rollouts.inputs, rollouts.targets)
        mine = token_logprobs(policy.model, rollouts.inputs, rollouts.targets)
    torch.testing.assert_close(policy.by_reference(rollouts), wanted)
    assert not torch.allclose(mine, wanted, atol=1e-3)
    assert any("dropout is left out" in event["message"] for event in events(job.course.run.dir, "warning"))


@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_a_first_update_that_is_off_policy_fails(workspace: Workspace, stage: str) -> None:
    job = job_in(workspace, stage)
    likelihoods, estimate = job.policy.likelihoods, getattr(job, "_estimate", None)
    if stage == "grpo":
        job.policy.likelihoods = lambda rollouts: likelihoods(rollouts)._replace(
            logprobs=likelihoods(rollouts).logprobs + 0.1
        )
    else:

        def shifted(*args: Any) -> Any:
            batch, earned = estimate(*args)
            return batch._replace(seen=batch.seen._replace(logprobs=batch.seen.logprobs + 0.1)), earned

        job._estimate = shifted
    with pytest.raises(WorkFailed, match="off-policy"):
        job.step()


@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_paying_for_length_raises_the_alarm_and_pauses_before_it_doubles(workspace: Workspace, stage: str) -> None:
    settings = {
        "steps": 200,
        "reward": "length",
        "max_new_tokens": 48,
        "batch_size": 64 if stage == "ppo" else 16,
        "missing_end_penalty": 0.0,
        "lr": 1e-3,
        "checkpoint_every": 100,
        "eval_every": 100,
        "pause_on_alarm": True,
        "max_kl": 1e3,
        "checkpoint": short_answers(workspace),
    }
    run = policy_run(workspace, stage, "greedy", **MORE[stage] | settings)
    with pytest.raises(Stopped) as caught:
        STAGES[stage].run(run)
    assert caught.value.status == "paused" and "the reward may pay for length. Paused at length" in caught.value.why
    lengths = [row["policy/length"] for row in rows(run.dir.metrics) if "policy/length" in row]
    bound = GRPO().max_length_ratio  # as it is unless one says otherwise
    assert bound * lengths[0] < lengths[-1] < 2 * lengths[0]
    (alarm,) = [event for event in events(run.dir, "alarm") if event["metric"] == "policy/length"]
    assert alarm["value"] == lengths[-1] and alarm["band"][1] == pytest.approx(bound * lengths[0]) and alarm["sentence"]
    resumed = Run(run.dir.path)
    with pytest.raises(Stopped):
        STAGES[stage].run(resumed)
    more = [row["policy/length"] for row in rows(run.dir.metrics) if "policy/length" in row][len(lengths) :]
    assert len(more) > 1 and more[-1] > lengths[-1] * FURTHER


@pytest.mark.parametrize("stage", ["grpo", "ppo"])
def test_kl_that_runs_away_raises_the_alarm_and_pauses(workspace: Workspace, stage: str) -> None:
    bound = 0.5
    settings = {
        "steps": 200,
        "lr": 1e-2,
        "checkpoint_every": 200,
        "eval_every": 200,
        "pause_on_alarm": True,
        "max_kl": bound,
        "max_length_ratio": 1e3,
    }
    run = policy_run(workspace, stage, "loose", **MORE[stage] | settings)
    with pytest.raises(Stopped) as caught:
        STAGES[stage].run(run)
    assert caught.value.status == "paused" and "gone far from its reference" in caught.value.why
    assert "Paused at KL" in caught.value.why
    found = [row["policy/kl"] for row in rows(run.dir.metrics) if "policy/kl" in row]
    assert all(kl <= bound for kl in found[:-1]) and found[-1] > bound
    (alarm,) = [event for event in events(run.dir, "alarm") if event["metric"] == "policy/kl"]
    assert alarm["value"] == found[-1] and alarm["band"][1] == bound
    tolerant = policy_run(workspace, stage, "warned", **MORE[stage] | settings | {"pause_on_alarm": False, "steps": 30})
    STAGES[stage].run(tolerant)
    assert any(event["metric"] == "policy/kl" for event in events(tolerant.dir, "alarm"))


def test_a_reward_that_falls_below_its_start_by_more_than_chance_leaves_its_band() -> None:
    (gauge,) = (gauge for gauge in GAUGES if gauge.metric == "reward/mean")
    band = band_of(gauge, {"batch_size": 18}, 2.0, 0.6)
    assert band == Band(pytest.approx(2.0 - 3 * 0.6 / 3), None)  # the error of a difference of means: 0.6 √(2 / 18)
    assert band.verdict(1.41) is None and band.verdict(9.0) is None and band.verdict(1.39) == "low"
    assert "fallen below where it began" in sentence_of(gauge, "low")
    for start, spread in ((None, None), (1.0, None), (1.0, 0.0)):  # nothing to measure chance by
        assert band_of(gauge, {"batch_size": 18}, start, spread) == Band(None, None)


def test_the_alarm_for_a_falling_reward_is_raised_once_and_never_pauses(workspace: Workspace) -> None:
    run = policy_run(workspace, "grpo", "falling", batch_size=18)
    watched = Watched()
    alarms = Alarms(run, watched, run.spec.settings, pauses=True)
    progress = PolicyProgress(lr=1e-3, precision="fp32")
    for step, mean in enumerate((2.0, 1.9, 1.45, 1.2, 1.1, 3.0)):
        progress.step = step
        alarms.check(progress, {"reward/mean": mean, "reward/std": 0.6 + step})
    (alarm,) = events(run.dir, "alarm")
    assert (alarm["step"], alarm["value"], alarm["metric"]) == (3, 1.2, "reward/mean")
    assert alarm["band"] == [pytest.approx(1.4), None] and not run.requests.pause
    assert watched.starts == {"reward/mean": 2.0, "reward/std": 0.6}


def short_answers(workspace: Workspace) -> str:
    """A random model that ends its answers after about 12 tokens; its folder."""
    folder = write_tiny_checkpoint(workspace.models / "short", context=96)
    weights = load_file(folder / "model.safetensors")
    bias = weights["transformer.ln_f.bias"]
    row = weights["transformer.wte.weight"][3]
    weights["transformer.ln_f.bias"] = bias + row * (3.0 / row.square().sum())
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "manifest.json").unlink()
    write_manifest(folder)
    return "short"


def test_the_best_checkpoint_is_the_highest_reward_within_the_kl_budget(workspace: Workspace) -> None:
    job = job_in(workspace, "grpo", kl_budget=1.0)
    course, progress = job.course, job.course.progress
    for reward, kl in ((0.2, 0.1), (0.9, 5.0), (0.6, 0.8), (0.5, 0.2), (0.4, 0.1), (0.3, 0.1)):
        progress.step += 1
        course._validated = progress.step
        course.metrics = {"val/reward": reward, "val/kl": kl}
        course.save()
    run = course.run.dir
    best = best_checkpoint(run, course.best)
    assert best is not None and best.step == 3 and course.result()["best"] == "step-3"
    assert [each.step for each in list_checkpoints(run)] == [3, 5, 6] and prune(run, course.best) == []
    only_over = best_checkpoint(run, Best("val/reward", highest=True, within=("val/kl", 0.01)))
    assert only_over is not None and only_over.step == 3


def test_the_critic_is_kept_beside_the_policy(workspace: Workspace) -> None:
    job = job_in(workspace, "ppo", extra={"reward": "judge"}, reward="auto")
    before = load_value_model(workspace.models / "judge").score.clone()
    job.step()
    job.course.save()
    folder = list_checkpoints(job.course.run.dir)[-1].path / "value"
    kept = load_value_model(folder)
    torch.testing.assert_close(kept.score, job.critic.own.score)
    assert not torch.equal(kept.score, before)


def test_pre_training_text_is_mixed_in_and_holds_the_policy(workspace: Workspace) -> None:
    text_dataset(workspace.datasets / "rhymes", [f"{n} green bottles, {n} brown ones.\n" for n in range(200)])
    plain = job_in(workspace, "ppo", "plain", lr=1e-2)
    mixed = job_in(workspace, "ppo", "mixed", lr=1e-2, texts={"pretraining": "rhymes"}, ptx=5.0)
    blocks = torch.from_numpy(mixed.pretraining.batch(0, 8))
    losses, rows = [], []
    for job in (plain, mixed):
        rows.append([job.step() for _ in range(6)])
        with torch.no_grad():
            losses.append(float(job.policy.model(blocks[:, :-1], blocks[:, 1:])))
    assert losses[1] < losses[0] - 0.1
    assert "train/pretraining" not in rows[0][0]
    assert rows[1][0]["train/loss"] > rows[1][0]["train/pretraining"] / 2 > rows[1][-1]["train/pretraining"] / 4 > 0.0


def test_micro_batches_add_up_to_the_update(workspace: Workspace) -> None:
    for stage in STAGES:
        whole = job_in(workspace, stage, f"whole-{stage}")
        parts = job_in(workspace, stage, f"parts-{stage}", micro_batch=3)
        for _ in range(2):
            one, two = whole.step(), parts.step()
            assert one == pytest.approx(two, rel=2e-3, abs=1e-4)


def test_memory_that_runs_out_halves_the_micro_batch(workspace: Workspace) -> None:
    for stage in STAGES:
        job = job_in(workspace, stage, stage)
        parts = job.policy.parts

        def scarce(rollouts: Any, rows: Any, times: int = 1, parts: Any = parts) -> Any:
            for part in parts(rollouts, rows, times):
                if times == 1 and len(part[0]) > 2:
                    raise torch.OutOfMemoryError("out of memory")
                yield part

        job.policy.parts = scarce
        assert job.step()["policy/ratio_first"] == pytest.approx(1, abs=1e-5)
        assert job.policy.micro.rows <= 2
        assert "Memory ran out" in events(job.course.run.dir, "warning")[-1]["message"]


@pytest.mark.parametrize("value", ["copy", "head"])
def test_an_update_of_all_rollouts_goes_on_from_the_pass_that_measures_them(workspace: Workspace, value: str) -> None:
    more = {"minibatches": 1, "value": value}
    whole, parts = job_in(workspace, "ppo", "whole", **more), job_in(workspace, "ppo", "parts", micro_batch=3, **more)
    passes, actor = [], whole.critic.actor
    actor.final_norm.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    for _ in range(2):
        one, two = whole.step(), parts.step()
        assert one["policy/ratio_first"] == 1.0
        assert one == pytest.approx(two, rel=2e-3, abs=1e-4)
    assert sum(passes) == 2 * MORE["ppo"]["passes"]


def test_a_first_pass_that_does_not_fit_the_memory_is_made_without_its_activations(workspace: Workspace) -> None:
    job = job_in(workspace, "ppo", minibatches=1)

    def scarce(_: Any, inputs: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled() and len(inputs[0]) > 4 * SMALL["max_new_tokens"]:
            raise torch.OutOfMemoryError("out of memory")

    job.critic.actor.final_norm.register_forward_pre_hook(scarce)
    job.policy.progress.micro_batch = 8
    assert job.step()["policy/ratio_first"] == pytest.approx(1, abs=1e-5)
    assert job.policy.micro.rows < 8


@pytest.mark.parametrize("minibatches", [1, 2])
def test_a_critic_adds_its_weights_once_and_activations_like_the_actors(workspace: Workspace, minibatches: int) -> None:
    head, copy = (job_in(workspace, "ppo", value, minibatches=minibatches, value=value) for value in ("head", "copy"))
    (without,), (found,) = (events(job.course.run.dir, "memory") for job in (head, copy))
    held = copy.critic_optimizer.master.nbytes
    assert found["weights"] >= without["weights"] + held * 0.9
    assert found["gradients"] >= without["gradients"] + 1.9 * held
    assert found["optimiser"] >= without["optimiser"] + 1.9 * held
    assert found["rows"] == without["rows"]
    assert without["activations"] < found["activations"] < 2 * without["activations"]


def test_text_that_is_mixed_in_is_tried_with_the_memory(workspace: Workspace) -> None:
    """Its blocks are as long as the model's context, and rollouts are short here."""
    text_dataset(workspace.datasets / "rhymes", [f"{n} green bottles, {n} brown ones.\n" for n in range(200)])
    plain = job_in(workspace, "ppo", "plain")
    mixed = job_in(workspace, "ppo", "mixed", texts={"pretraining": "rhymes"})
    (without,), (found,) = (events(job.course.run.dir, "memory") for job in (plain, mixed))
    assert found["rows"] == without["rows"] and found["activations"] > 1.5 * without["activations"]


@pytest.mark.parametrize("value", ["copy", "reward", "head"])
def test_activation_checkpointing_holds_for_the_value_model_and_changes_no_bit(
    workspace: Workspace, value: str
) -> None:
    how = {"value": value, "extra": {"reward": "judge"}, "reward": "auto"}
    plain, thrifty = job_in(workspace, "ppo", "plain", **how), job_in(workspace, "ppo", "thrifty", **how | THRIFTY)
    assert [plain.step() for _ in range(2)] == [thrifty.step() for _ in range(2)]
    for job in (plain, thrifty):
        job.course.save()
    if value == "head":
        return
    rollouts = plain.policy.roll(4)
    for jobs in ((plain, thrifty), (again(plain), again(thrifty))):
        kept = [
            kept_by_autograd(
                lambda job=job: job.critic.values(rollouts.inputs, rollouts.targets), job.critic.own.parameters()
            )
            for job in jobs
        ]
        assert kept[1] < kept[0]


@pytest.mark.parametrize(
    ("stage", "how", "models"),
    [
        ("grpo", {}, ["the policy in training", "the reference"]),
        ("grpo", LORA, ["the policy"]),
        ("ppo", {}, ["the policy in training", "the value model in training", "the reference"]),
        ("ppo", LORA | {"value": "head"}, ["the policy"]),
        (
            "ppo",
            {"value": "copy"} | JUDGED,
            ["the policy in training", "the value model in training", "the reference", "the reward model"],
        ),
        ("ppo", LORA | JUDGED, ["the policy", "the value model in training", "the reward model"]),
    ],
)
def test_what_one_of_several_processes_cannot_hold_is_refused_with_what_takes_how_much(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, stage: str, how: dict[str, Any], models: list[str]
) -> None:
    alone = job_in(workspace, stage, "alone", **how)
    (held,) = events(alone.course.run.dir, "memory")
    run = policy_run(workspace, stage, "together", **MORE[stage] | how)
    settings = alone.settings
    reward = run.checkpoint("reward") if run.has("reward") else None
    reference = None if settings.method == "lora" else run.checkpoint()
    needs = needs_of(settings, alone.policy.model.config, reward, reference, "fp32")
    assert list(needs) == models
    trained = sum(size for name, size in needs.items() if name.endswith("in training"))
    if settings.method != "lora":
        assert trained == pytest.approx(held["weights"] + held["gradients"] + held["optimiser"], rel=0.1)
    monkeypatch.setattr(distributed, "several", lambda: True)
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    monkeypatch.setattr(distributed, "size", lambda: 4)
    monkeypatch.setattr(distributed, "broadcast_object", lambda value: value)

    def chosen(free: int, sharding: str) -> str:
        monkeypatch.setattr(distributed, "free_memory", lambda device: free)
        asked = msgspec.structs.replace(settings, sharding=sharding)
        return fitting_sharding(asked, alone.policy.model.config, reward, reference, torch.device("cpu"))

    whole = sum(needs.values())
    with pytest.raises(UserError, match="must hold every model whole") as refused:
        chosen(whole - 1, "auto" if settings.method == "lora" else "ddp")
    assert all(name + " 0.0 GB" in str(refused.value) for name in models)
    assert ("method = lora" in str(refused.value.hint)) == (settings.method != "lora")
    assert chosen(whole, "auto") == "ddp"
    if settings.method != "lora":
        assert chosen(whole - 1, "auto") == "fsdp"
        with pytest.raises(UserError, match=r"must hold a piece of every model, and 0\.0 GB whole"):
            chosen(whole // 4, "auto")


def test_dead_groups_are_replaced_when_asked_to(workspace: Workspace) -> None:
    plain = job_in(workspace, "grpo", "plain", reward_pattern="1", missing_end_penalty=0.0)
    again_ = job_in(workspace, "grpo", "again", reward_pattern="1", missing_end_penalty=0.0, resample=8)
    first, second = plain.step(), again_.step()
    assert 0 < first["policy/dead_groups"] == second["policy/dead_groups"]
    assert plain.policy.progress.asked == 4 < again_.policy.progress.asked
    assert second["policy/advantage_std"] > first["policy/advantage_std"]


def test_overlong_completions_lose_reward_or_are_not_learnt_from(workspace: Workspace) -> None:
    plain = job_in(workspace, "grpo", "plain").step()
    punished = job_in(workspace, "grpo", "punished", overlong=4).step()
    assert punished["reward/raw"] == plain["reward/raw"]
    assert plain["reward/mean"] - 1 <= punished["reward/mean"] < plain["reward/mean"]
    skipping = job_in(workspace, "grpo", "skipping", skip_truncated=True, beta=0.0)
    before, write = skipping.policy.model.tokens.detach().clone(), skipping.policy.writer.laid_out

    def ending(which: Callable[[int], bool]) -> None:
        def laid_out(*given: Any) -> Rollouts:
            asked, said, texts, ended, *tensors = write(*given)
            return Rollouts(asked, said, texts, [which(row) for row in range(len(ended))], *tensors)

        skipping.policy.writer.laid_out = laid_out

    ending(lambda row: False)
    assert skipping.step()["grad_norm"] == 0 and torch.equal(skipping.policy.model.tokens, before)
    ending(lambda row: row > 1)
    row = skipping.step()
    assert row["grad_norm"] > 0 and row["policy/ratio_first"] == pytest.approx(1, abs=1e-5)
    with pytest.raises(UserError, match="overlong is 7 tokens, and a completion has at most 6"):
        job_in(workspace, "grpo", "beyond", overlong=7)


def test_a_single_update_sees_what_several_see_first(workspace: Workspace) -> None:
    """With one update a step, what the policy thinks is taken from that update's own forward pass."""
    alone = job_in(workspace, "grpo", "alone", passes=1, minibatches=1)
    wanted = job_in(workspace, "grpo", "looked", passes=2, minibatches=1).step()
    found = alone.step()
    for name in ("policy/entropy", "policy/kl_token", "policy/length", "reward/mean"):
        assert found[name] == pytest.approx(wanted[name], abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_new_tokens": 96}, "leaves no room for a prompt"),
        ({"max_new_tokens": 90}, "has no prompts to train on"),
        ({"reward": "model"}, "none is given"),
        ({"reward": "world", "dataset": "open"}, "has no known answer"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(
    workspace: Workspace, settings: dict[str, Any], told: str
) -> None:
    prompt_dataset(workspace.datasets / "open", [(question, "") for question, _ in sums(8)])
    with pytest.raises(UserError, match=told):
        job_in(workspace, "grpo", **settings).step()


@pytest.mark.parametrize("stage", list(STAGES))
@pytest.mark.parametrize("role", ["reward", "reference"])
def test_a_model_that_sees_too_little_for_a_rollout_is_refused_before_the_first_step(
    workspace: Workspace, stage: str, role: str
) -> None:
    write = write_tiny_judge if role == "reward" else write_tiny_checkpoint
    write(workspace.models / "short", context=12)
    judged = {"reward": "auto"} if role == "reward" else {}
    with pytest.raises(UserError, match=f"The {role}( model)? sees 12 tokens, and the longest text"):
        job_in(workspace, stage, extra={role: "short"}, **judged)


def test_a_conversation_that_asks_nothing_is_left_out_and_told(workspace: Workspace) -> None:
    said = [[Message("user", "1+1"), Message("assistant", "2")], [Message("assistant", "Hello!")]]
    chat_dataset(workspace.datasets / "talks", said)
    job = job_in(workspace, "grpo", dataset="talks")
    assert any("1 prompts are left out" in each["message"] for each in events(job.course.run.dir, "warning"))


def test_a_coefficient_that_cannot_adapt_is_refused(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="kl is 0, from where the coefficient cannot adapt"):
        job_in(workspace, "ppo", kl=0.0)
    job_in(workspace, "ppo", kl=0.0, kl_target=None)


def test_a_prompt_without_an_answer_is_refused_before_the_first_step(workspace: Workspace) -> None:
    asked = sums(20)
    prompt_dataset(workspace.datasets / "holes", [*asked[:10], ("3+4", ""), *asked[10:]])
    with pytest.raises(UserError, match="'3\\+4' has no known answer"):
        job_in(workspace, "grpo", reward="exact", dataset="holes")
    job_in(workspace, "grpo", reward="length", dataset="holes")
