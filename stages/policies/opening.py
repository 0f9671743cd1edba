"""Opening a policy to be improved, with its reference, its prompts and what scores its completions."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from stages.data.conversations import Masker, choose_template
from stages.data.tokenizer import FILE as TOKENIZER
from stages.data.tokenizer import TextTokenizer
from stages.models.bases import base_folder, refuse_short_sighted
from stages.models.decoder import Decoder
from stages.policies.course import PolicyCourse
from stages.policies.needs import fitting_sharding, refuse_uneven_shares
from stages.policies.policy import Policy, Reference
from stages.policies.progress import PolicyProgress
from stages.policies.rollouts import Prompts, Writer, read_prompts
from stages.policies.scoring import open_score, refuse_unanswered
from stages.run import Run
from stages.store import compute
from stages.store.errors import UserError
from stages.store.files import sha256_file
from stages.store.specs.policy import PolicyGradient as Settings
from stages.training import distributed
from stages.training.adapting import config_of
from stages.training.opening import open_frozen, peak_lr
from stages.training.precision import choose_precision
from stages.training.tuning import FixedPrompts, fixed_prompts, open_model
from stages.training.updates import MicroBatches

LR_TIMES_WIDTH = 0.004
"""Peak rate times width: 3e-5 at width 128. Other widths follow by the same rule."""
EPS = 1e-5
"""Of AdamW: Huang et al. (arXiv 2403.17031), detail 19."""


def open_policy(
    run: Run, settings: Settings, device: torch.device, *, group: int, coefficient: float, looks: bool
) -> PolicyCourse:
    """The course of a run over the policy to be improved, or the run's last checkpoint of it, with all that it needs.

    group: completions of each prompt. coefficient: of the KL, for a fresh start. looks: whether the policy reads its
    completions once more before it learns from them.
    """
    base = run.checkpoint()
    config = config_of(base, 0.0)
    reward = run.checkpoint("reward") if run.has("reward") else None
    reference = run.checkpoint("reference") if run.has("reference") else None if settings.method == "lora" else base
    sharding = fitting_sharding(settings, config, reward, reference, device)
    template = choose_template(base, settings.template)
    prompts, held_out = _read(run, settings, base, template, config.context)
    refuse_unanswered(settings, reward, (asked.prompt for asked in (*prompts.asked, *held_out.asked)))
    longest = max(prompts.longest, held_out.longest) + settings.max_new_tokens
    for folder, who in ((reward, "reward model"), (reference, "reference")):
        if folder is not None:
            refuse_short_sighted(folder, longest, who)
    if settings.lora_dropout:
        run.warn("lora_dropout is left out: a policy learns from what it would say, without dropout.")
        settings = msgspec.structs.replace(settings, lora_dropout=0.0)
    lr = peak_lr(settings, config.width, times_width=LR_TIMES_WIDTH)
    opened = open_model(run, settings, base, config, device, PolicyProgress, lr=lr, eps=EPS, sharding=sharding)
    progress = opened.progress
    if opened.checkpoint is None:
        progress.coefficient = coefficient
    asked = fixed_prompts(settings.sample_prompts, probes=settings.probes)
    fixed = FixedPrompts(base, template, asked, settings.sample_tokens)
    refuse_uneven_shares(opened.model, settings.batch_size * group, "completions", settings.minibatches)
    each = -(-settings.batch_size * group // settings.minibatches // distributed.size())
    policy = Policy(
        settings=settings,
        model=opened.model,
        optimizer=opened.optimizer,
        reference=_open_reference(reference, base, opened.model, progress.precision, device),
        prompts=prompts,
        writer=Writer(TextTokenizer.load(base), fixed.stops, settings.max_new_tokens, settings.slots),
        score=open_score(settings, reward, base, template, device, precision=progress.precision, beside=opened.model),
        progress=progress,
        micro=MicroBatches(run, progress, each * distributed.size(), settings.micro_batch),
        group=group,
    )
    work = compute.policy(
        config,
        policy.answers,
        frozen=settings.method == "lora",
        passes=settings.passes,
        looks=looks,
        reference=config_of(reference or base, 0.0),
        scorer=config_of(reward, 0.0) if reward else None,
    )
    return PolicyCourse(run, policy, opened, base, template, held_out, fixed, work)


def _open_reference(folder: Path | None, base: Path, model: Decoder, precision: str, device: torch.device) -> Reference:
    if folder is None:
        return Reference(model, bare=True)
    if sha256_file(base_folder(folder) / TOKENIZER) != sha256_file(base_folder(base) / TOKENIZER):
        raise UserError(
            f"The reference {folder} has another tokenizer than {base}.", "Choose a relative of the policy."
        )
    return Reference(open_frozen(folder, choose_precision(precision, device).dtype, device, model))


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
