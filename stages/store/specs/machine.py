"""Where and how a stage computes, for those that ask alike."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about

Place = Literal["auto", "cpu", "cuda"]
Arithmetic = Literal["auto", "fp32", "bf16"]
Cores = Annotated[int, msgspec.Meta(ge=1, le=4_096)] | None

Device = Annotated[Place, about("Where to run. auto: a GPU when there is one.", group="machine")]
Precision = Annotated[Arithmetic, about("auto: fp32 on a CPU, bf16 on a GPU that has it.", group="machine")]
Threads = Annotated[Cores, about("CPU threads, recorded with the run; empty: all cores.", group="machine")]
BatchTokens = Annotated[int, about("Tokens computed at once.", unit="tokens", ge=64, le=1_048_576, group="machine")]
Slots = Annotated[int, about("Answers written at once.", unit="answers", ge=1, le=1_024, group="machine")]

ModelDevice = Annotated[Place, about("Where to run the model. auto: a GPU when there is one.")]
"""As `Device`, of a form without groups; so are the two below."""
ModelPrecision = Annotated[Arithmetic, about("Precision of the arithmetic. auto: fp32 on a CPU, bf16 on a GPU.")]
ModelThreads = Annotated[Cores, about("CPU threads; empty: all cores.")]
