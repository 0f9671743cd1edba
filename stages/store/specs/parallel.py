"""Settings of the stages that several processes can train together, and what they must agree with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from stages.store.errors import UserError
from stages.store.specs.base import about

Gpus = Annotated[
    int,
    about(
        "Processes that train together, one a GPU; on a machine without GPUs, or with device = cpu, so many on its "
        "cores. Each computes its share of a step's batch.",
        unit="processes",
        ge=1,
        le=4_096,
        group="machine",
    ),
]
Sharding = Annotated[
    Literal["auto", "ddp", "fsdp"],
    about(
        "What several processes hold. ddp: each all models whole. fsdp: each a piece of their weights, gradients and "
        "moments, and whole what writes or scores, while it does. auto: fsdp where the whole does not fit.",
        group="machine",
    ),
]


def refuse_shares(settings: Mapping[str, Any], processes: int) -> None:
    """Raise UserError unless `processes` processes can train together with these settings of a stage."""
    if processes == 1:
        return
    batch = int(settings.get("batch_size") or 0)
    if batch % processes:
        below = batch - batch % processes
        fitting = f"{below:,} or {below + processes:,}" if below else f"{processes:,}"
        raise UserError(
            f"A batch_size of {batch:,} cannot be shared evenly by {processes:,} processes.",
            f"Set batch_size to {fitting}, or --gpus to a divisor of {batch:,}.",
        )
    if settings.get("sharding") == "fsdp" and settings.get("method") == "lora":
        raise UserError("Adapters are trained with sharding = ddp: their base is frozen whole in every process.")
