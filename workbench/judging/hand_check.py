"""Checking a policy by hand: fresh answers beside those of its reference, judged blind, and the reward model's verdict.

A check is a sampling run of two completions a prompt, one by each, and the pairwise label set `NAME-check` that it
goes into. The reward model judges the same pairs in its own name, so that both win rates are of the same answers.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from stages.store.checkpoints import list_checkpoints
from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.labels.elo import Outcome, outcomes
from stages.store.labels.judged import Choice, judged
from stages.store.rundir import Parent, RunDir, list_runs
from stages.store.statistics import Share, share
from stages.store.workspace import Workspace
from workbench import runs
from workbench.judging.model_labels import MODEL, take_in_scores
from workbench.judging.taking_in import take_in
from workbench.settings import Settings

PROMPTS = 24
"""Prompts of one check. Those that both answer alike are not judged, so that about a dozen are left."""

ALIKE = ("temperature", "max_new_tokens")
"""Settings by which both write as the policy does in training."""

EVERY = 0.25
"""Seconds between looks at a run that is waited for."""


class Verdict(NamedTuple):
    """How often the policy of a step was preferred to its reference, ties as halves; None where nobody judged."""

    step: int
    people: Share | None
    model: Share | None


def set_name(policy: str) -> str:
    """The label set that a policy's checks go into."""
    return f"{policy[:50]}-check"


def begin(workspace: Workspace, policy: RunDir, settings: Settings) -> RunDir:
    """Start writing the answers of the policy's last checkpoint and of its reference to some of its prompts.

    They are written on the CPU and beside the policy's own run, which may have the device. Raises UserError when the
    policy has no checkpoint yet, or does not say what it is held near.
    """
    spec = policy.spec()
    found = list_checkpoints(policy)
    reference = spec.parents.get("reference") or spec.parents.get("checkpoint")
    if not found:
        raise UserError(f"{spec.name} has no checkpoint yet.", "Save one: w.")
    if reference is None or "dataset" not in spec.parents:
        raise UserError(f"{spec.name} does not record what it is held near and the prompts it answers.")
    before = sum(1 for run in list_runs(workspace) if _name(run) == set_name(spec.name))
    wanted = {"k": 2, "max_prompts": PROMPTS, "seed": 1_000 * before + found[-1].step, "device": "cpu"}
    wanted |= {key: spec.settings[key] for key in ALIKE if spec.settings.get(key) is not None}
    return runs.launch(
        workspace,
        "sample",
        set_name(spec.name),
        wanted,
        dataset=spec.parents["dataset"].name,
        checkpoints=[f"{policy.id}@{found[-1].step}", reference.name],
        cpu_width=settings.queue.cpu_width + 1,
    )


def finish(workspace: Workspace, sampling: RunDir, settings: Settings, cancelled: Callable[[], bool]) -> str | None:
    """Wait for the answers and make the label set of them, or add to it; its name, or None when `cancelled`."""
    if not _wait(sampling, cancelled):
        return None
    with open_labels(workspace.ensure().labels) as labels:
        plain = msgspec.structs.replace(settings.labels, repeat_share=0.0)
        return take_in(labels, sampling, plain, "pair").name


def ask_reward_model(
    workspace: Workspace, policy: RunDir, settings: Settings, cancelled: Callable[[], bool]
) -> int | None:
    """Have the policy's reward model judge the same pairs in its own name; how many, or None when it has none."""
    reward = policy.spec().parents.get("reward")
    if reward is None:
        return None
    name = set_name(policy.spec().name)
    run = _label_run(workspace, name, reward, settings)
    if not _wait(run, cancelled):
        return None
    with open_labels(workspace.labels) as labels:
        return take_in_scores(labels, run)


def verdicts(workspace: Workspace, policy: str) -> list[Verdict]:
    """The checks of a policy by step, the latest step last."""
    if not workspace.labels.is_file():
        return []
    people, model = defaultdict[int, list[float]](list), defaultdict[int, list[float]](list)
    with open_labels(workspace.labels) as labels:
        for one in judged(labels, Choice(sets=(set_name(policy),), models=True)):
            by_step = model if one.label.origin.startswith(MODEL) else people
            for step, score in _scores(outcomes([one]), policy):
                by_step[step].append(score)
    steps = sorted(people.keys() | model.keys())
    return [Verdict(step, _share(people.get(step)), _share(model.get(step))) for step in steps]


def _scores(found: Iterable[Outcome], policy: str) -> list[tuple[int, float]]:
    """(step of the policy, 1 where it was preferred, 0 where its reference was, 0.5 for a tie)."""
    scores = []
    for first, second, score in found:
        for one, its in ((first, score), (second, 1 - score)):
            name, _, step = one.rpartition("@")
            if name == policy and step.isdecimal():
                scores.append((int(step), its))
    return scores


def _share(scores: list[float] | None) -> Share | None:
    return share(sum(scores), len(scores)) if scores else None


def _label_run(workspace: Workspace, name: str, reward: Parent, settings: Settings) -> RunDir:
    wanted = {"label_set": name, "device": "cpu", "judged": True}
    width = settings.queue.cpu_width + 1
    return runs.launch(workspace, "label", f"{name}-reward", wanted, checkpoint=reward.name, cpu_width=width)


def _wait(run: RunDir, cancelled: Callable[[], bool]) -> bool:
    """Until the run has ended; False when `cancelled`. Raises UserError when it has not finished well."""
    while run.alive():
        if cancelled():
            return False
        time.sleep(EVERY)
    state = run.state()
    if run.status(state) != "finished":
        raise UserError(state.error.message if state.error else f"{run.spec().name} ended before it was done.")
    return True


def _name(run: RunDir) -> str:
    try:
        return run.spec().name
    except UserError:
        return ""
