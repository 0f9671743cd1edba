"""How fast this machine trains: a few steps of a middling decoder, timed. For planning where no run has told yet."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import torch

from stages.models.decoder import new_decoder
from stages.optim import AdamW
from stages.store.architecture import ModelConfig
from stages.store.sizes import flops_per_token
from stages.training.devices import choose_device
from stages.training.precision import choose_precision

if TYPE_CHECKING:
    from stages.desk import Job

ON_CPU = ModelConfig(layers=4, heads=4, width=256, context=256, vocab_size=4_096)
ON_GPU = ModelConfig(layers=12, heads=12, width=768, context=1_024, vocab_size=50_257)
BATCH = 8
WARM_UP, SECONDS, MOST_STEPS = 2, 4.0, 50
"""Steps that are not timed; then steps for so long, and no more than so many."""


def of(job: Job) -> dict[str, Any]:
    """The desk's verb: floating-point operations a second while training, by the count of `flops_per_token`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = ON_GPU if device.type == "cuda" else ON_CPU
    precision = choose_precision("auto", device)
    model = new_decoder(shape, seed=0, device=device)
    optimizer = AdamW(model, betas=(0.9, 0.99), weight_decay=0.1, compute_dtype=precision.dtype)
    tokens = torch.randint(0, shape.vocab_size, (BATCH, shape.context + 1), device=device)
    seconds: list[float] = []
    while len(seconds) < WARM_UP + 1 or (sum(seconds[WARM_UP:]) < SECONDS and len(seconds) < MOST_STEPS):
        job.progress(len(seconds), MOST_STEPS, "timing a few steps of training")
        began = time.perf_counter()
        model(tokens[:, :-1], tokens[:, 1:]).backward()
        optimizer.gather(first=True)
        optimizer.clip(1.0)
        optimizer.step(1e-4)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    step = statistics.median(seconds[WARM_UP:])
    return {
        "device": choose_device("auto").name,
        "flops": flops_per_token(shape) * BATCH * shape.context / step,
        "precision": precision.name,
        "threads": torch.get_num_threads(),
    }
