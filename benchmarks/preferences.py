"""Steps of a reward model and of DPO a second against TRL's trainers: same model, pairs in tokens, batch, precision.

    python -m benchmarks.preferences [--steps 6] [--warm 2] [--shapes tiny] [--pairs 16] [--threads 1]
                                     [--stages reward,dpo] [--who both|ours|theirs] [--dtype fp32|bf16|autocast]

Pairs are sums with answers of unequal length, 60 to 250 tokens with their prompts. TRL is run with SDPA, without
activation checkpointing, dropout and evaluation; the reference's log-probabilities are computed before training on both
sides. The two take turns, step by step; the median step of each counts, by the clock and in CPU seconds. Each alone
tells its memory, as in `benchmarks.policy`, which also says what `--dtype` means.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from benchmarks.generate import MEDIUM
from benchmarks.policy import PRECISIONS, Turns, held, parser_of, say, say_memory
from stages import dpo, reward
from stages.data.rankings import text_of
from stages.data.tokenizer import save_tokenizer, train_tokenizer
from stages.models.decoder import new_decoder
from stages.models.hf import load_model, save_weights
from stages.models.value import new_value_model, save_value_model
from stages.store.checkpoints import write_checkpoint
from stages.store.presets import load_preset
from stages.store.records import Message, PreferenceRecord
from stages.store.workspace import Workspace
from tests.stages.data.test_preference_shards import preference_dataset
from tests.stages.reward_helpers import job_in
from tests.stages.test_dpo import job_in as dpo_job_in

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


def reward_rows(job: reward.Job | dpo.Job) -> list[dict[str, Any]]:
    """The pairs in tokens, as RewardTrainer takes them."""
    data = job.data.train
    return [
        {
            f"{side}_ids": text_of(data, number).tolist()
            for side, number in zip(("chosen", "rejected"), members, strict=True)
        }
        for members in (data.members(prompt) for prompt in range(len(data)))
    ]


def dpo_rows(job: dpo.Job) -> list[dict[str, Any]]:
    """The pairs as text, which DPOTrainer encodes beforehand: the prompt is what both begin with."""
    rows, tokenizer = [], AutoTokenizer.from_pretrained(job.base)
    for row in reward_rows(job):
        chosen, rejected = row["chosen_ids"], row["rejected_ids"]
        common = next(n for n, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b)
        parts = {"prompt": chosen[:common], "chosen": chosen[common:-1], "rejected": rejected[common:-1]}
        rows.append({name: tokenizer.decode(ids) for name, ids in parts.items()})
    return rows


def run_theirs(
    kind: Any, config: Any, model: Any, rows: list[dict[str, Any]], base: Path, turns: Turns, **more: Any
) -> None:
    """Train by TRL over the rows at its best settings, taking turns."""
    settings = config(
        output_dir=tempfile.mkdtemp(),
        max_length=None,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to=[],
        logging_steps=1_000,
        save_strategy="no",
        disable_tqdm=True,
        **more,
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    data = Dataset.from_list(rows)
    kind(model=model, args=settings, train_dataset=data, processing_class=tokenizer, callbacks=[turns]).train()


def main() -> None:
    """Print two lines for each stage and shape, or one where a side is alone."""
    args = parser_of("reward,dpo", pairs=16).parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.pairs} pairs a step, {args.dtype}, threads {args.threads}")
    for shape in args.shapes.split(","):
        for stage in args.stages.split(","):
            with tempfile.TemporaryDirectory() as folder:
                contest(stage, shape, Path(folder), args)


def contest(stage: str, shape: str, folder: Path, args: argparse.Namespace) -> None:
    """Ours and TRL's trainer in turn, or one of them alone."""
    before = held()
    if args.who == "theirs":  # made by another process, so that this one holds nothing of ours
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            rows, base = pool.submit(_made, stage, shape, folder, args).result()
        job = None
    else:
        write_model(folder / "ws" / "models" / "base", shape)
        job = made_job(stage, folder, args)
        rows, base = (reward_rows if stage == "reward" else dpo_rows)(job), job.base
    if args.who == "ours":
        for _ in range(args.steps + args.warm):
            job.step()
        say_memory(shape, stage, "ours", before)
        return
    turns, kind = Turns(job), RewardTrainer if stage == "reward" else DPOTrainer
    how = PRECISIONS[args.dtype]
    steps = {"per_device_train_batch_size": args.pairs, "max_steps": args.steps + args.warm, "bf16": how.autocast}
    opened = {"dtype": how.weights, "attn_implementation": "sdpa"}
    if stage == "reward":
        model = AutoModelForSequenceClassification.from_pretrained(judge_of(base, folder), **opened)
        run_theirs(kind, RewardConfig, model, rows, base, turns, disable_dropout=True, **steps)
    else:
        model = AutoModelForCausalLM.from_pretrained(base, **opened)
        run_theirs(kind, DPOConfig, model, rows, base, turns, precompute_ref_log_probs=True, **steps)
    if args.who == "both":
        say(shape, stage, kind, turns, args.warm)
    else:
        say_memory(shape, stage, "theirs", before)


def made_job(stage: str, folder: Path, args: argparse.Namespace) -> Any:
    """A run of ours on so many pairs a step, ready for its first."""
    workspace, count = Workspace(folder / "ws").ensure(), args.pairs
    preference_dataset(workspace.datasets / "likes", pairs(count * min(20, args.steps + args.warm)))
    settings = {"batch_size": count, "steps": 1_000, "eval_every": 1_000, "precision": PRECISIONS[args.dtype].mine}
    return job_in(workspace, **settings) if stage == "reward" else dpo_job_in(workspace, sample_every=0, **settings)


def _made(stage: str, shape: str, folder: Path, args: argparse.Namespace) -> tuple[list[dict[str, Any]], Path]:
    """TRL's rows and the model that both begin with."""
    write_model(folder / "ws" / "models" / "base", shape)
    job = made_job(stage, folder, args)
    return (reward_rows if stage == "reward" else dpo_rows)(job), job.base


def judge_of(base: Path, folder: Path) -> Path:
    """A folder with a fresh reward model of this base."""
    judge = folder / "judge"
    judge.mkdir()
    save_value_model(new_value_model(load_model(base), 0), judge, pad_id=PAD)
    return judge


if __name__ == "__main__":
    main()
