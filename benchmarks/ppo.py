"""Steps of PPO a second against TRL's PPOTrainer: same model, prompts, lengths and precision, in one process.

    python -m benchmarks.ppo [--steps 6] [--warm 2] [--shapes tiny] [--prompts 64] [--new 32] [--passes 1,4]
                             [--threads 1] [--who both|ours|theirs] [--dtype fp32|bf16|autocast]

TRL dropped PPO after its version 0.24 (with transformers 4.57), so this needs an environment of its own with those; in
any other it says so and measures nothing. A step draws one completion of fixed length for each prompt (nothing ends
them), has them read by policy, reference and value model, each of the same size, scores them at no cost, and makes
`passes` updates with all of them. TRL runs without logging, saving and samples, with SDPA and the whole batch at once.
The contenders take turns, step by step, as in `benchmarks.policy`, which tells what is printed and what `--dtype`
means.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.policy import PRECISIONS, Turns, compare, parser_of, prepared
from stages import ppo
from stages.store.workspace import Workspace
from tests.stages.policy_helpers import policy_run


class NoCost(torch.nn.Module):
    """A reward model in TRL's terms that reads nothing: every completion has the same score."""

    base_model_prefix = "reader"

    def __init__(self) -> None:
        super().__init__()
        self.reader = Reader()

    def score(self, states: torch.Tensor) -> torch.Tensor:
        return states


class Reader(torch.nn.Module):
    """Zeros [B, T, 1] as the last hidden states of token ids [B, T]."""

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=(torch.zeros(*input_ids.shape, 1),))


def ours(workspace: Workspace, passes: int, args: argparse.Namespace) -> Any:
    """A run of ours whose completions nothing ends."""
    run = policy_run(
        workspace, "ppo", "ours", dataset="asked", steps=1_000, batch_size=args.prompts, max_new_tokens=args.new,
        template="raw", reward="length", missing_end_penalty=0.0, sample_every=0, lr=1e-5, passes=passes, value="copy",
        precision=PRECISIONS[args.dtype].mine,
    )  # fmt: skip
    job = ppo.prepare(run)
    job.policy.writer._stops = ()
    return job


def against(job: Any, base: Path, questions: list[str], passes: int, args: argparse.Namespace) -> Turns:
    """TRL's steps, and ours in turn unless `job` is None."""
    turns, tokenizer, how = Steps(job), AutoTokenizer.from_pretrained(base), PRECISIONS[args.dtype]
    settings = trl.PPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=args.prompts,
        local_rollout_forward_batch_size=args.prompts,
        total_episodes=args.prompts * (args.steps + args.warm),
        num_ppo_epochs=passes,
        num_mini_batches=1,
        response_length=args.new,
        num_sample_generations=0,
        learning_rate=1e-5,
        use_cpu=True,
        bf16=how.autocast,
        report_to=[],
        logging_steps=1_000,
        save_strategy="no",
        disable_tqdm=True,
    )

    def opened(kind: Any, **more: Any) -> Any:
        return kind.from_pretrained(base, dtype=how.weights, attn_implementation="sdpa", **more)

    trainer = trl.PPOTrainer(
        args=settings,
        processing_class=tokenizer,
        model=opened(AutoModelForCausalLM),
        ref_model=opened(AutoModelForCausalLM),
        reward_model=NoCost(),
        value_model=opened(AutoModelForSequenceClassification, num_labels=1),
        train_dataset=Dataset.from_list([{"input_ids": tokenizer(each)["input_ids"]} for each in questions]),
        eval_dataset=Dataset.from_list([]),
        callbacks=[turns],
    )
    trainer.train()
    return turns


class Steps(Turns):
    """Times the steps of a trainer that says when one ends, and not when one begins."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.on_step_begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        super().on_step_end()
        self.on_step_begin()


def main() -> None:
    """Print a table."""
    parser = parser_of("ppo", prompts=64, new=32)
    parser.add_argument("--passes", default="1,4")
    args = parser.parse_args()
    if not hasattr(trl, "PPOTrainer"):
        print(f"TRL {trl.__version__} has no PPO: this needs trl==0.24.0 with transformers==4.57.1.")
        return
    torch.set_num_threads(args.threads)
    told = f"{args.prompts} prompts, completions of {args.new} tokens, {args.dtype}, threads {args.threads}"
    print(f"TRL {trl.__version__}, {told}")
    for shape in args.shapes.split(","):
        for passes in map(int, args.passes.split(",")):
            measure(shape, passes, args)


def measure(shape: str, passes: int, args: argparse.Namespace) -> None:
    """Steps of models of one shape, with so many updates each."""
    with tempfile.TemporaryDirectory() as folder:
        workspace, base, questions = prepared(Path(folder), shape)
        mine = partial(ours, workspace, passes, args)
        theirs = partial(against, base=base, questions=questions, passes=passes, args=args)
        compare(shape, f"ppo × {passes}", trl.PPOTrainer, args, mine, theirs)


if __name__ == "__main__":
    main()
