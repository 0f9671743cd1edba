"""`workbench demo`: the whole life of a transformer on the starter world, and a table of what became of it."""

from __future__ import annotations

import time
from itertools import count

import click

from stages.store.rundir import RunDir
from workbench.cli.common import Environment, json_option, pass_environment, say, say_json, say_table
from workbench.cli.progress import wait
from workbench.display import displayable_line, shortened
from workbench.life import demo as life
from workbench.wording import duration

COLUMNS = {
    "model": "model",
    "bits_per_byte": "bits a byte",
    "exact": "exact",
    "preferred": "preferred",
    "kl": "KL (nats)",
}
AT_ONCE = 2
"""Steps that may be at work at the same time on a CPU."""
MEASURED = 2
"""Steps that measure, at the end."""
SHOWN = 4
"""Probe prompts whose answers are printed; JSON has all of them."""
WIDTH = 80
"""Characters of an answer that are printed."""


@click.command()
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Seed of every step.")
@click.option("--prefix", default="demo", show_default=True, help="What the names of all that it makes begin with.")
@json_option
@pass_environment
def demo(env: Environment, seed: int, prefix: str, as_json: bool) -> None:
    """Live a transformer's whole life on the starter world: some minutes on a laptop.

    Datasets, tokenizer, pre-training, instruction tuning, a reward model, DPO, GRPO and PPO; then a table of base, SFT,
    DPO, GRPO and PPO: bits a byte of held-out text, exact answers to held-out questions, answers in the preferred
    style, and the KL from the SFT model. Each step is a run: open the app beside it to watch. Interrupted, it goes on
    when it is started again; what has finished is not repeated.
    """
    began = time.monotonic()
    workspace, width = env.workspace.ensure(), max(AT_ONCE, env.settings.queue.cpu_width)
    steps = life.plan(seed, prefix)
    told = count(1)

    def watch(step: life.Step, run: RunDir) -> None:
        tell(next(told), len(steps) + MEASURED, step)
        wait(run)

    life.perform(workspace, steps, watch, cpu_width=width)
    found = life.perform(workspace, life.measuring(workspace, seed, prefix), watch, cpu_width=width)
    lines = life.table(*found)
    if as_json:
        say_json([{"kind": "demo", "name": line.checkpoint, **line._asdict()} for line in lines])
        return
    say_table([line._asdict() for line in lines], COLUMNS, as_json=False, empty="")
    say_probes(lines)
    say(f"In {duration(time.monotonic() - began)}. `workbench chat {prefix}-dpo` talks to one of them.")


def tell(number: int, count: int, step: life.Step) -> None:
    """Which step comes now, on stderr beside the progress of its run."""
    click.echo(f"[{number}/{count}] {step.stage} {displayable_line(step.name)}: {step.about}", err=True)


def say_probes(lines: list[life.Line]) -> None:
    """How each model answers some of the probe prompts."""
    for place in range(min(SHOWN, *(len(line.answers) for line in lines))):
        say(f"\n{lines[0].answers[place]['prompt']}")
        for line in lines:
            say(f"  {line.model:<6}{shortened(' '.join(line.answers[place]['text'].split()), WIDTH)}")
