"""Direct preference optimisation: a policy learns from ranked completions without a reward model.

    L(θ) = 1/|B| Σ_{x ∈ B} 1/|P_x| Σ_{(w, l) ∈ P_x} −log σ( β [r_w − r_l] ),    r_y = log π_θ(y | x) / π_ref(y | x)

over the prompts x of a step's batch B. P_x are the pairs of x's completions of which w ranks above l; all completions
of a prompt stand in one batch element, so that each passes through the model once. log π_ref is computed once, before
training. The variants, with δ = r_w − r_l, and ε for label_smoothing:

    sigmoid   −(1 − ε) log σ(βδ) − ε log σ(−βδ)                   Rafailov et al. (arXiv 2305.18290), eq. 7; with ε:
                                                                  Mitchell, A note on DPO with noisy preferences (2023)
    robust    [−(1 − ε) log σ(βδ) + ε log σ(−βδ)] / (1 − 2ε)      Chowdhury et al. (arXiv 2403.00409)
    ipo       (δ − 1 / (2β))²                                     Azar et al. (arXiv 2310.12036), eq. 17

length_normalised divides each r_y by the tokens of y, as Meng et al., SimPO (arXiv 2405.14734), do with log π. sft_term
adds α times −log π_θ(w | x) a token: Pang et al., Iterative Reasoning Preference Optimization (arXiv 2404.19733).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from stages.data.comparisons import Comparison, comparison
from stages.data.conversations import choose_template
from stages.data.preference_shards import PreferenceSet
from stages.data.rankings import Pairs, Rankings
from stages.loop import Progress, set_up_torch
from stages.models.decoder import Decoder
from stages.policies.preferences import read_preferences
from stages.policies.reference_cache import completion_logprobs, reference_logprobs
from stages.run import Run
from stages.store import compute
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError
from stages.store.sizes import parameter_count
from stages.store.specs.dpo import DPO
from stages.training import distributed
from stages.training.adapting import config_of
from stages.training.course import Course
from stages.training.opening import Opened, length_seen, peak_lr
from stages.training.precision import choose_precision
from stages.training.tuning import FixedPrompts, fixed_prompts, open_model, room_for, write_chat_model
from stages.training.updates import Update

LR_TIMES_WIDTH = 0.0128
"""Peak rate times width: 1e-4 at width 128, a tenth of what instruction tuning uses."""


def run(run: Run) -> dict[str, Any]:
    """Train until the last step; what was reached."""
    job = prepare(run)
    if job.progress.step == 0:
        job.course.sample()
    job.course.follow(job)
    return job.result()


class PairScores(NamedTuple):
    """Pairs as a policy judges them: (P,) each. `weights` of a prompt's pairs add to 1."""

    losses: Tensor
    chosen: Tensor
    """log π of the better completion, in nats."""
    rejected: Tensor
    margins: Tensor
    """β (r_w − r_l): the log-odds that the policy gives to the better one."""
    weights: Tensor


def judge_pairs(logprobs_M: Tensor, reference_M: Tensor, lengths_M: Tensor, pairs: Pairs, settings: DPO) -> PairScores:
    """The losses at the head of this file, without the SFT term, of completions with these log-probabilities in nats.

    lengths: their own tokens.
    """
    better, worse, weights = (
        torch.from_numpy(part).to(logprobs_M.device) for part in (pairs.better, pairs.worse, pairs.weights)
    )
    ratios_M = logprobs_M - reference_M
    if settings.length_normalised:
        ratios_M = ratios_M / lengths_M
    delta = ratios_M[better] - ratios_M[worse]
    losses = pair_losses(delta, settings)
    return PairScores(losses, logprobs_M[better], logprobs_M[worse], settings.beta * delta, weights)


def pair_losses(delta_P: Tensor, settings: DPO) -> Tensor:
    """The loss of each pair, from δ = r_w − r_l: (P,)."""
    beta, smoothing = settings.beta, settings.label_smoothing
    if settings.loss == "ipo":
        return (delta_P - 1 / (2 * beta)).square()
    right, wrong = -logsigmoid(beta * delta_P), -logsigmoid(-beta * delta_P)
    if settings.loss == "robust":
        return ((1 - smoothing) * right - smoothing * wrong) / (1 - 2 * smoothing)
    return (1 - smoothing) * right + smoothing * wrong


def loss_spread(settings: DPO) -> float:
    """How many times as much as a loss in nats a token this one may differ between healthy batches.

    sigmoid: δ of whole answers comes to tens of nats, times β. ipo: it begins at (1 / (2β))², and a few nats of δ more
    or less are tens of its units.
    """
    if settings.loss == "ipo":
        return max(25.0, (2 * settings.beta) ** -2)
    spread = max(1.0, 10 * settings.beta)
    return spread / (1 - 2 * settings.label_smoothing) if settings.loss == "robust" else spread


def prepare(run: Run) -> Job:
    """Read the rankings and the reference, load the model or resume it, and restore the random numbers last."""
    settings = run.settings(DPO)
    if settings.loss == "ipo" and settings.label_smoothing:
        run.warn("label_smoothing is left out: the loss ipo has none.")
    device = set_up_torch(run, deterministic=settings.deterministic)
    base = run.checkpoint()
    config = config_of(base, 0.0)
    template = choose_template(base, settings.template)
    data = read_preferences(run, base, template, room_for(settings.context, config.context))
    reference = run.checkpoint("reference") if "reference" in run.spec.parents else base
    dtype = choose_precision(settings.precision, device).dtype
    with distributed.first_alone():
        known = reference_logprobs(run, reference, base, data, device, dtype)
    seen_before = config_of(reference, 0.0)
    lr = peak_lr(settings, config.width, times_width=LR_TIMES_WIDTH)
    opened = open_model(run, settings, base, config, device, Progress, lr=lr)
    job = Job(run, settings, opened, base, template, data, known, seen_before)
    job.course.make_ready(job)
    return job


@dataclass
class Job:
    """A DPO run at work. `reference`: log π_ref of the completions of train and of validation.

    `reference_config`: the shape of the model that gave them.
    """

    run: Run
    settings: DPO
    opened: Opened[Decoder, Progress]
    base: Path
    template: str
    data: PreferenceSet
    reference: tuple[NDArray[np.float32], NDArray[np.float32]]
    reference_config: ModelConfig

    def __post_init__(self) -> None:
        settings, self.model, self.progress = self.settings, self.opened.model, self.opened.progress
        self.device = self.model.tokens.device
        self.train = Rankings(self.data.train, settings.seed, "skip")
        if len(self.train) == 0:
            raise UserError("Every prompt of the dataset ties all its completions: nothing is preferred to anything.")
        self.validation = Rankings(self.data.val, 0, "skip")
        asked = fixed_prompts(settings.sample_prompts, probes=settings.probes)
        self.prompts = FixedPrompts(self.base, self.template, asked, settings.sample_tokens)
        self.course = Course(
            self.run,
            settings,
            self.opened,
            self.model.config,
            self.work(),
            len(self.train),
            sample=self.sample,
            sample_every=settings.sample_every,
            loss_spread=loss_spread(settings),
        )
        self.memory = self.course.memory
        self._seen: list[Figures] = []

    def work(self) -> compute.Work:
        """Updates of the policy, and before them the reference once over all completions, held-out ones too."""
        train, val = self.data.train, self.data.val
        seen, own = length_seen(train.lengths), float(train.trained.mean())
        frozen = self.settings.method == "lora"
        once = compute.forward(self.reference_config, seen, own) * int(train.lengths.sum() + val.lengths.sum())
        return compute.Work(compute.training(self.model.config, seen, own, frozen=frozen), before=once)

    def costliest(self, rows: int) -> Tensor:
        """The loss on those prompts that take the most memory."""
        batch = self.batch(self.train.costliest(rows))
        return self.loss(batch, rows, words_chosen(batch))

    def step(self) -> Update:
        """Make one update; a micro-batch that does not fit the memory is halved."""
        return self.memory.until_it_fits(self.model, self._step)

    def _step(self) -> Update:
        size = self.settings.batch_size
        prompts = self.memory.own(self.train.order(self.progress.step * size, size))
        batches = [self.batch(part) for part in self.memory.parts(prompts)]
        counted = sum(batch.packed.tokens.size for batch in batches), sum(words_chosen(batch) for batch in batches)
        sums = distributed.total(*counted)
        tokens, words = int(sums[0]), sums[1]
        self._seen = []
        with self.course.pace.step(tokens):
            self.model.train()
            made = self.course.updates.make(self.loss(batch, size, words) for batch in batches)
        self._seen = [Figures(*distributed.total(*map(sum, zip(*self._seen, strict=True))))]
        self.progress.tokens_seen += tokens
        return made

    def batch(self, prompts: NDArray[np.int64]) -> Comparison:
        """Prompts of train, with the pairs that the settings ask for."""
        return comparison(self.data.train, prompts, self.settings.pairs)

    def loss(self, batch: Comparison, prompts: int, words: float) -> Tensor:
        """A batch's share of the loss of a step over so many prompts, whose chosen completions have so many tokens."""
        judged = self.judge(batch, self.reference[0])
        self._seen.append(figures_of(judged))
        loss = (judged.weights * judged.losses).sum() / prompts
        if self.settings.sft_term:
            loss = loss - self.settings.sft_term * (judged.weights * judged.chosen).sum() / words
        return loss

    def judge(self, batch: Comparison, reference: NDArray[np.float32]) -> PairScores:
        """What the policy makes of a batch's pairs, against the reference's log-probabilities of the split."""
        logprobs = completion_logprobs(self.model, batch.packed, self.device)
        known, lengths = (torch.from_numpy(part).to(self.device) for part in (reference[batch.numbers], batch.lengths))
        return judge_pairs(logprobs, known, lengths, batch.pairs, self.settings)

    def figures(self) -> dict[str, float]:
        """What the last step is to log beside the loss."""
        seen = mean_of(self._seen)
        return {f"dpo/{name}": getattr(seen, name) for name in ("chosen", "rejected", "margin", "accuracy")}

    @torch.no_grad()
    def evaluate(self, *, whole: bool) -> dict[str, float]:
        """Loss, without the SFT term, and accuracy on held-out pairs of eval_prompts prompts or all; {} without any."""
        self.model.eval()
        prompts = self.validation.prompts if whole else self.validation.prompts[: self.settings.eval_prompts]
        if not len(prompts):
            return {}
        batches = (comparison(self.data.val, part, self.settings.pairs) for part in self.memory.parts(prompts))
        found = mean_of([figures_of(self.judge(batch, self.reference[1])) for batch in batches])
        return {
            "val/loss": found.loss,
            "val/accuracy": found.accuracy,
            "val/chosen": found.chosen,
            "val/rejected": found.rejected,
        }

    def sample(self) -> None:
        """Have the fixed prompts answered."""
        self.prompts.answer(self.run, self.progress.step, self.model)

    def result(self) -> dict[str, Any]:
        """The closing figures."""
        return self.course.closing(
            parameters=parameter_count(self.model.config).total,
            prompts=len(self.train),
        )

    def write(self, folder: Path) -> None:
        """As transformers opens it, with the tokenizer and the chat template."""
        keep = self.settings.lora_keep
        write_chat_model(self.model, folder, self.base, self.template, self.prompts.stops, keep=keep)


class Figures(NamedTuple):
    """Sums over prompts, or means: log π of chosen and rejected completions in nats, margin in log-odds, accuracy."""

    loss: float
    chosen: float
    rejected: float
    margin: float
    accuracy: float
    """Share of the pairs whose better completion the policy prefers more than the reference does; a tie counts half."""
    prompts: float = 1.0


def figures_of(judged: PairScores) -> Figures:
    """The sums of a batch."""
    weights = judged.weights
    right = 0.5 * (judged.margins.sign() + 1)
    columns = (judged.losses, judged.chosen, judged.rejected, judged.margins, right, torch.ones_like(right))
    return Figures(*torch.stack([(weights * column.detach()).sum() for column in columns]).tolist())


def mean_of(batches: list[Figures]) -> Figures:
    """The means over the prompts of all batches."""
    sums = [sum(column) for column in zip(*batches, strict=True)]
    return Figures(*(value / sums[-1] for value in sums))


def words_chosen(batch: Comparison) -> float:
    """Tokens of the better completions, weighted as their pairs are."""
    return float((batch.pairs.weights * batch.lengths[batch.pairs.better]).sum())
