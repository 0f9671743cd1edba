"""What the stages share that improve a policy on its own completions: GRPO and PPO.

A step draws completions of some prompts (rollouts), has them scored, and makes updates whose loss weighs each token's
log-probability by an advantage, clipped where the policy has moved away from the one that wrote it:

    L_t = − min( ρ_t A_t, clip(ρ_t, 1 − ε_low, 1 + ε_high) A_t ),    ρ_t = π(x_t) / π_old(x_t)

Source: Schulman et al., Proximal Policy Optimization Algorithms (arXiv 1707.06347), eq. 7; ε_high above ε_low:
Yu et al., DAPO (arXiv 2503.14476), eq. 10. No dropout anywhere: the first update's ratio must be 1.

Shapes: B completions, T tokens of prompt and completion less one, as in `stages.policies.rollouts`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.data.conversations import Masker, choose_template
from stages.data.packing import permute
from stages.data.tokenizer import FILE as TOKENIZER
from stages.data.tokenizer import TextTokenizer
from stages.loop import Pace, Progress, log_interval, save_checkpoint
from stages.models.bases import base_folder
from stages.models.decoder import Decoder
from stages.models.logprobs import token_logprobs, token_logprobs_and_entropy
from stages.models.lora import without_lora
from stages.models.loss import IGNORED
from stages.models.opening import open_decoder
from stages.optim import AdamW
from stages.policies.alarms import Alarms, Watched
from stages.policies.kl import k1
from stages.policies.rollouts import Prompts, Rollouts, Writer, read_prompts, seeds_of
from stages.policies.scoring import Said, Score, open_score
from stages.run import Run
from stages.store.checkpoints import Best, best_checkpoint
from stages.store.errors import UserError, WorkFailed
from stages.store.files import sha256_file
from stages.store.specs.policy import Policy as Settings
from stages.training.adapting import config_of
from stages.training.precision import choose_precision
from stages.training.tuning import FixedPrompts, MicroBatches, Opened, fixed_prompts, open_model, write_chat_model

LR_TIMES_WIDTH = 0.004
"""Peak rate times width: 3e-5 at width 128. Other widths follow by the same rule."""
LORA_LR = 4
"""Adapters take a higher rate than whole weights."""
EPS = 1e-5
"""Of AdamW: Huang et al. (arXiv 2403.17031), detail 19."""
LOOKED_AT = 4
"""Micro-batches that are computed together where no gradient is: nothing is kept for a backward pass."""
SHOWN = 8
"""Rollouts that are kept to be read, at a time."""
ROUNDING = {"fp32": 1e-3, "bf16": 5e-2}
"""What the mean |log ρ| of the first update may be, by precision: other shapes of a batch round otherwise."""


class Moments(msgspec.Struct):
    """Mean and spread of all numbers so far. Source: Welford (1962), by batches as Chan et al. (1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: Sequence[float]) -> None:
        """Take more numbers in."""
        fresh = np.asarray(values, np.float64)
        count, apart = self.count + len(fresh), float(fresh.mean()) - self.mean
        self.squares += float(((fresh - fresh.mean()) ** 2).sum()) + apart**2 * self.count * len(fresh) / count
        self.mean += apart * len(fresh) / count
        self.count = count

    @property
    def std(self) -> float:
        return math.sqrt(self.squares / self.count) if self.count else 1.0


class PolicyProgress(Progress, kw_only=True):
    """Where a policy run stands: beside what every training has, its prompts, KL coefficient, rewards and alarms."""

    asked: int = 0
    """Prompts asked so far: their place in the endless order."""
    drawn: int = 0
    """Completions drawn so far: each has a seed of its own."""
    coefficient: float = 0.0
    """The KL coefficient now in force."""
    rewards: Moments = msgspec.field(default_factory=Moments)
    watched: Watched = msgspec.field(default_factory=Watched)


class Reference:
    """The frozen model that the policy is held near: another one, or a policy with adapters without them."""

    def __init__(self, model: Decoder, *, bare: bool = False) -> None:
        self._model, self._bare = model, bare

    @torch.no_grad()
    def logprobs(self, inputs_BT: Tensor, targets_BT: Tensor, temperature: float) -> Tensor:
        """log p of each target, 0 where there is none: (B, T) fp32."""
        with without_lora(self._model) if self._bare else contextlib.nullcontext():
            return token_logprobs(self._model, inputs_BT, targets_BT, temperature=temperature)


def clipped_surrogate(log_ratio: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """L_t of the formula above, and 1.0 where the clip holds the gradient back, else 0.0; shapes are broadcast."""
    ratio = log_ratio.exp()
    plain, clipped = ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages
    return -torch.minimum(plain, clipped), (clipped < plain).float()


class Tally:
    """Weighted means over a step's updates, kept on the device until the step is over."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}

    def add(self, weight: float, **values: Tensor) -> None:
        """Take in figures, each the mean over as many as `weight` says."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=value.device)) + value.detach() * weight
            self._weights[name] = self._weights.get(name, 0.0) + weight

    def means(self) -> dict[str, float]:
        return {name: float(total) / self._weights[name] for name, total in self._sums.items()}


class Looked(NamedTuple):
    """What the policy and its reference think of rollouts, before any update: (B, T) each, 0 where no target is."""

    logprobs: Tensor
    entropy: Tensor
    reference: Tensor


@dataclass
class Policy:
    """A policy at work: it writes, has it scored, looks at held-out prompts, reports and saves itself."""

    run: Run
    settings: Settings
    model: Decoder
    optimizer: AdamW
    reference: Reference
    base: Path
    template: str
    prompts: Prompts
    held_out: Prompts
    score: Score
    progress: PolicyProgress
    metrics: dict[str, float]
    group: int = 1
    """Completions of each prompt."""
    others: dict[str, AdamW] = field(default_factory=dict)
    """By name, the optimisers of further models: they are saved with this one."""
    write_more: Callable[[Path], None] = lambda folder: None
    """Writes further models into a checkpoint's folder."""

    def __post_init__(self) -> None:
        settings = self.settings
        self.steps = settings.steps or max(
            1, math.ceil(settings.epochs * len(self.prompts.asked) / settings.batch_size)
        )
        self.warmup = min(settings.warmup, self.steps // 10)
        asked = fixed_prompts(settings.sample_prompts, probes=settings.probes)
        self.fixed = FixedPrompts(self.base, self.template, asked, settings.sample_tokens)
        self.tokenizer = TextTokenizer.load(self.base)
        self.writer = Writer(self.tokenizer, self.fixed.stops, settings.max_new_tokens, settings.slots)
        completions = settings.batch_size * self.group
        at_once = -(-completions // settings.minibatches)
        self.micro = MicroBatches(self.run, self.progress, at_once, settings.micro_batch)
        self.alarms = Alarms(self.run, self.progress.watched, self.run.spec.settings, pauses=settings.pause_on_alarm)
        self.pace = Pace(self.model.tokens.device, "", 0)
        self.log_every = log_interval(settings.log_every, self.steps)
        self.best = Best("val/reward", highest=True, within=("val/kl", settings.kl_budget or settings.max_kl))
        self._last_evaluation = -1

    # -- rollouts ------------------------------------------------------------------------------------------------------

    def roll(self, count: int) -> Rollouts:
        """Completions of the next `count` prompts, `group` of each, one group after the other."""
        prompts = self.prompts.order(self.progress.asked, count, self.settings.seed)
        asked = [each for each in prompts for _ in range(self.group)]
        seeds = seeds_of(self.settings.seed, self.progress.drawn, len(asked))
        self.progress.asked += len(prompts)
        self.progress.drawn += len(asked)
        return self.writer.write(self.model, asked, seeds, self.settings.temperature)

    def scores(self, rollouts: Rollouts) -> list[float]:
        """What the scorer makes of each."""
        parts = zip(rollouts.asked, rollouts.texts, rollouts.completions, strict=True)
        said = [Said(asked.prompt, text, tokens, [*asked.tokens, *tokens]) for asked, text, tokens in parts]
        found = self.score(said)
        if not all(map(math.isfinite, found)):
            raise WorkFailed(f"A reward at step {self.progress.step + 1} is no finite number.")
        return found

    def penalties(self, rollouts: Rollouts) -> NDArray[np.float32]:
        """What is taken from the reward of each that did not come to an end: (B,)."""
        return np.array([0.0 if ended else self.settings.missing_end_penalty for ended in rollouts.ended], np.float32)

    @torch.no_grad()
    def look(self, rollouts: Rollouts) -> Looked:
        """Log-probabilities by policy and reference, and the policy's entropy."""
        temperature = self.settings.temperature
        mine = self.in_parts(
            rollouts,
            lambda x, y: torch.stack(token_logprobs_and_entropy(self.model, x, y, temperature=temperature)),
        )
        return Looked(mine[0], mine[1], self.by_reference(rollouts))

    def by_reference(self, rollouts: Rollouts) -> Tensor:
        """Log-probabilities by the reference (B, T)."""
        temperature = self.settings.temperature
        return self.in_parts(rollouts, lambda x, y: self.reference.logprobs(x, y, temperature)[None])[0]

    def in_parts(self, rollouts: Rollouts, figures: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """figures(inputs, targets) (n, b, t) of some rollouts at a time, for all: (n, B, T), 0 beyond."""
        found = None
        for rows, inputs, targets in self.parts(rollouts, np.arange(len(rollouts)), LOOKED_AT):
            part = figures(inputs, targets)
            if found is None:
                found = part.new_zeros(len(part), *rollouts.targets.shape)
            found[:, rows, : part.shape[2]] = part
        assert found is not None
        return found

    def parts(
        self, rollouts: Rollouts, rows: NDArray[np.int64], times: int = 1
    ) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
        """These rows, `times` as many as a micro-batch at once, with inputs and targets cut to the longest of them."""
        at_once = self.micro.rows * times
        for part in (rows[start : start + at_once] for start in range(0, len(rows), at_once)):
            width = rollouts.width(part)
            yield part, rollouts.inputs[part, :width], rollouts.targets[part, :width]

    def minibatches(self, count: int) -> Iterator[NDArray[np.int64]]:
        """Rows of each update of a step: every pass in an order of its own, which follows from seed and step."""
        for number in range(self.settings.passes):
            epoch = self.progress.step * self.settings.passes + number
            order = permute(np.arange(count, dtype=np.uint64), count, self.settings.seed, epoch)
            yield from (part for part in np.array_split(order, self.settings.minibatches) if len(part))

    # -- memory --------------------------------------------------------------------------------------------------------

    def try_memory(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Try the longest rollouts that there can be. loss: of inputs and targets (b, t)."""
        longest = max(len(asked.tokens) for asked in self.prompts.asked) + self.settings.max_new_tokens - 1

        def loss_of(count: int) -> Tensor:
            inputs = torch.full((count, longest), self.tokenizer.pad_id, device=self.model.tokens.device)
            targets = torch.full_like(inputs, self.tokenizer.eos_id)
            targets[:, : longest - self.settings.max_new_tokens] = IGNORED
            return loss(inputs, targets)

        self.run.report(self.progress.step, self.steps, phase="trying the memory")
        self.micro.choose(self.model, self.optimizer, loss_of, self.settings.batch_size * self.group)

    # -- reporting -----------------------------------------------------------------------------------------------------

    def due(self, every: int) -> bool:
        """Whether something done every so many steps, and at the end, is to be done now."""
        return self.progress.step % every == 0 or self.progress.step == self.steps

    def measures(self, rollouts: Rollouts, seen: Looked) -> dict[str, float]:
        """Figures of rollouts by the policy that wrote them. KL in nats, estimated by k1."""
        mask = rollouts.mask
        kl_BT, count = k1(seen.logprobs, seen.reference) * mask, mask.sum()
        kl, kl_token, entropy = torch.stack(
            (kl_BT.sum(1).mean(), kl_BT.sum() / count, (seen.entropy * mask).sum() / count)
        ).tolist()
        return {
            "policy/kl": kl,
            "policy/kl_token": kl_token,
            "policy/entropy": entropy,
            "policy/length": rollouts.mean_length,
            "policy/ended": sum(rollouts.ended) / len(rollouts),
        }

    def log(self, row: dict[str, float]) -> None:
        """Report the step, look for alarms, evaluate and answer fixed prompts when due, and append a row of metrics."""
        step, settings = self.progress.step, self.settings
        self.run.report(step, self.steps)
        self.alarms.check(self.progress, row)
        evaluated = self.due(settings.eval_every)
        if evaluated:
            row |= self.evaluate()
        if evaluated or self.due(self.log_every):
            self.run.log_metrics(step, row | self.pace.row() | {"tokens": float(self.progress.tokens_seen)})
        if settings.sample_every and self.due(settings.sample_every):
            self.answer_fixed()

    def begin(self) -> None:
        """What a fresh start shows before its first step: held-out prompts, and fixed ones."""
        if self.progress.step == 0:
            if found := self.evaluate():
                self.run.log_metrics(0, found)
            if self.settings.sample_every:
                self.answer_fixed()

    def answer_fixed(self) -> None:
        """Have the fixed prompts answered, each token the likeliest."""
        self.fixed.answer(self.run, self.progress.step, self.model)

    def evaluate(self) -> dict[str, float]:
        """Reward, as it is scored, and KL of the likeliest answers to held-out prompts; nothing when there are none."""
        self._last_evaluation = self.progress.step
        asked = self.held_out.asked[: self.settings.eval_prompts]
        if not asked:
            return {}
        rollouts = self.writer.write(self.model, asked, [0] * len(asked), 0.0)
        scores, seen = self.scores(rollouts), self.look(rollouts)
        found = self.measures(rollouts, seen)
        self.metrics = {
            "val/reward": sum(scores) / len(scores),
            "val/kl": found["policy/kl"],
            "val/length": found["policy/length"],
            "val/ended": found["policy/ended"],
        }
        return self.metrics

    def show(self, rollouts: Rollouts, rewards: Sequence[float], seen: Looked, advantages_BT: Tensor) -> None:
        """Keep some of a step's rollouts to be read, token by token. The step is the one that is being made."""
        step, every = self.progress.step + 1, self.settings.sample_every
        if not every or (step % every and step not in (1, self.steps)):
            return
        rows = np.unique(np.linspace(0, len(rollouts) - 1, SHOWN).round().astype(int)).tolist()
        kl_BT = k1(seen.logprobs, seen.reference)
        for row in rows:
            start = len(rollouts.asked[row].tokens) - 1
            said = slice(start, start + len(rollouts.completions[row]))
            self.run.sample(
                step,
                kind="rollout",
                prompt=rollouts.asked[row].text,
                text=rollouts.texts[row],
                reward=round(rewards[row], 4),
                kl=round(float(kl_BT[row, said].sum()), 4),
                ended=rollouts.ended[row],
                pieces=[self.tokenizer.decode([token], skip_special=False) for token in rollouts.completions[row]],
                token_kl=_rounded(kl_BT[row, said]),
                token_advantage=_rounded(advantages_BT[row, said]),
                token_logprob=_rounded(seen.logprobs[row, said]),
            )

    # -- saving --------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint of this step, evaluated, unless there is one."""
        if self.progress.step == 0 or self.run.state.last_checkpoint == f"step-{self.progress.step}":
            return
        if self._last_evaluation != self.progress.step and (found := self.evaluate()):
            self.run.log_metrics(self.progress.step, found)
        save_checkpoint(
            self.run, self.progress, self.optimizer, self._write, self.metrics, others=self.others, best=self.best
        )

    def _write(self, folder: Path) -> None:
        write_chat_model(self.model, folder, self.base, self.template, self.fixed.stops, keep=self.settings.lora_keep)
        self.write_more(folder)

    def result(self) -> dict[str, Any]:
        """The closing figures."""
        best = best_checkpoint(self.run.dir, self.best)
        return {
            "checkpoint": self.run.state.last_checkpoint,
            "best": best.name if best else None,
            "prompts": len(self.prompts.asked),
            "completions": self.progress.drawn,
            "tokens_seen": self.progress.tokens_seen,
            "micro_batch": self.micro.rows,
            "precision": self.progress.precision,
            **self.metrics,
        }


def open_policy(
    run: Run, settings: Settings, device: torch.device, *, group: int, coefficient: float
) -> tuple[Policy, Opened]:
    """The policy to be improved, or the run's last checkpoint of it, with its reference, prompts and scorer.

    group: completions of each prompt. coefficient: of the KL, for a fresh start.
    """
    base = run.checkpoint()
    config = config_of(base, 0.0)
    template = choose_template(base, settings.template)
    prompts, held_out = _read(run, settings, base, template, config.context)
    if settings.lora_dropout:
        run.warn("lora_dropout is left out: a policy learns from what it would say, without dropout.")
        settings = msgspec.structs.replace(settings, lora_dropout=0.0)
    lr = settings.lr or LR_TIMES_WIDTH / config.width * (LORA_LR if settings.method == "lora" else 1)
    opened = open_model(run, settings, base, config, device, lr=lr, eps=EPS, kind=PolicyProgress)
    progress = opened.progress
    assert isinstance(progress, PolicyProgress)
    if opened.checkpoint is None:
        progress.coefficient = coefficient
    reward = run.checkpoint("reward") if run.has("reward") else None
    policy = Policy(
        run=run,
        settings=settings,
        model=opened.model,
        optimizer=opened.optimizer,
        reference=_open_reference(run, settings, base, opened.model, progress.precision, device),
        base=base,
        template=template,
        prompts=prompts,
        held_out=held_out,
        score=open_score(settings, reward, base, template, device.type, precision=progress.precision),
        progress=progress,
        metrics=opened.metrics(),
        group=group,
    )
    return policy, opened


def _open_reference(
    run: Run, settings: Settings, base: Path, model: Decoder, precision: str, device: torch.device
) -> Reference:
    if not run.has("reference") and settings.method == "lora":
        return Reference(model, bare=True)
    folder = run.checkpoint("reference") if run.has("reference") else base
    if sha256_file(base_folder(folder) / TOKENIZER) != sha256_file(base_folder(base) / TOKENIZER):
        raise UserError(
            f"The reference {folder} has another tokenizer than {base}.", "Choose a relative of the policy."
        )
    return Reference(open_decoder(folder, choose_precision(precision, device).dtype, device))


def _read(run: Run, settings: Settings, base: Path, template: str, context: int) -> tuple[Prompts, Prompts]:
    """The prompts to train on and the held-out ones; what is left out or missing is told."""
    dataset, room = run.dataset(), context - settings.max_new_tokens
    if room < 1:
        raise UserError(
            f"The model sees {context:,} tokens, and max_new_tokens leaves no room for a prompt.",
            f"Set it below {context:,}.",
        )
    run.report(0, 0, phase="reading the prompts")
    with Masker(base, text=template) as masker:
        train = read_prompts(dataset, "train", masker, room, settings.part)
        held_out = read_prompts(dataset, "val", masker, room)
    if not train.asked:
        part = "" if settings.part == "any" else f" of part {settings.part}"
        raise UserError(f"{dataset.name!r} has no prompts{part} to train on.", train.why)
    if left_out := train.left_out + held_out.left_out:
        run.warn(f"{left_out:,} prompts are left out: {train.why or held_out.why}.")
    if not held_out.asked:
        run.warn(f"{dataset.name!r} has no validation part, so nothing tells how well the policy does on new prompts.")
    mixed = sum(asked.prompt.part == "eval" for asked in train.asked)
    if mixed and mixed < len(train.asked):
        run.warn(f"{mixed:,} of {len(train.asked):,} prompts belong to the part that is held out for evaluation.")
    return train, held_out


def assert_on_policy(progress: Progress, deviation: float) -> None:
    """Raise WorkFailed when the first update of a step is not by the policy that wrote the rollouts.

    deviation: the mean |log ρ| over its tokens.
    """
    if not deviation <= ROUNDING[progress.precision]:
        raise WorkFailed(
            f"The first update of step {progress.step + 1} is off-policy: |log ratio| is {deviation:.2g} on average.",
            "It must be 0 but for rounding; this is a mistake of the program, and worth a report.",
        )


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
