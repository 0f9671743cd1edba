"""Steps of a reward model a second against TRL's RewardTrainer: same model, pairs in tokens, batch and precision.

    python -m benchmarks.reward [--steps 6] [--shapes tiny] [--pairs 16] [--threads 1]

Pairs are sums with answers of unequal length, 60 to 250 tokens with their prompts. TRL is run with SDPA, without
activation checkpointing, dropout and evaluation. The two take turns, step by step; the median step of each counts.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from benchmarks.generate import MEDIUM
from benchmarks.policy import WARM, Turns
from stages.data.rankings import text_of
from stages.data.tokenizer import save_tokenizer, train_tokenizer
from stages.models.decoder import new_decoder
from stages.models.hf import load_model, save_weights
from stages.models.value import new_value_model, save_value_model
from stages.reward import Job
from stages.store.checkpoints import write_checkpoint
from stages.store.presets import load_preset
from stages.store.records import Message, PreferenceRecord
from stages.store.workspace import Workspace
from tests.stages.data.test_preference_shards import preference_dataset
from tests.stages.reward_helpers import job_in

PAD = 255


def write_model(final: Path, shape: str) -> None:
    """A random model of the shape, with a byte tokenizer, whose ids are the first of its vocabulary."""
    config = MEDIUM if shape == "30m" else load_preset(shape)

    def fill(folder: Path) -> None:
        save_weights(new_decoder(config, 0), folder)
        save_tokenizer(train_tokenizer([], "byte", 260, split_digits=False), folder)

    write_checkpoint(final, fill)


def pairs(count: int) -> list[PreferenceRecord]:
    """Questions with a longer and a shorter answer, either of them preferred."""
    dice = random.Random(0)
    return [
        PreferenceRecord(
            messages=[Message("user", f"How much is {n} and {99 - n}? " * dice.randint(1, 3))],
            completions=["It is " + "well " * dice.randint(1, 30) + "99.", "It is 99. " * dice.randint(1, 12)],
            ranks=[1, 2],
        )
        for n in range(count)
    ]


def theirs(job: Job, folder: Path, turns: Turns, args: argparse.Namespace) -> RewardTrainer:
    """TRL's trainer on the same weights and the same pairs in tokens."""
    base = job.base
    save_value_model(new_value_model(load_model(base), 0), folder, pad_id=PAD)
    data = job.data.train
    rows = [
        {
            f"{side}_ids": text_of(data, number).tolist()
            for side, number in zip(("chosen", "rejected"), members, strict=True)
        }
        for members in (data.members(prompt) for prompt in range(len(data)))
    ]
    settings = RewardConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=args.pairs,
        max_steps=args.steps + WARM,
        max_length=None,
        gradient_checkpointing=False,
        disable_dropout=True,
        use_cpu=True,
        bf16=False,
        report_to=[],
        logging_steps=1_000,
        save_strategy="no",
        disable_tqdm=True,
    )
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    tokenizer = AutoTokenizer.from_pretrained(base)
    return RewardTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[turns],
    )


def main() -> None:
    """Print a line a shape."""
    parser = argparse.ArgumentParser()
    for name, default in (("steps", 6), ("pairs", 16), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--shapes", default="tiny")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.pairs} pairs a step, fp32, {args.threads} threads")
    for shape in args.shapes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            workspace = Workspace(Path(folder) / "ws").ensure()
            write_model(workspace.models / "base", shape)
            preference_dataset(workspace.datasets / "likes", pairs(20 * args.pairs))
            job = job_in(workspace, batch_size=args.pairs, steps=1_000, eval_every=1_000)
            turns = Turns(job)
            judge = Path(folder) / "judge"
            judge.mkdir()
            theirs(job, judge, turns, args).train()
            mine, other = (statistics.median(times[WARM:]) for times in (turns.mine, turns.theirs))
            print(f"{shape:10} {mine:7.3f} s a step   RewardTrainer {other:7.3f} s   {other / mine:5.2f} x", flush=True)


if __name__ == "__main__":
    main()
