"""The sizes people quote: every preset and planned model by its figures, for this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stages.store.architecture import ModelConfig
from stages.store.errors import UserError
from stages.store.names import nearest
from stages.store.planned import (
    Mixture,
    list_planned,
    mixture_count,
    mixture_flops_per_token,
    mixture_inference_memory,
    mixture_training_memory,
    read_planned,
)
from stages.store.presets import list_presets, read_preset
from stages.store.sizes import (
    InferenceMemory,
    TrainingMemory,
    flops_per_token,
    inference_memory,
    parameter_count,
    training_memory,
)
from workbench.models.rates import Machine, Rate, nearest_rate
from workbench.plots.series import figure
from workbench.wording import operations

TOKENS_PER_PARAMETER = 20.0
"""About the compute-optimal budget of Hoffmann et al. 2022 (arXiv 2203.15556), table 3."""
USABLE = 0.9
"""Share of a device's memory that training may count on."""


@dataclass(frozen=True)
class Plan:
    """What one wants to know the costs of; what is None follows from the model."""

    tokens: float | None = None
    """Tokens to train on; None: 20 for each parameter."""
    micro_batch: int = 1
    context: int | None = None
    """Tokens in view; None: the model's own, and at most 4,096 of it."""
    dtype: str = "bf16"


MOST_CONTEXT = 4_096
"""Tokens that pre-training looks at, at most: longer contexts are taught afterwards."""


class Card(NamedTuple):
    """A model by its figures."""

    name: str
    kind: str
    """preset, or planned: too large, or of an architecture that cannot be trained here."""
    title: str
    about: str
    source: str
    shape: ModelConfig | Mixture
    parts: dict[str, int]
    """Parameters by part; their sum is `parameters`."""
    parameters: int
    active: int
    """Parameters that one token meets."""
    published_tokens: float | None

    def context(self, plan: Plan) -> int:
        """Tokens in view."""
        return min(plan.context or MOST_CONTEXT, self.shape.context)

    def tokens(self, plan: Plan) -> float:
        """Tokens to train on."""
        return plan.tokens or TOKENS_PER_PARAMETER * self.parameters

    def memory(self, plan: Plan, machine: Machine) -> TrainingMemory:
        """Bytes of a training step, by part. Fused attention keeps no scores on a GPU."""
        batch, context = plan.micro_batch, self.context(plan)
        if isinstance(self.shape, Mixture):
            return mixture_training_memory(self.shape, batch, context=context, dtype=plan.dtype)
        return training_memory(self.shape, batch, context=context, dtype=plan.dtype, scores_kept=not machine.gpu)

    def running(self, plan: Plan) -> InferenceMemory:
        """Bytes of running it: weights, and the cache of one sequence."""
        if isinstance(self.shape, Mixture):
            return mixture_inference_memory(self.shape, context=self.context(plan), dtype=plan.dtype)
        return inference_memory(self.shape, context=self.context(plan), dtype=plan.dtype)

    def flops(self, plan: Plan) -> float:
        """Floating-point operations of the whole training: 6 N D and those of attention."""
        context = self.context(plan)
        if isinstance(self.shape, Mixture):
            return mixture_flops_per_token(self.shape, context) * self.tokens(plan)
        return flops_per_token(self.shape, context) * self.tokens(plan)

    def fits(self, plan: Plan, machine: Machine) -> str:
        """What this machine can do with it: train, run, or no."""
        if self.memory(plan, machine).total <= USABLE * machine.memory:
            return "train"
        return "run" if self.running(plan).total <= USABLE * machine.memory else "no"


def all_cards() -> list[Card]:
    """Presets and planned models, the smallest first."""
    found = [*(preset_card(name) for name in list_presets()), *(planned_card(name) for name in list_planned())]
    return sorted(found, key=lambda card: card.parameters)


def find_card(name: str) -> Card:
    """The preset or planned model of that name; UserError naming the nearest."""
    if name in list_presets():
        return preset_card(name)
    if name in list_planned():
        return planned_card(name)
    raise UserError(f"There is no preset named {name!r}.", nearest(name, [*list_presets(), *list_planned()]))


def preset_card(name: str) -> Card:
    """A shape that can be trained here."""
    preset = read_preset(name)
    count = parameter_count(preset.model)
    return Card(
        name,
        "preset",
        preset.title,
        preset.about,
        preset.source,
        preset.model,
        count._asdict(),
        count.total,
        count.total,
        None,
    )


def planned_card(name: str) -> Card:
    """A shape to plan with."""
    planned = read_planned(name)
    shape = planned.shape
    if isinstance(shape, Mixture):
        mixed = mixture_count(shape)
        parts = {key: getattr(mixed, key) for key in ("tokens", "attention", "feed_forward", "norms", "head")}
        total, active = mixed.total, mixed.active
    else:
        count = parameter_count(shape)
        parts, total, active = count._asdict(), count.total, count.total
    return Card(
        name, "planned", planned.title, planned.about, planned.source, shape, parts, total, active, planned.tokens
    )


def time_of(card: Card, plan: Plan, rates: Sequence[Rate], timed: Rate | None) -> tuple[float, Rate] | None:
    """Seconds that the training takes here, and the rate they are by; None where nothing has been measured."""
    rate = nearest_rate(rates, card.parameters) or timed
    return (card.flops(plan) / rate.flops, rate) if rate is not None else None


def facts_of(card: Card, plan: Plan, machine: Machine, rates: Sequence[Rate], timed: Rate | None) -> dict[str, str]:
    """A model's figures as names and values."""
    memory, running = card.memory(plan, machine), card.running(plan)
    found = time_of(card, plan, rates, timed)
    at_work = f", {card.active:,} of them for each token" if card.active != card.parameters else ""
    published = f"; published: {figure(card.published_tokens)}" if card.published_tokens and plan.tokens is None else ""
    return {
        "parameters": f"{card.parameters:,}{at_work}",
        "of these": ", ".join(f"{part.replace('_', ' ')} {count:,}" for part, count in card.parts.items() if count),
        "shape": _shape(card),
        "training": f"{size(memory.total)}: weights {size(memory.weights)}, gradients {size(memory.gradients)}, "
        f"optimiser {size(memory.optimiser)}, activations {size(memory.activations)} "
        f"({plan.micro_batch} × {card.context(plan):,} tokens)",
        "running": f"{size(running.total)}: weights {size(running.weights)}, cache {size(running.cache)}",
        "fits here": f"{FITS[card.fits(plan, machine)]}: {machine.name}, {size(machine.memory)} of memory",
        "tokens": f"{figure(card.tokens(plan))}{'' if plan.tokens else ', 20 for each parameter'}{published}",
        "compute": operations(card.flops(plan)),
        "time here": f"{long(found[0])} at {rate_of(found[1].flops)}, by {found[1].source}" if found else "",
        "source": card.source,
    }


FITS = {
    "train": "it can be trained on this machine",
    "run": "it can be run, but not trained whole",
    "no": "it does not fit",
}
"""By the verdict of `Card.fits`."""


def _shape(card: Card) -> str:
    shape = card.shape
    text = f"{shape.layers} layers, {shape.heads} heads, width {shape.width:,}, context {shape.context:,}"
    return f"{text}, vocabulary {shape.vocab_size:,}"


def told_rates(rates: Iterable[Rate | None]) -> str:
    """Where the times of a table are from, in a sentence."""
    sources = list(dict.fromkeys(rate.source for rate in rates if rate is not None))
    if not sources:
        return "No run has finished here yet, so nothing tells how long training takes."
    more = f" and {len(sources) - 3} more" if len(sources) > 3 else ""
    return f"Times by {', '.join(sources[:3])}{more}."


def long(seconds: float) -> str:
    """A time of any length in two or three digits: `0:43`, `3.2 hours`, `41 days`, `1,200 years`."""
    for unit, name in ((31_557_600.0, "years"), (86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if seconds >= unit * 1.5 or (name == "minutes" and seconds >= unit):
            value = seconds / unit
            return f"{figure(value) if value >= 10_000 else f'{value:,.0f}' if value >= 10 else f'{value:.1f}'} {name}"
    return f"{seconds:.0f} seconds"


def rate_of(flops: float) -> str:
    """Operations a second: `20.1 GFLOP/s`."""
    return f"{operations(flops)}/s"


def size(count: float) -> str:
    """Bytes in three digits."""
    for unit, letter in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            value = count / unit
            return f"{value:,.0f} {letter}" if value >= 100 else f"{value:.3g} {letter}"
    return f"{count / 1e3:.0f} kB"
