"""Training a GPT of ten million parameters against transformers' Trainer, taking turns step by step in one process.

    python -m benchmarks.train [--rounds 4] [--text FILE] [--loss-steps 0]

nanoGPT's shape for characters (6 layers, 6 heads, width 384, context 256, 65 symbols: 10.75 M parameters), batch 8. The
Trainer runs with its fused AdamW, in fp32 and in bf16 by autocast as it comes, with SDPA, and in bf16 with plain
attention, by autocast and with bf16 weights; it reads from memory, logs, saves and evaluates nothing. One
thread each; a step counts in seconds of CPU, so that other work on the machine slows neither, and the best step of a
contender counts. Each round also times a bf16 product of 2,048³, the measure of what the machine can do.

With --loss-steps N our loop then takes N equal steps of one row in fp32 and in bf16, and the last losses are compared.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from stages.loop import cosine_lr
from stages.models.decoder import new_decoder
from stages.optim import AdamW
from stages.store.presets import ModelConfig

SHAPE = ModelConfig(layers=6, heads=6, width=384, context=256, vocab_size=65)
BATCH, PEAK = 8, 1e-3
SIDE = 2_048


def ours(batches: Callable[[int], Tensor], dtype: torch.dtype) -> Callable[[int], float]:
    """Our decoder, loss and optimiser: takes the step of this number and returns its loss."""
    model = new_decoder(SHAPE, seed=0)
    optimizer = AdamW(model, betas=(0.9, 0.99), weight_decay=0.1, compute_dtype=dtype)

    def step(number: int) -> float:
        blocks = batches(number)
        loss = model(blocks[:, :-1], blocks[:, 1:])
        loss.backward()
        optimizer.gather(first=True)
        optimizer.clip(1.0)
        optimizer.step(cosine_lr(number, peak=PEAK, floor=PEAK / 10, warmup=20, total=300))
        return loss.item()

    return step


class Turns(transformers.TrainerCallback):
    """Lets a Trainer in a thread of its own take one step at a time, from the end of a step to the end of the next."""

    def __init__(self) -> None:
        self.go, self.done, self.over = threading.Semaphore(0), threading.Semaphore(0), False
        self.thread: threading.Thread | None = None

    def start(self, train: Callable[[], object]) -> None:
        """Begin, and take the first step."""
        self.thread = threading.Thread(target=train, daemon=True)
        self.thread.start()
        self.done.acquire()

    def end(self) -> None:
        self.over = True
        self.go.release()
        if self.thread is not None:
            self.thread.join()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.done.release()
        self.go.acquire()
        control.should_training_stop = self.over

    def step(self) -> None:
        self.go.release()
        self.done.acquire()


def trainer(batches: Callable[[int], Tensor], folder: Path, attention: str, **settings: Any) -> Turns:
    """transformers' Trainer, its first step taken. settings: bf16, or weights="bf16"."""
    config = transformers.GPT2Config(
        vocab_size=SHAPE.vocab_size, n_positions=SHAPE.context, n_embd=SHAPE.width, n_layer=SHAPE.layers,
        n_head=SHAPE.heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
        use_cache=False, attn_implementation=attention,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    if settings.pop("weights", "") == "bf16":
        model = model.to(torch.bfloat16)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=BATCH, max_steps=300, learning_rate=PEAK, warmup_steps=20,
        weight_decay=0.1, adam_beta2=0.99, optim="adamw_torch_fused", lr_scheduler_type="cosine", max_grad_norm=1.0,
        logging_strategy="no", save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
        dataloader_pin_memory=False, **settings,
    )  # fmt: skip
    rows = torch.cat([batches(number)[:, :-1] for number in range(300)])
    data = [{"input_ids": row, "labels": row} for row in rows]
    turns = Turns()
    runner = transformers.Trainer(model=model, args=arguments, train_dataset=data, callbacks=[turns])
    turns.start(runner.train)
    return turns


def flops_of_a_step() -> float:
    """Of the matrix products: 6 for each weight of a matrix and token, 12 T C a layer and token for attention."""
    C, L, T = SHAPE.width, SHAPE.layers, SHAPE.context
    return BATCH * T * (6 * (12 * L * C * C + SHAPE.vocab_size * C) + 12 * L * T * C)


def _next(take: Callable[[int], float], numbers: Iterator[int]) -> float:
    return take(next(numbers))


def seconds(step: Callable[[], object]) -> float:
    """CPU time that a call takes."""
    began = time.process_time()
    step()
    return time.process_time() - began


def speeds(batches: Callable[[int], Tensor], rounds: int, folder: Path) -> None:
    left = torch.randn(SIDE, SIDE).bfloat16()
    right = torch.randn(SIDE, SIDE).bfloat16()
    steps: dict[str, Callable[[], object]] = {"product": lambda: torch.mm(left, right)}
    for name, dtype in (("ours, fp32", torch.float32), ("ours, bf16", torch.bfloat16)):
        steps[name] = partial(_next, ours(batches, dtype), itertools.count())
    every: list[Turns] = []
    for name, attention, settings in (
        ("Trainer, fp32, sdpa", "sdpa", {}),
        ("Trainer, bf16 autocast, sdpa", "sdpa", {"bf16": True}),
        ("Trainer, bf16 autocast, plain", "eager", {"bf16": True}),
        ("Trainer, bf16 weights, plain", "eager", {"weights": "bf16"}),
    ):
        turns = trainer(batches, folder, attention, **settings)
        steps[name] = turns.step
        every.append(turns)
    best = dict.fromkeys(steps, float("inf"))
    for number in range(rounds + 1):
        for name, step in steps.items():
            took = seconds(step)
            best[name] = min(best[name], took) if number else best[name]  # the first round warms up
    for turns in every:
        turns.end()
    rate = 2 * SIDE**3 / best.pop("product")
    print(f"{'':<32} tokens/s   x Trainer fp32   x Trainer bf16   of the product's {rate / 1e9:.0f} GFLOP/s")
    fp32 = best["Trainer, fp32, sdpa"]
    bf16 = min(took for name, took in best.items() if name.startswith("Trainer, bf16"))
    for name, took in best.items():
        share = flops_of_a_step() / took / rate
        print(f"{name:<32} {BATCH * SHAPE.context / took:8,.0f} {fp32 / took:12.2f} {bf16 / took:16.2f} {share:12.0%}")


def losses(batches: Callable[[int], Tensor], steps: int) -> None:
    """The mean loss of the last tenth of equal steps in both precisions."""
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        take = ours(lambda number: batches(number)[:1], dtype)
        found[name] = float(np.mean([take(number) for number in range(steps)][-max(1, steps // 10) :]))
    print(f"loss after {steps} steps: fp32 {found['fp32']:.4f}, bf16 {found['bf16']:.4f} nats a character")


def read_batches(file: Path | None) -> Callable[[int], Tensor]:
    """Batches (8, 257) of the text's characters, the same for everyone; random ones without a text."""
    if file is None:
        tokens = np.random.default_rng(0).integers(0, SHAPE.vocab_size, 400_000)
    else:
        symbols, tokens = np.unique(np.frombuffer(file.read_bytes(), np.uint8), return_inverse=True)
        assert len(symbols) <= SHAPE.vocab_size, "the text has more symbols than the model"
    T = SHAPE.context + 1

    def batch(number: int) -> Tensor:
        starts = np.random.default_rng(number).integers(0, len(tokens) - T, BATCH)
        return torch.from_numpy(np.stack([tokens[start : start + T] for start in starts]).astype(np.int64))

    return batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--text", type=Path, help="a text of at most 65 symbols (default: random ones)")
    parser.add_argument("--loss-steps", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    batches = read_batches(arguments.text)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, one thread, {BATCH} x {SHAPE.context}")
    if arguments.rounds:
        with tempfile.TemporaryDirectory() as folder:
            speeds(batches, arguments.rounds, Path(folder))
    if arguments.loss_steps:
        losses(batches, arguments.loss_steps)


if __name__ == "__main__":
    main()
