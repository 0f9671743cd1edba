"""What can be set for in-context evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about
from stages.store.specs.machine import BatchTokens, Device, Precision, Slots


class InContext(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Measure checkpoints on a task that the prompt shows by zero, one or more solved examples."""

    task: Annotated[
        str,
        about(
            "How a prompt is written: question, choice, classify, pair, chain_of_thought, or a file with a Jinja "
            "template of examples and item; auto: by the dataset.",
            min_length=1,
            group="task",
        ),
    ] = "auto"
    shots: Annotated[
        list[Annotated[int, msgspec.Meta(ge=0, le=1_000)]],
        about("Examples before the question; each number is measured by itself.", min_length=1, group="task"),
    ] = msgspec.field(default_factory=lambda: [0, 1, 4])
    scoring: Annotated[
        Literal["auto", "likelihood", "generation"],
        about(
            "likelihood: the option that the model finds likeliest counts; generation: what it writes must be the "
            "answer; auto: by likelihood where there are options.",
            group="task",
        ),
    ] = "auto"
    normalise: Annotated[
        Literal["none", "bytes", "prior"],
        about(
            "Log-likelihoods of options as they are, divided by the option's bytes, or less that of the option after "
            "the prompt's last line alone.",
            group="task",
        ),
    ] = "none"
    alike: Annotated[
        str,
        about("Field of meta in which examples are like the question, such as subject; empty: any.", group="task"),
    ] = ""
    split: Annotated[
        Literal["auto", "val", "train", "all"],
        about("Part that is asked; auto: the validation part, or all when it is empty.", group="data"),
    ] = "auto"
    examples_from: Annotated[
        Literal["auto", "val", "train", "all"],
        about("Part that examples are drawn from; auto: training, or all when it is empty or asked.", group="data"),
    ] = "auto"
    max_records: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        about("Records that are asked, drawn by the seed; empty: all.", unit="records", group="data"),
    ] = 500
    seed: Annotated[int, about("Seed of the draw of records and examples.", ge=0, le=2**31 - 1, group="data")] = 0
    match: Annotated[
        Literal["auto", "exact", "contains", "number", "world"],
        about("When a written answer is right; as for evaluate.", group="answers"),
    ] = "auto"
    answer_after: Annotated[
        str, about("Only what follows the last of these words is the answer; empty: all of it.", group="answers")
    ] = ""
    stop: Annotated[list[str], about("Texts at which a written answer ends.", group="answers")] = msgspec.field(
        default_factory=lambda: ["\n\n", "\nQuestion:"]
    )
    max_new_tokens: Annotated[
        int, about("Longest answer; each token is the likeliest.", unit="tokens", ge=1, le=65_536, group="answers")
    ] = 48
    examples: Annotated[
        int,
        about(
            "Answers that are kept to be read, of the most examples, the wrong ones first.",
            unit="answers",
            ge=0,
            le=1_000,
            group="answers",
        ),
    ] = 20
    batch_tokens: BatchTokens = 8_192
    slots: Slots = 32
    device: Device = "auto"
    precision: Precision = "auto"
