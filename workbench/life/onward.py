"""What comes after something that is done: the step of the life that enter goes on to, and how it is called."""

from __future__ import annotations

from collections.abc import Sequence

from stages.store.architecture import ENCODER_DECODERS, ENCODERS
from workbench.board.run_board import Entry
from workbench.board.survey import Inventory
from workbench.life.steps import FREEZE, POLICY_STAGES, Life, Step, lives

TALKING = ("pretrain", "sft", *POLICY_STAGES)
"""Stages whose model is talked to before the life goes on."""
MAKING = ("build", "tokenizer", "reward")
"""Stages after which the life goes on at once."""
LEADING = (*TALKING, *MAKING, "sample", "importing")
"""Stages after which there is something to go on to."""


def after_run(inventory: Inventory, facts: Entry) -> Step | None:
    """What to do with what a finished run has made; None where nothing lies nearer than anything else."""
    stage = facts.spec.stage
    if facts.status != "finished" or stage not in LEADING:
        return None
    found = lives(inventory)
    if stage == "sample":
        return _after_sampling(inventory, found, facts)
    if stage == "importing":
        return _after_importing(inventory, facts)
    if stage in TALKING and facts.state.last_checkpoint is not None:
        return Step("chat", "chat", "next", facts.name, "ready", facts)
    life = life_of(found, facts)
    step = _next(life, facts)
    if stage == "build" and life is not None and step is not None and step.key == "chat":
        return _learnt_from(life, facts) or step
    return step


def _after_sampling(inventory: Inventory, found: Sequence[Life], facts: Entry) -> Step | None:
    """Judging; then a dataset of the labels; then what the life goes on with."""
    if facts.name not in inventory.judged.finished:
        return Step("rank", "rank", "next", facts.name)
    if any(facts.name in (each.info.settings.get("label_sets") or ()) for each in inventory.datasets):
        return _next(life_of(found, facts), facts)
    return Step("reward", "reward", "next", stage=FREEZE, values={"label_set": facts.name})


def _after_importing(inventory: Inventory, facts: Entry) -> Step | None:
    """Tuning a decoder on the newest conversations; else talking. What scores or labels texts is not talked to."""
    family, head = facts.state.result.get("family"), facts.state.result.get("head")
    if head:
        return None
    chats = [each for each in inventory.datasets if each.info.kind == "chat"]
    if not chats or family in (*ENCODERS, *ENCODER_DECODERS):
        return Step("chat", "chat", "next", facts.name, "ready", facts)
    newest = max(chats, key=lambda each: each.info.created)
    return Step("sft", "SFT", "next", stage="sft", values={"checkpoint": facts.name, "dataset": newest.name})


def after_chat(found: Sequence[Life], run_id: str) -> Step | None:
    """What to do after a talk with a checkpoint of a run; None where the run is in no life, or all is done."""
    for life in found:
        for step in life.steps:
            if step.run is not None and step.run.run.id == run_id and step.key != "chat":
                return _next(life, step.run)
    return None


def life_of(found: Sequence[Life], facts: Entry) -> Life | None:
    """The life that a run is of: that whose step it is, whose name it bears, or the latest."""
    for life in found:
        if any(step.run is not None and step.run.run.id == facts.run.id for step in life.steps):
            return life
    for life in found:
        if facts.name in life.names:
            return life
    return found[0] if found else None


def _learnt_from(life: Life, facts: Entry) -> Step | None:
    """What learns from a dataset that was built when every step of the life is done: labels, say, of its answers."""
    key, origin = {"preference": ("reward", "sft"), "chat": ("sft", "pretrain")}.get(_kind(facts), ("", ""))
    if not key or not life.step(origin).name:
        return None
    values = {"checkpoint": life.step(origin).name, "dataset": facts.name}
    return Step(key, life.step(key).title, "next", detail="the form", stage=key, values=values)


def _kind(facts: Entry) -> str:
    """The kind of the dataset that a build has made."""
    return str(facts.state.result.get("kind") or facts.spec.settings.get("kind") or "")


def _next(life: Life | None, facts: Entry) -> Step | None:
    step = life.next if life is not None else None
    own = step is not None and step.run is not None and step.run.run.id == facts.run.id
    return None if step is None or own or (step.key == "chat" and facts.spec.stage in TALKING) else step


def label(step: Step) -> str:
    """What enter does about a step, as a request. It has names in it, which are foreign text."""
    values = step.values
    dataset, checkpoint = values.get("dataset", ""), values.get("checkpoint", "")
    if step.state in ("running", "failed", "paused", "stopped"):
        return f"Look at {step.name}, which {'has failed' if step.state == 'failed' else f'is {step.state}'}"
    match step.key, step.stage:
        case "data", _:
            return "Build a dataset: of the starter world, or of your own text"
        case "tokenizer", _:
            return f"Train a tokenizer on {dataset}"
        case "pretrain", _:
            return f"Pre-train a model on {dataset}"
        case "sft", "build":
            starter = step.values.get("sources") is not None
            return "Build the conversations that it learns from" if starter else "Build a dataset of conversations"
        case "sft", _:
            return f"Tune {checkpoint} on {dataset}"
        case "rank", "sample":
            return f"Have {values.get('checkpoints', '')} answer a dozen prompts, to rank the answers"
        case "rank", _:
            return f"Judge {step.name}"
        case "reward", "build":
            return "Build the rankings that a reward model learns from"
        case "reward" | "policy", stage if stage == FREEZE:
            return "Make a dataset of your labels"
        case "reward", _:
            return f"Train a reward model on {dataset}"
        case "policy", _:
            return f"Improve {checkpoint} by what is preferred (DPO)"
    return f"Chat with {step.name}"
