"""The model's life: data → tokenizer → pre-train → SFT → rank → reward → policy → chat, derived from the workspace.

Nothing is stored: a lineage is the dataset, the tokenizer trained on it, the runs trained with both, and the
checkpoints of the latest of these. What is next follows from what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stages.store.checkpoints import list_checkpoints
from stages.store.datasets import Dataset
from stages.store.tokenizers import Tokenizer
from workbench.board.run_board import Entry
from workbench.board.survey import Inventory
from workbench.wording import amount, duration, speed

STARTER = "starter:world"
STARTER_CHAT = "starter:world-chat"
STARTER_PREFERENCES = "starter:world-preferences"
"""The sources of the starter life: text to pre-train on, conversations, and ranked answers."""

STARTER_EPOCHS = 8.0
"""Passes over the starter's conversations: they are few, and a small model needs to see each several times."""

POLICY_STAGES = ("dpo", "grpo", "ppo")
"""Stages that improve a tuned model by what people prefer."""

OUTCOMES = (("val/reward", "reward", ".2f"), ("val/accuracy", "right", ".0%"), ("val/loss", "loss", ".2f"))
"""Closing figures by which a run is told, the first that it has."""

State = Literal["done", "running", "paused", "next", "failed", "stopped", "open", "later"]
"""`open` can be done and need not be; `later` waits for the steps before it."""

DOZEN = 12
"""Prompts that the step of ranking proposes to have answered."""
FREEZE = "labels"
"""In the place of a stage: the form that makes a dataset of labels."""


@dataclass(frozen=True)
class Step:
    """One step of a life: where it stands, and what opens it."""

    key: str
    """data, tokenizer, pretrain, sft, rank, reward, policy or chat."""
    title: str
    state: State
    name: str = ""
    """What the step made or is making. Foreign text."""
    detail: str = ""
    """Figures, progress, or why it failed; parts are separated by `, `. Foreign text."""
    run: Entry | None = None
    stage: str = ""
    """The stage that a start form opens with `values`."""
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Life:
    """The steps of one lineage, in order."""

    steps: tuple[Step, ...]
    starter: bool = False
    """Whether it is the life of the starter world, which the app may take further on its own."""

    def step(self, key: str) -> Step:
        return next(step for step in self.steps if step.key == key)

    @property
    def names(self) -> list[str]:
        """What the lineage is made of, in order: dataset, tokenizer, model, tuned model."""
        return [step.name for step in self.steps[:4] if step.name]

    @property
    def next(self) -> Step:
        """The step that wants attention: the one at work, the one that failed, or the first not done."""
        order: tuple[State, ...] = ("failed", "paused", "running", "next", "stopped")
        return next((step for state in order for step in self.steps if step.state == state), self.steps[0])


@dataclass(frozen=True)
class Lineage:
    """One dataset (or the run that is to build it), and what came of it."""

    dataset: Dataset | None
    build: Entry | None
    tokenizer: Tokenizer | None = None
    training_tokenizer: Entry | None = None
    model: Entry | None = None
    tuned: Entry | None = None
    """The latest instruction tuning that began from a checkpoint of the model."""
    reward: Entry | None = None
    """The latest reward model that began from a checkpoint of the tuned model."""
    policy: Entry | None = None
    """The latest improvement of the tuned model by preferences."""

    @property
    def time(self) -> float:
        """When something last began or ended in it, in seconds since the epoch."""
        runs = (self.build, self.training_tokenizer, self.model, self.tuned, self.reward, self.policy)
        times = [facts.spec.created for facts in runs if facts]
        times += [found.info.created for found in (self.dataset, self.tokenizer) if found]
        return max(times, default=0.0)


def lives(inventory: Inventory) -> list[Life]:
    """The lives in a workspace, the latest first; one empty life when there is nothing."""
    lineages = [_of_dataset(inventory, dataset) for dataset in inventory.datasets if dataset.info.kind == "text"]
    built = {lineage.dataset.name: lineage.dataset.info.created for lineage in lineages if lineage.dataset}
    for facts in inventory.runs:
        unfinished = facts.spec.stage == "build" and facts.status not in ("finished", "stopped")
        if unfinished and built.get(facts.name, 0.0) < facts.spec.created:
            built[facts.name] = facts.spec.created
            lineages.append(Lineage(None, facts))
    ordered = sorted(lineages, key=lambda lineage: lineage.time, reverse=True)
    return [_life(lineage, inventory) for lineage in ordered] or [_life(Lineage(None, None), inventory)]


def _of_dataset(inventory: Inventory, dataset: Dataset) -> Lineage:
    """The latest tokenizer trained on `dataset`, and the latest model trained with both."""
    digest = dataset.info.digest
    used = [facts for facts in inventory.runs if facts.digest("dataset") == digest]
    models = [facts for facts in used if facts.spec.stage == "pretrain"]
    model = next((facts for facts in models if facts.status in ("queued", "running", "paused")), None)
    model = model or (models[0] if models else None)
    trained = [found for found in inventory.tokenizers if found.info.dataset_digest == digest]
    tokenizer = max(trained, key=lambda found: found.info.created, default=None)
    if model and (tokenizer is None or not tokenizer.info.created > model.spec.created):
        wanted = model.digest("tokenizer")
        tokenizer = next((found for found in inventory.tokenizers if found.info.digest == wanted), tokenizer)
    elif tokenizer:
        model = next((facts for facts in models if facts.digest("tokenizer") == tokenizer.info.digest), None)
    training = [facts for facts in used if facts.spec.stage == "tokenizer"]
    tuned = _made_from(inventory, model, ("sft",))
    return Lineage(
        dataset,
        None,
        tokenizer,
        training[0] if training else None,
        model,
        tuned,
        _made_from(inventory, tuned, ("reward",)),
        _made_from(inventory, tuned, POLICY_STAGES),
    )


def _made_from(inventory: Inventory, origin: Entry | None, stages: tuple[str, ...]) -> Entry | None:
    """The latest run of these stages that went on from a checkpoint of another run."""
    for facts in inventory.runs:
        parent = facts.spec.parents.get("checkpoint")
        if origin and facts.spec.stage in stages and parent and origin.run.path in Path(parent.name).parents:
            return facts
    return None


def _life(lineage: Lineage, inventory: Inventory) -> Life:
    made = [_data(lineage), _tokenizer(lineage), _pretrain(lineage, inventory), _sft(lineage, inventory)]
    made += [_rank(lineage, inventory), _reward(lineage, inventory), _policy(lineage, inventory), _chat(lineage)]
    return Life(tuple(made), _is_starter(lineage))


def _data(lineage: Lineage) -> Step:
    if lineage.dataset is not None:
        info = lineage.dataset.info
        detail = f"{sum(info.records.values()):,} docs, {amount(sum(info.bytes.values()), 'bytes')}"
        return Step("data", "data", "done", lineage.dataset.name, detail, stage="build")
    if lineage.build is not None:
        return _at_work("data", "data", lineage.build)
    return Step("data", "data", "next", stage="build", values={"sources": [STARTER], "name": "world"})


def _tokenizer(lineage: Lineage) -> Step:
    step = ("tokenizer", "tokenizer")
    if lineage.tokenizer is not None:
        info = lineage.tokenizer.info
        detail = f"{info.type}, {info.vocab_size:,} tokens"
        return Step(*step, "done", lineage.tokenizer.name, detail, stage="tokenizer", values=_on(lineage))
    facts = lineage.training_tokenizer
    if facts is not None and facts.status not in ("finished", "stopped"):
        return _at_work(*step, facts)
    if lineage.dataset is None:
        return Step(*step, "later", stage="tokenizer")
    values = {**_on(lineage), "name": f"{lineage.dataset.name}-bpe"}
    return Step(*step, "next", stage="tokenizer", values=values)


def _pretrain(lineage: Lineage, inventory: Inventory) -> Step:
    step = ("pretrain", "pre-train")
    if lineage.model is not None:
        facts = lineage.model
        if facts.status == "finished":
            return Step(*step, "done", facts.name, _outcome(facts), facts, "pretrain", _on(lineage))
        return _at_work(*step, facts)
    if lineage.tokenizer is None or lineage.dataset is None:
        return Step(*step, "later", stage="pretrain")
    taken = {facts.name for facts in inventory.runs if facts.spec.stage == "pretrain"}
    name, number = f"{lineage.dataset.name}-tiny", 1
    while name in taken:
        number += 1
        name = f"{lineage.dataset.name}-tiny-{number}"
    return Step(*step, "next", stage="pretrain", values={**_on(lineage), "name": name})


def _sft(lineage: Lineage, inventory: Inventory) -> Step:
    """Tuning the model on conversations; building these is a part of the step."""
    step, facts, model = ("sft", "SFT"), lineage.tuned, lineage.model
    if facts is not None:
        if facts.status == "finished":
            return Step(*step, "done", facts.name, _outcome(facts), facts, "sft", _tuning(lineage, inventory))
        return _at_work(*step, facts)
    if lineage.dataset is None or model is None or not _trained(model):
        return Step(*step, "later", detail="needs a model", stage="sft")
    if _conversations(lineage, inventory) is not None:
        return Step(*step, "next", detail="the form", stage="sft", values=_tuning(lineage, inventory))
    name = f"{lineage.dataset.name}-chat"
    building = next((f for f in inventory.runs if f.spec.stage == "build" and f.name == name), None)
    if building is not None and building.status not in ("finished", "stopped"):
        return _at_work(*step, building)
    values = {"sources": [STARTER_CHAT], "name": name} if _is_starter(lineage) else {"kind": "chat", "name": name}
    return Step(*step, "next", detail="chats first", stage="build", values=values)


def _rank(lineage: Lineage, inventory: Inventory) -> Step:
    """Judging by hand. It belongs to the workspace: labels are of prompts, whatever model answered them.

    The life of the starter world has rankings of its own, so that judging is open to it; another life needs it.
    """
    step = ("rank", "rank")
    newest, prompts, labels, _ = inventory.judged
    if labels:
        return Step(*step, "done", newest, f"{labels:,} label{'s' if labels > 1 else ''}")
    if newest:
        return Step(*step, "next", newest, f"{prompts:,} to judge")
    sampling = next((facts for facts in inventory.runs if facts.spec.stage == "sample"), None)
    if sampling is not None and sampling.status == "finished":
        return Step(*step, "next", sampling.name, "to judge")
    if sampling is not None and sampling.status != "stopped":
        return _at_work(*step, sampling)
    tuned, prompted = lineage.tuned, _conversations(lineage, inventory)
    if tuned is None or prompted is None or not _trained(tuned):
        return Step(*step, "later", detail="needs SFT")
    values = {"checkpoints": tuned.name, "dataset": prompted.name, "max_prompts": DOZEN}
    own = _is_starter(lineage) or _preferences(lineage, inventory) is not None
    return Step(*step, "open" if own else "next", detail="rank a dozen", stage="sample", values=values)


def _reward(lineage: Lineage, inventory: Inventory) -> Step:
    """A model that scores answers as people rank them; building the rankings is a part of the step."""
    step, facts, tuned = ("reward", "reward"), lineage.reward, lineage.tuned
    if facts is not None:
        return _done(*step, facts) if facts.status == "finished" else _at_work(*step, facts)
    if tuned is None or not _trained(tuned):
        return Step(*step, "later", detail="needs SFT", stage="reward")
    preferences = _preferences(lineage, inventory)
    if preferences is not None:
        values = {"checkpoint": tuned.name, "dataset": preferences.name, "name": f"{tuned.name}-reward"}
        return Step(*step, "next", detail="the form", stage="reward", values=values)
    if first := _labels_first(inventory):
        return Step(*step, "next", **first)
    if not _is_starter(lineage):
        return Step(*step, "later", detail="needs labels", stage="reward")
    name = f"{lineage.dataset.name if lineage.dataset else 'world'}-preferences"
    building = next((f for f in inventory.runs if f.spec.stage == "build" and f.name == name), None)
    if building is not None and building.status not in ("finished", "stopped"):
        return _at_work(*step, building)
    built: dict[str, Any] = {"sources": [STARTER_PREFERENCES], "name": name}
    return Step(*step, "next", detail="rankings first", stage="build", values=built)


def _policy(lineage: Lineage, inventory: Inventory) -> Step:
    """The tuned model improved by preferences: DPO needs nothing else, and is what the step proposes.

    It is open without a reward model, which comes before it in the row: GRPO and PPO learn from one.
    """
    step, facts, tuned = ("policy", "policy"), lineage.policy, lineage.tuned
    if facts is not None:
        return _done(*step, facts) if facts.status == "finished" else _at_work(*step, facts)
    preferences = _preferences(lineage, inventory)
    if tuned is None or not _trained(tuned):
        needed = "needs rankings" if preferences is None else "needs SFT"
        return Step(*step, "later", detail=needed, stage="dpo")
    if preferences is None:
        first = _labels_first(inventory)
        return Step(*step, "open", **first) if first else Step(*step, "later", detail="needs rankings", stage="dpo")
    values = {"checkpoint": tuned.name, "dataset": preferences.name, "name": f"{tuned.name}-dpo"}
    state: State = "next" if lineage.reward and lineage.reward.status == "finished" else "open"
    return Step(*step, state, detail="DPO, GRPO, PPO", stage="dpo", values=values)


def _labels_first(inventory: Inventory) -> dict[str, Any]:
    """Detail, stage and values of a step that needs a dataset of the labels first; nothing where there are none."""
    count, values = inventory.judged.labels, {"label_set": inventory.judged.newest}
    detail = f"{count:,} label{'s' if count > 1 else ''} first"
    return {"detail": detail, "stage": FREEZE, "values": values} if count else {}


def _done(key: str, title: str, facts: Entry) -> Step:
    return Step(key, title, "done", facts.name, _outcome(facts), facts, facts.spec.stage)


def _trained(facts: Entry) -> bool:
    """Whether the run left a model to go on from: at its end, or where somebody stopped it."""
    return facts.status in ("finished", "stopped") and bool(list_checkpoints(facts.run))


def _preferences(lineage: Lineage, inventory: Inventory) -> Dataset | None:
    """The newest dataset of rankings; for the starter life of its own, or what was made of labels."""
    found = [each for each in inventory.datasets if each.info.kind == "preference"]
    return max(found, key=lambda each: each.info.created, default=None)


def _conversations(lineage: Lineage, inventory: Inventory) -> Dataset | None:
    """The chat dataset to tune on: the newest, for the starter life the newest of its own."""
    chats = [found for found in inventory.datasets if found.info.kind == "chat"]
    if _is_starter(lineage):
        chats = [found for found in chats if found.info.settings.get("sources") == [STARTER_CHAT]]
    return max(chats, key=lambda found: found.info.created, default=None)


def _tuning(lineage: Lineage, inventory: Inventory) -> dict[str, Any]:
    """What the form of instruction tuning is filled with."""
    chat, model = _conversations(lineage, inventory), lineage.model
    assert model is not None
    values: dict[str, Any] = {"checkpoint": model.name, "name": f"{model.name}-sft"}
    values |= {"dataset": chat.name} if chat else {}
    return values | ({"epochs": STARTER_EPOCHS} if _is_starter(lineage) else {})


def _chat(lineage: Lineage) -> Step:
    """The latest model that has a checkpoint: the improved one, else the tuned one, else the pre-trained one."""
    for facts in (lineage.policy, lineage.tuned, lineage.model):
        if facts is not None and list_checkpoints(facts.run):
            return Step("chat", "chat", "next", facts.name, "ready", facts)
    return Step("chat", "chat", "later", detail="needs a model")


def _at_work(key: str, title: str, facts: Entry) -> Step:
    states: dict[str, State] = {"queued": "running", "running": "running", "paused": "paused", "stopped": "stopped"}
    return Step(key, title, states.get(facts.status, "failed"), facts.name, _progress(facts), facts, facts.spec.stage)


def _progress(facts: Entry) -> str:
    state = facts.state
    if facts.status == "lost":
        return "lost: its worker is gone"
    if facts.status == "failed":
        return state.error.message if state.error else "failed"
    share = f"{facts.share:.0%}" if facts.share is not None else ""
    if facts.status in ("stopped", "paused"):
        return " ".join(filter(None, (facts.status, "at" if share else "", share)))
    if facts.status == "queued":
        return state.phase or "waits for the device"
    left = f"{duration(state.eta)} left" if state.eta is not None else ""
    parts = [state.phase, share, left, speed(state.rate, state.unit) if state.rate else ""]
    return ", ".join(filter(None, parts)) or "starting"


def _outcome(facts: Entry) -> str:
    result, ended = facts.state.result, f"{facts.state.step:,} steps"
    for metric, title, form in OUTCOMES:
        value = result.get(metric)
        if isinstance(value, int | float):
            return f"{ended}, {title} {value:{form}}"
    return ended


def _on(lineage: Lineage) -> dict[str, Any]:
    """The parents that a start form is filled with."""
    values = {"dataset": lineage.dataset.name} if lineage.dataset else {}
    return values | ({"tokenizer": lineage.tokenizer.name} if lineage.tokenizer else {})


def _is_starter(lineage: Lineage) -> bool:
    settings = (
        lineage.dataset.info.settings if lineage.dataset else lineage.build.spec.settings if lineage.build else {}
    )
    return settings.get("sources") == [STARTER]
