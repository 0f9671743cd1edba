"""Instruction tuning against TRL's SFTTrainer: the same model, conversations, template and batch, in one process.

    python -m benchmarks.sft [--rounds 5] [--shapes tiny,30m] [--without "TRL, packed"]

Dolly's sample and the seed tasks of Self-Instruct from $WORKBENCH_TEST_DATA, cut at 256 tokens, assistant's turns only.
Ours packs 8 rows of 256 tokens a step, or pads 16 conversations; TRL does the same, packed by best-fit decreasing
(where it lays rows end to end), or padded and grouped by length. Both in bf16: ours with fp32 master weights, TRL by
autocast and with bf16 weights, SDPA, fused AdamW, data in memory, nothing logged, saved or evaluated. The contenders
take turns step by step, with one thread; what counts is real tokens (no padding) per second of CPU, the median step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
import transformers
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.generate import MEDIUM
from benchmarks.train import Turns
from stages.data.tokenizer import save_tokenizer, train_tokenizer
from stages.models.decoder import new_decoder
from stages.models.hf import save_weights
from stages.sft import Job
from stages.store.checkpoints import Lineage, write_checkpoint
from stages.store.presets import load_preset
from stages.store.records import Message
from stages.store.workspace import Workspace
from tests.stages.data.chats import chat_dataset
from tests.stages.sft_helpers import job_in

ROOM, PACKED_ROWS, PADDED_ROWS = 256, 8, 16
Step = Callable[[], int]
"""Takes a step and returns how many tokens of it were real."""


def conversations() -> list[list[Message]]:
    """A question, with its context where it has one, and the answer."""
    data = Path(os.environ["WORKBENCH_TEST_DATA"])
    asked = [
        (each["instruction"], each["context"], each["response"])
        for each in json.loads((data / "dolly_sample" / "dolly.json").read_text())
    ]
    for line in (data / "self_instruct" / "seed_tasks.jsonl").read_text().splitlines():
        task = json.loads(line)
        asked += [(task["instruction"], each["input"], each["output"]) for each in task["instances"]]
    return [
        [Message("user", f"{question}\n\n{context}".strip()), Message("assistant", answer)]
        for question, context, answer in asked
        if answer.strip()
    ]


def prepare(folder: Path, shape: str, chats: list[list[Message]]) -> Workspace:
    """A workspace with the conversations and a fresh model of this shape."""
    config = msgspec.structs.replace(MEDIUM if shape == "30m" else load_preset(shape), context=ROOM)
    workspace = Workspace(folder).ensure()
    texts = [message.content for chat in chats for message in chat]

    def fill(target: Path) -> None:
        save_weights(new_decoder(config, 0), target)
        save_tokenizer(train_tokenizer(texts, "bpe", config.vocab_size, split_digits=False), target)
        lineage = Lineage(stage="pretrain", run="r", name="base", step=0)
        (target / "workbench.json").write_bytes(msgspec.json.encode(lineage))

    write_checkpoint(workspace.models / "base", fill)
    chat_dataset(workspace.datasets / "chats", chats)
    return workspace


def ours(workspace: Workspace, name: str, rows: int, *, packing: bool) -> tuple[Job, Step]:
    job = job_in(
        workspace, name, dataset="chats", packing=packing, batch_size=rows, micro_batch=rows, precision="bf16",
        steps=10_000, warmup=20, lr=1e-3, context=ROOM,
    )  # fmt: skip

    def step() -> int:
        before = job.progress.tokens_seen
        job.step()
        job.progress.step += 1 if job.progress.tokens_seen > before else 0
        return job.progress.tokens_seen - before

    return job, step


def theirs(
    job: Job, folder: Path, chats: list[list[Message]], rows: int, dtype: torch.dtype, **settings: Any
) -> tuple[Turns, Step]:
    """TRL's trainer, whose first step is taken."""
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    tokenizer.chat_template = job.template
    data = Dataset.from_list([{"messages": [{"role": m.role, "content": m.content} for m in chat]} for chat in chats])
    arguments = trl.SFTConfig(
        output_dir=str(folder), assistant_only_loss=True, max_length=ROOM, per_device_train_batch_size=rows,
        use_cpu=True, bf16=dtype == torch.float32, report_to=[], max_steps=10_000, learning_rate=1e-3, warmup_steps=20,
        optim="adamw_torch_fused", logging_strategy="no", save_strategy="no", disable_tqdm=True,
        dataloader_pin_memory=False, gradient_checkpointing=False, **settings,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(job.base, dtype=dtype, attn_implementation="sdpa")
    turns = Turns()
    runner = trl.SFTTrainer(
        model=model, args=arguments, train_dataset=data, processing_class=tokenizer, callbacks=[turns]
    )
    turns.start(runner.train)

    def step() -> int:
        before = runner._total_train_tokens
        turns.step()
        return int(runner._total_train_tokens - before)

    return turns, step


def measure(shape: str, rounds: int, without: list[str]) -> None:
    """Prints one table."""
    chats = conversations()
    with tempfile.TemporaryDirectory() as folder:
        workspace = prepare(Path(folder) / "ws", shape, chats)
        job, packed = ours(workspace, "packed", PACKED_ROWS, packing=True)
        padded_job, padded = ours(workspace, "padded", PADDED_ROWS, packing=False)
        steps = {"ours, packed": packed, "ours, padded": padded}
        every: list[Turns] = []
        for kind, rows, settings in (
            ("packed", PACKED_ROWS, {"packing": True}),
            ("padded", PADDED_ROWS, {"train_sampling_strategy": "group_by_length"}),
        ):
            for precision, dtype in (("autocast", torch.float32), ("bf16 weights", torch.bfloat16)):
                if any(part in f"TRL, {kind}, {precision}" for part in without):
                    continue
                turns, step = theirs(job, Path(folder) / "trl", chats, rows, dtype, **settings)
                steps[f"TRL, {kind}, {precision}"] = step
                every.append(turns)
        rates: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(rounds + 1):
            turn = list(steps.items())  # there and back: whoever follows a larger step finds less of its memory warm
            for name, step in turn if number % 2 else turn[::-1]:
                began = time.process_time()
                tokens = step()
                if number:  # the first round warms up
                    rates[name].append(tokens / (time.process_time() - began))
        for turns in every:
            turns.end()
    speed = {name: statistics.median(found) for name, found in rates.items()}
    best = max(rate for name, rate in speed.items() if name.startswith("TRL"))
    print(f"\n{shape:<28} tokens/s    x TRL's best")
    for name, rate in speed.items():
        print(f"{name:<28} {rate:8,.0f} {rate / best:12.2f}")
    share = padding(padded_job)
    ratio = speed["ours, packed"] / speed["ours, padded"]
    print(f"packed / padded: {ratio:.2f}; all tokens / real tokens when padded: {share:.2f}; {ratio / share:.2f} of it")


def padding(job: Job) -> float:
    """Tokens of padded batches over those that are no padding."""
    batches = [job.train.batch(job.train.order(PADDED_ROWS * n, PADDED_ROWS), job.tokenizer.pad_id) for n in range(40)]
    return sum(batch.tokens.size for batch in batches) / sum(batch.real for batch in batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", default="tiny,30m")
    parser.add_argument("--without", action="append", default=[], help="contenders of TRL to leave out")
    arguments = parser.parse_args()
    if "WORKBENCH_TEST_DATA" not in os.environ:
        print("WORKBENCH_TEST_DATA names no folder with Dolly's sample and the seed tasks: nothing is measured.")
        return
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, TRL {trl.__version__}, one thread;")
    print(f"packed: {PACKED_ROWS} rows of {ROOM} tokens a step; padded: {PADDED_ROWS} conversations a step")
    for shape in arguments.shapes.split(","):
        measure(shape, arguments.rounds, arguments.without)


if __name__ == "__main__":
    main()
