"""Steps of GRPO and PPO a second against TRL's trainers: same model, prompts, lengths and precision, in one process.

    python -m benchmarks.policy [--steps 6] [--warm 2] [--shapes tiny] [--prompts 8] [--group 8] [--new 32]
                                [--threads 1] [--stages grpo,ppo,ppo-head] [--who both|ours|theirs]
                                [--dtype fp32|bf16|autocast]

A step draws completions of fixed length (nothing ends them), has them scored by a function that costs nothing, and
makes one update; with a KL term there is a reference model as well. TRL's GRPOTrainer is run without activation
checkpointing, dropout and logging of completions, and with SDPA. TRL 1.16 has no PPO, nor have its experimental parts:
PPO (policy, critic, reference, one update) is set beside its nearest, RLOOTrainer, which has no critic; ppo-head is PPO
whose critic is a head on the policy. The contenders take turns, step by step; the median step of each counts, by the
clock and in CPU seconds, which other work on the machine does not disturb. Each alone (`--who`) tells its memory: by
how much the most that the process held exceeds what it held when all was imported.

In bf16 ours keeps fp32 masters. TRL has two ways, of which the faster counts: its weights in bf16 (`--dtype bf16`), and
fp32 weights under autocast (`--dtype autocast`, beside which ours is the same as in bf16).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from benchmarks.generate import MEDIUM
from stages import grpo, ppo
from stages.data.tokenizer import save_tokenizer, train_tokenizer
from stages.models.decoder import new_decoder
from stages.models.hf import save_weights
from stages.store.checkpoints import write_checkpoint
from stages.store.presets import load_preset
from stages.store.workspace import Workspace
from tests.stages.policy_helpers import policy_run, prompt_dataset


class Precision(NamedTuple):
    """What `--dtype` means on either side."""

    mine: str
    weights: torch.dtype
    """Of TRL's models."""
    autocast: bool
    """Whether TRL computes in bf16 all the same."""


PRECISIONS = {
    "fp32": Precision("fp32", torch.float32, False),
    "bf16": Precision("bf16", torch.bfloat16, False),
    "autocast": Precision("bf16", torch.float32, True),
}


def write_model(folder: Path, shape: str) -> Path:
    """A random model of the shape, with a byte tokenizer, whose ids are the first of its vocabulary."""
    config = MEDIUM if shape == "30m" else load_preset(shape)

    def fill(final: Path) -> None:
        save_weights(new_decoder(config, 0), final)
        save_tokenizer(train_tokenizer([], "byte", 260, split_digits=False), final)
        (final / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")

    return write_checkpoint(folder, fill).path


class Contest(NamedTuple):
    """A stage of ours with its settings, and the trainer of TRL that is set beside it."""

    stage: Any
    kind: Any
    config: Any
    mine: dict[str, Any]
    theirs: dict[str, Any]


CONTESTS = {
    "grpo": Contest(grpo, GRPOTrainer, GRPOConfig, {}, {"beta": 0.04, "loss_type": "grpo"}),
    "ppo": Contest(ppo, RLOOTrainer, RLOOConfig, {"passes": 1}, {"beta": 0.05}),
    "ppo-head": Contest(ppo, RLOOTrainer, RLOOConfig, {"passes": 1, "value": "head"}, {"beta": 0.05}),
}


def ours(workspace: Workspace, name: str, args: argparse.Namespace) -> Any:
    """A run of ours whose completions nothing ends."""
    contest = CONTESTS[name]
    each = args.group if contest.stage is grpo else 1
    drawn = {"group": each} if contest.stage is grpo else {}
    run = policy_run(
        workspace, contest.stage.__name__.rpartition(".")[2], name, dataset="asked", steps=1_000,
        batch_size=args.prompts * args.group // each, max_new_tokens=args.new, template="raw", reward="length",
        missing_end_penalty=0.0, sample_every=0, lr=1e-5, precision=PRECISIONS[args.dtype].mine, **drawn,
        **contest.mine,
    )  # fmt: skip
    job = contest.stage.prepare(run)
    job.policy.writer._stops = ()
    return job


class Turns(TrainerCallback):
    """Times TRL's steps, and one of ours, if we take part, after each."""

    def __init__(self, job: Any) -> None:
        self._job, self._began = job, (0.0, 0.0)
        self.theirs: list[tuple[float, float]] = []
        self.mine: list[tuple[float, float]] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = clocks()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.theirs.append(since(self._began))
        if self._job is not None:
            began = clocks()
            self._job.step()
            self.mine.append(since(began))


def clocks() -> tuple[float, float]:
    """Seconds by the clock, and of this process's CPU time."""
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> tuple[float, float]:
    now = clocks()
    return now[0] - began[0], now[1] - began[1]


def against(job: Any, base: Path, questions: list[str], contest: Contest, args: argparse.Namespace) -> Turns:
    """TRL's steps, and ours in turn unless `job` is None. TRL's step begins before its data is drawn."""
    turns, how = Turns(job), PRECISIONS[args.dtype]
    settings = contest.config(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=args.prompts * args.group,
        num_generations=args.group,
        max_completion_length=args.new,
        generation_kwargs={"min_new_tokens": args.new},
        max_steps=args.steps + args.warm,
        learning_rate=1e-5,
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=how.autocast,
        report_to=[],
        logging_steps=1_000,
        save_strategy="no",
        disable_tqdm=True,
        **contest.theirs,
    )
    trainer = contest.kind(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=how.weights, attn_implementation="sdpa"),
        reward_funcs=lambda completions, **_: [float(len(each)) for each in completions],
        args=settings,
        train_dataset=Dataset.from_list([{"prompt": each} for each in questions]),
        processing_class=AutoTokenizer.from_pretrained(base),
        callbacks=[turns],
    )
    trainer.train()
    return turns


def say(shape: str, stage: str, kind: type, turns: Turns, warm: int) -> None:
    """Print how the median steps compare."""
    for place, clock in enumerate(("by the clock", "CPU time")):
        mine, theirs = (
            statistics.median(times[place] for times in steps[warm:]) for steps in (turns.mine, turns.theirs)
        )
        times = f"{stage:8} {mine:7.3f} s a step   {kind.__name__:13} {theirs:7.3f} s   {theirs / mine:5.2f} x"
        print(f"{shape:6} {times}   {clock}", flush=True)


def say_memory(shape: str, stage: str, who: str, before: int) -> None:
    """Print by how much the most that this process held exceeds what it held before."""
    print(f"{shape:6} {stage:8} {who:6} {(held() - before) / 1024:7,.0f} MB beyond what was imported", flush=True)


def held() -> int:
    """The most memory that this process has held, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def parser_of(stages: str, **numbers: int) -> argparse.ArgumentParser:
    """The options of this benchmark and of that of preferences."""
    parser = argparse.ArgumentParser()
    for name, default in {"steps": 6, "warm": 2, "threads": 1, **numbers}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--shapes", default="tiny")
    parser.add_argument("--stages", default=stages)
    parser.add_argument("--who", choices=("both", "ours", "theirs"), default="both")
    parser.add_argument("--dtype", choices=tuple(PRECISIONS), default="fp32")
    return parser


def prepared(folder: Path, shape: str) -> tuple[Workspace, Path, list[str]]:
    """A workspace in `folder` with the model `base` and the prompts `asked`; its base's folder and these questions."""
    workspace = Workspace(folder).ensure()
    base = write_model(workspace.models / "base", shape)
    questions = [f"How much is {n} and {99 - n}?" for n in range(10, 90)]
    prompt_dataset(workspace.datasets / "asked", [(each, "99") for each in questions])
    return workspace, base, questions


def compare(
    shape: str, stage: str, kind: type, args: argparse.Namespace, mine: Callable[[], Any], theirs: Callable[..., Turns]
) -> None:
    """Have both take turns, or one alone, and print times or memory. theirs(job): TRL's steps, and those of `job`."""
    before = held()
    job = None if args.who == "theirs" else mine()
    if args.who == "ours":
        for _ in range(args.steps + args.warm):
            job.step()
    else:
        turns = theirs(job)
    if args.who == "both":
        say(shape, stage, kind, turns, args.warm)
    else:
        say_memory(shape, stage, args.who, before)


def main() -> None:
    """Print a table."""
    args = parser_of(",".join(CONTESTS), prompts=8, group=8, new=32).parse_args()
    torch.set_num_threads(args.threads)
    print(
        f"{args.prompts} prompts x {args.group} completions of {args.new} tokens, {args.dtype}, threads {args.threads}"
    )
    for shape in args.shapes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            workspace, base, questions = prepared(Path(folder), shape)
            for name in args.stages.split(","):
                contest = CONTESTS[name]
                mine = partial(ours, workspace, name, args)
                theirs = partial(against, base=base, questions=questions, contest=contest, args=args)
                compare(shape, name, contest.kind, args, mine, theirs)


if __name__ == "__main__":
    main()
