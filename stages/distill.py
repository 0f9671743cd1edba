"""Distillation: a small decoder, the student, learns to predict what a larger one, its teacher, predicts.

    L(θ) = 1/M Σ_t m_t [ (1 − α) · (− log p_θ(x_{t+1} | x_{≤t})) + α T² · KL(q_T(· | x_{≤t}) ‖ p_{θ,T}(· | x_{≤t})) ]

over the trained targets of a step's batch, M = Σ_t m_t of them; q_T and p_{θ,T} are softmax(logits / T) of teacher and
student. T² keeps the gradient's size when T changes. Conversations are masked as for instruction tuning; of a text
every token is trained. What is reported, and watched for divergence, is the hard loss, − log p: so it can be compared
with other runs, whatever α and T are. Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network
(arXiv 1503.02531), sections 2 and 2.1.

N tokens, M trained ones among them, V vocabulary, C width of the student, D of the teacher.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from stages import sft
from stages.data.blocks import token_shards, tokenizer_in
from stages.data.conversation_shards import Conversations, ConversationSet, ConversationsInfo, SplitInfo
from stages.data.packing import Batch
from stages.data.templates import template_in
from stages.data.tokenizer import TextTokenizer
from stages.models.bases import refuse_short_sighted
from stages.models.logprobs import AT_ONCE
from stages.models.loss import IGNORED
from stages.run import Run
from stages.store import compute
from stages.store.errors import UserError
from stages.store.specs.distill import Distill
from stages.training import distributed
from stages.training.opening import length_seen, open_frozen
from stages.training.precision import choose_precision


def run(run: Run) -> dict[str, Any]:
    """Train until the last step; what was reached."""
    return sft.train(prepare(run))


def prepare(run: Run) -> sft.Job:
    """A job of instruction tuning, or of training on text, that follows its teacher; ready for its next step."""
    settings = run.settings(Distill)
    if run.dataset().info.kind != "text":
        return sft.open_job(run, settings, sft.read_conversations, partial(Teaching, settings))
    base = run.checkpoint()
    if settings.template == "auto" and template_in(base) is None:
        settings = msgspec.structs.replace(settings, template="raw")  # a model of text alone is asked in plain text
    settings = msgspec.structs.replace(settings, packing=False)
    return sft.open_job(run, settings, read_text, partial(Teaching, settings))


def distillation_losses(
    h_NC: Tensor, weight_VC: Tensor, teacher_ND: Tensor, teacher_VD: Tensor, targets_N: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Mean −log p and mean KL(q_T ‖ p_T) over the targets that are not ignored, in nats; two fp32 scalars.

    From hidden states and output layers of both models. Where one output layer has more rows, as padding, the KL is
    over those that both have. Gradients go to the student's; logits are in memory for some tokens at a time.
    """
    places_M = torch.nonzero(targets_N != IGNORED)[:, 0]
    parts = (h_NC[places_M], teacher_ND[places_M], targets_N[places_M])
    rows = max(1, AT_ONCE // (len(weight_VC) + len(teacher_VD)))
    if len(places_M) <= rows:
        sums = _sums(parts[0], weight_VC, parts[1], teacher_VD, parts[2], temperature)
    else:  # a chunk's logits are computed again in the backward pass rather than kept
        chunks = zip(*(part.split(rows) for part in parts), strict=True)
        sums = sum(
            checkpoint(_sums, h, weight_VC, g, teacher_VD, targets, temperature, use_reentrant=False)
            for h, g, targets in chunks
        )
    hard, soft = sums / max(1, len(places_M))
    return hard, soft


def _sums(
    h_MC: Tensor, weight_VC: Tensor, teacher_MD: Tensor, teacher_VD: Tensor, targets_M: Tensor, temperature: float
) -> Tensor:
    """Σ −log p and Σ KL(q_T ‖ p_T): (2,) fp32."""
    shared = min(len(weight_VC), len(teacher_VD))
    logits_MV = functional.linear(h_MC, weight_VC).float()
    with torch.no_grad():
        log_q_MV = (functional.linear(teacher_MD, teacher_VD[:shared]).float() / temperature).log_softmax(-1)
    log_p_MV = (logits_MV[:, :shared] / temperature).log_softmax(-1)
    hard = functional.cross_entropy(logits_MV, targets_M, reduction="sum")
    return torch.stack((hard, functional.kl_div(log_p_MV, log_q_MV, log_target=True, reduction="sum")))


class Teaching:
    """What a job of distillation follows: its teacher."""

    def __init__(self, settings: Distill, job: sft.Job) -> None:
        """UserError for a teacher of another tokenizer, or one that sees too little."""
        folder = job.run.checkpoint("teacher")
        refuse_other_tokenizer(job.base, folder)
        longest = max(info.longest for info in job.data.info.splits.values())
        refuse_short_sighted(folder, longest, "teacher", "Set context to fewer.")
        precision = choose_precision(job.progress.precision, job.device)
        self.teacher = open_frozen(folder, precision.dtype, job.device, job.model)
        self._settings, self._job = settings, job
        self._divergences: list[tuple[float, int]] = []  # mean and tokens of each micro-batch of the last step

    @property
    def flops(self) -> float:
        """The student's, and the teacher forward; logits of both are of the trained tokens alone."""
        if self._settings.alpha == 0:
            return self._job.flops(1.0)
        counts = self._job.data.info.splits["train"]
        share = counts.trained / counts.tokens
        return self._job.flops(share) + compute.forward(
            self.teacher.config, length_seen(self._job.data.train.lengths), share
        )

    def begin(self) -> None:
        """Forget what the last step has said of the teacher."""
        self._divergences.clear()

    def objective(self, batch: Batch) -> Tensor:
        """The gradient is that of L; the value is the mean −log p in nats, so that it means what it means elsewhere."""
        alpha, temperature = self._settings.alpha, self._settings.temperature
        if alpha == 0:
            return self._job.loss(batch)
        tokens, targets, documents = self._job.tensors(batch)
        with torch.no_grad():
            teacher_ND = self.teacher.hidden_states(tokens, documents)
        hard, soft = distillation_losses(
            self._job.model.hidden_states(tokens, documents),
            self._job.model.head_weight,
            teacher_ND,
            self.teacher.head_weight,
            targets.reshape(-1),
            temperature,
        )
        self._divergences.append((soft.item(), int((targets != IGNORED).sum())))
        mixed = (1 - alpha) * hard + alpha * temperature**2 * soft
        return mixed + (hard - mixed).detach()

    def figures(self) -> dict[str, float]:
        """KL(teacher ‖ student) at the temperature, in nats a trained token."""
        nats, tokens = distributed.total(
            sum(mean * count for mean, count in self._divergences), sum(count for _, count in self._divergences)
        )
        return {"distill/kl": nats / tokens} if tokens else {}


def refuse_other_tokenizer(student: Path, teacher: Path) -> None:
    """Raise UserError unless both models mean the same by every token id."""
    one, other = TextTokenizer.load(student), TextTokenizer.load(teacher)
    if one.vocabulary() != other.vocabulary():
        raise UserError(
            "Teacher and student do not share a tokenizer, so their predictions are of different tokens.",
            "Choose a teacher that was trained with the student's tokenizer.",
        )


def read_text(run: Run, base: Path, _template: str, _settings: Distill, room: int) -> ConversationSet:
    """The run's text in blocks of `room` tokens, every one trained. UserError when it is shorter than a block."""

    def encoding(done: int, total: int) -> None:
        run.progress(done, total, unit="bytes", phase="encoding")

    dataset, tokenizer = run.dataset(), tokenizer_in(base)
    digest, tokens = tokenizer.info.digest, token_shards(dataset, tokenizer, encoding)
    blocks = {"train": _blocks(tokens.train, room), "val": _blocks(tokens.val, room)}
    if not len(blocks["train"]):
        raise UserError(f"The text of {dataset.name!r} is shorter than a block of {room:,} tokens.", "Set context.")
    if not len(blocks["val"]):
        run.warn(f"The validation part of {dataset.name!r} is shorter than a block, so nothing tells how well it does.")
    splits = {
        split: SplitInfo(conversations=len(part), tokens=len(part) * room, trained=len(part) * (room - 1), longest=room)
        for split, part in blocks.items()
    }
    counts = ConversationsInfo(
        dataset_digest=dataset.info.digest, tokenizer_digest=digest, masking_digest="", dtype="", splits=splits
    )
    return ConversationSet(blocks["train"], blocks["val"], counts)


def _blocks(tokens: NDArray[np.unsignedinteger], room: int) -> Conversations:
    """Blocks end to end, each as a conversation of which every token is trained; what is left over is not used."""
    starts = np.arange(len(tokens) // room + 1) * room
    return Conversations(tokens, np.broadcast_to(np.uint8(1), len(tokens)), starts)
