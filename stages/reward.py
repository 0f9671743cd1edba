"""The reward model: a fine-tuned decoder with a scalar head learns which completions people prefer.

    L(θ) = 1/|B| Σ_{x ∈ B} 1/|P_x| Σ_{(i, j) ∈ P_x} ℓ(r_i − r_j − m_ij) + c (r_i + r_j)²        ℓ(d) = −log σ(d)

over the prompts x of a step's batch B. P_x are all pairs of x's completions, i ranked no lower than j; they stand in
one batch element, so that each completion passes through the model once. r_i is the head's value at the last token of
completion i, its end of turn or text included. A tie has no better side: its ℓ is ½ ℓ(d) + ½ ℓ(−d), or it is left out.

Sources: Ouyang et al., Training language models to follow instructions with human feedback (arXiv 2203.02155), eq. 1;
the margin m, Touvron et al., Llama 2 (arXiv 2307.09288), eq. 2; the centring c, Eisenstein et al., Helping or Herding?
(arXiv 2312.09244), section 2; the head and normalised scores, Huang et al. (arXiv 2403.17031), details 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stages.asking.dialogue import own_template
from stages.data.conversations import choose_template
from stages.data.preference_shards import PreferenceSet
from stages.data.rankings import Batch, Pairs, Rankings, text_of
from stages.data.templates import FILE as TEMPLATE
from stages.data.tokenizer import TextTokenizer, copy_tokenizer
from stages.loop import Progress, by_leader, set_up_torch
from stages.measuring.judgement import ScoredCompletions, accuracy, calibration, calibration_error, judge
from stages.models.bases import base_folder
from stages.models.hf_config import is_reward_model
from stages.models.lora import has_lora, load_adapter, merge_lora, save_adapter
from stages.models.value import ValueModel, load_value_model, new_value_model, save_value_model
from stages.policies.preferences import read_preferences
from stages.report import write_card
from stages.run import Run
from stages.store import compute
from stages.store.architecture import ModelConfig
from stages.store.checkpoints import Checkpoint
from stages.store.errors import UserError
from stages.store.rewards import FILE, Scale, read_scale
from stages.store.sizes import parameter_count
from stages.store.specs.reward import Reward
from stages.training import distributed
from stages.training.adapting import ADAPTER, config_of, open_adapted, open_whole
from stages.training.course import Course
from stages.training.opening import Opened, begin, length_seen, peak_lr
from stages.training.tuning import room_for
from stages.training.updates import Update

LR_TIMES_WIDTH = 0.064
"""Peak rate times width: half of what instruction tuning uses."""


def run(run: Run) -> dict[str, Any]:
    """Train until the last step, and judge the held-out pairs for the report card; what was reached."""
    job = prepare(run)
    job.course.follow(job)
    by_leader(job.model, job.report)
    run.report(job.progress.step, job.course.steps)
    return job.result()


def preference_loss(
    scores_M: Tensor, pairs: Pairs, prompts: int, *, margins_P: Tensor | None = None, centring: float = 0.0
) -> Tensor:
    """The loss at the head of this file in nats, a fp32 scalar, of scores (M,) whose pairs belong to so many prompts.

    A tie has no margin.
    """
    device = scores_M.device
    better, worse, tied, weights = (
        torch.from_numpy(part).to(device) for part in (pairs.better, pairs.worse, pairs.tied, pairs.weights)
    )
    difference = scores_M[better] - scores_M[worse]
    wanted = difference if margins_P is None else difference - margins_P * ~tied
    either = 0.5 * (functional.softplus(difference) + functional.softplus(-difference))
    loss_P = torch.where(tied, either, functional.softplus(-wanted))
    if centring:
        loss_P = loss_P + centring * (scores_M[better] + scores_M[worse]).square()
    return (weights * loss_P).sum() / prompts


def prepare(run: Run) -> Job:
    """Read the rankings, load the model or resume it, try its memory, and restore the random numbers last."""
    settings = run.settings(Reward)
    device = set_up_torch(run, deterministic=settings.deterministic)
    base = run.checkpoint()
    config = config_of(base, 0.0)
    template = template_of(base, settings.template)
    data = read_scored(run, base, template, settings, room_for(settings.context, config.context))
    lr = peak_lr(settings, config.width, times_width=LR_TIMES_WIDTH)
    begun = begin(run, settings, device, Progress, lr=lr).fitting(config)
    checkpoint = begun.checkpoint
    model = open_model(base, checkpoint, settings, config, begun.place)
    opened = begun.optimise(model, parameters=parameter_count(config).total)
    scale = read_scale(checkpoint.path) if checkpoint else Scale()
    job = Job(run, settings, opened, base, template, data, scale)
    job.course.make_ready(job)
    return job


def template_of(base: Path, name: str) -> str:
    """The chat template, which must be the one that the base was tuned with. UserError otherwise."""
    template = choose_template(base, name)
    own = own_template(base)
    if own is not None and template != own:
        raise UserError(
            f"The model in {base} was tuned with another chat template than {name!r}.",
            "Leave template at auto: a reward model reads prompts as the policy does.",
        )
    return template


def open_model(
    base: Path, checkpoint: Checkpoint | None, settings: Reward, config: ModelConfig, device: torch.device
) -> ValueModel:
    """The base with a fresh head, or the checkpoint; a base that is a reward model goes on with the head it has."""
    lora = settings.method == "lora"
    if lora and settings.lora_keep == "adapter":
        raise UserError("A reward model is kept whole, not as an adapter.", "Set lora_keep to merged.")
    trained = checkpoint.path if checkpoint else base if is_reward_model(base_folder(base)) else None
    if trained and not lora:
        model = load_value_model(trained, torch.float32, device, config)
    elif lora:
        if trained == base:
            raise UserError(f"{base} is a reward model already.", "Go on with method full.")
        decoder = open_adapted(base, trained, settings, device, config)
        model = new_value_model(decoder, settings.seed)
        if trained:
            model.score.data.copy_(load_value_model(trained, torch.float32, device).score.data)
    else:
        model = new_value_model(open_whole(base, device, config), settings.seed)
    model.decoder.checkpointing = settings.activation_checkpointing
    return model


def read_scored(run: Run, base: Path, template: str, settings: Reward, room: int) -> PreferenceSet:
    """The run's dataset in tokens. UserError when nothing is left to learn from, or margins want scores it has not."""
    data = read_preferences(run, base, template, room)
    if settings.margin == "scores" and not np.isfinite(data.train.scores).any():
        raise UserError(f"{run.dataset().name!r} has no scores to take margins from.", "Set margin to ranks or none.")
    return data


@dataclass
class Job:
    """Training of a reward model at work. `scale` is that of the latest validation."""

    run: Run
    settings: Reward
    opened: Opened[ValueModel, Progress]
    base: Path
    template: str
    data: PreferenceSet
    scale: Scale

    def __post_init__(self) -> None:
        self.model, self.progress = self.opened.model, self.opened.progress
        self.device = self.model.score.device
        self.train = Rankings(self.data.train, self.settings.seed, self.settings.ties)
        if len(self.train) == 0:
            raise UserError("Every prompt of the dataset ties all its completions: nothing is preferred to anything.")
        self.validation = Rankings(self.data.val, 0, self.settings.ties)
        config, frozen = self.model.config, self.settings.method == "lora"
        flops = compute.training(config, length_seen(self.data.train.lengths), 0.0, frozen=frozen)
        self.course = Course(self.run, self.settings, self.opened, config, compute.Work(flops), len(self.train))
        self.memory = self.course.memory
        self._right, self._pairs = 0.0, 0

    def costliest(self, rows: int) -> Tensor:
        """The loss on those prompts that take the most memory."""
        return self.loss(self.train.batch(self.train.costliest(rows)))

    def step(self) -> Update:
        """Make one update; a micro-batch that does not fit the memory is halved."""
        return self.memory.until_it_fits(self.model, self._step)

    def _step(self) -> Update:
        settings, step = self.settings, self.progress.step
        prompts = self.memory.own(self.train.order(step * settings.batch_size, settings.batch_size))
        batches = [self.train.batch(part) for part in self.memory.parts(prompts)]
        tokens = int(distributed.total(sum(batch.tokens.size for batch in batches))[0])
        self._right, self._pairs = 0.0, 0
        with self.course.pace.step(tokens):
            self.model.train()
            losses = (self.loss(batch) * (batch.prompts / settings.batch_size) for batch in batches)
            made = self.course.updates.make(losses)
        self._right, pairs = distributed.total(self._right, self._pairs)
        self._pairs = int(pairs)
        self.progress.tokens_seen += tokens
        return made

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch in nats. Counts the pairs that the scores order rightly, for the metrics."""
        tokens, documents = (torch.from_numpy(part).to(self.device) for part in (batch.tokens, batch.documents))
        scores_M = self.model.packed_scores(tokens, documents)
        self._count(scores_M.detach(), batch.pairs)
        return self.loss_of(scores_M, batch.pairs, batch.prompts)

    def loss_of(self, scores_M: Tensor, pairs: Pairs, prompts: int) -> Tensor:
        """The loss of scores, as the settings say."""
        apart = {"ranks": pairs.ranks_apart, "scores": pairs.scores_apart}.get(self.settings.margin)
        margins = None if apart is None else self.settings.margin_scale * torch.from_numpy(apart).to(scores_M.device)
        return preference_loss(scores_M, pairs, prompts, margins_P=margins, centring=self.settings.centring)

    def figures(self) -> dict[str, float]:
        """The share of the last step's pairs that the scores order rightly."""
        return {"train/accuracy": self._right / self._pairs} if self._pairs else {}

    def evaluate(self, *, whole: bool) -> dict[str, float]:
        """Loss, accuracy and calibration error on held-out pairs; the scale of scores, on training prompts without.

        Over eval_prompts prompts, or all.
        """
        held_out = len(self.validation) > 0
        data, prompts = (self.data.val, self.validation) if held_out else (self.data.train, self.train)
        some = prompts.prompts if whole and held_out else prompts.prompts[: self.settings.eval_prompts]
        judged = judge(self.model, data, some.tolist())
        self.scale = scale_of(judged)
        if not held_out:
            return {}
        bins = calibration(judged.margins)
        found = {"val/loss": self._validation_loss(prompts, judged)}
        if (right := accuracy(judged).value) is not None:
            found |= {"val/accuracy": right, "val/ece": calibration_error(bins)}
        return found

    def report(self) -> None:
        """Write the report card of the model as it is now, over the held-out part, beside the run."""
        if len(self.data.val):
            step, tokenizer = self.progress.step, TextTokenizer.load(self.base)
            name = f"{self.run.spec.name}@{step}"
            dataset = self.run.dataset()
            write_card(self.run, self.model, dataset, "val", self.data.val, tokenizer, name, step, scale=self.scale)

    def result(self) -> dict[str, Any]:
        """The closing figures."""
        return self.course.closing(
            parameters=parameter_count(self.model.config).total,
            prompts=len(self.train),
            score_mean=self.scale.mean,
            score_std=self.scale.std,
        )

    def _validation_loss(self, prompts: Rankings, judged: ScoredCompletions) -> float:
        batch = prompts.pairs(judged.prompts)
        scores = torch.from_numpy(judged.scores).float()
        return self.loss_of(scores, batch, len(judged.prompts)).item()

    def _count(self, scores_M: Tensor, pairs: Pairs) -> None:
        scores = scores_M.cpu().numpy()
        margins = (scores[pairs.better] - scores[pairs.worse])[~pairs.tied]
        self._right += float((margins > 0).sum() + 0.5 * (margins == 0).sum())
        self._pairs += len(margins)

    def write(self, folder: Path) -> None:
        """As transformers opens it, with the tokenizer, the chat template and the scale of its scores."""
        tokenizer = TextTokenizer.load(self.base)
        whole = self.model
        if has_lora(self.model.decoder):  # the base's weights in memory may be rounded: merged are those of its files
            (folder / ADAPTER).mkdir()
            save_adapter(self.model.decoder, folder / ADAPTER, self.base)
            decoder = open_whole(self.base, "cpu", self.model.config)
            load_adapter(decoder, folder / ADAPTER)
            merge_lora(decoder)
            whole = ValueModel(decoder)
            whole.score.data.copy_(self.model.score.data)
        ends_in = int(text_of(self.data.train, 0)[-1])
        pad_id = None if tokenizer.pad_id == ends_in else tokenizer.pad_id  # transformers would read before the end
        save_value_model(whole, folder, pad_id=pad_id, eos_id=tokenizer.eos_id)
        copy_tokenizer(tokenizer, folder)
        (folder / TEMPLATE).write_text(self.template, "utf-8")
        (folder / FILE).write_bytes(msgspec.json.encode(self.scale))


def scale_of(judged: ScoredCompletions) -> Scale:
    """Mean and standard deviation of scores; that of raw ones where they do not differ."""
    std = float(judged.scores.std())
    return Scale(mean=float(judged.scores.mean()), std=std or 1.0, samples=len(judged.scores))
