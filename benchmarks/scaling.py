"""A scaling study of starter text: five sizes × three budgets, and how far the forecast of the sixth size is off.

    python -m benchmarks.scaling [--folder DIR] [--widths 16,24,32,48,64] [--budgets 500k,1M,2M]

Builds starter:world and a tokenizer of 512 tokens, trains the ladder through the queue as `workbench scale` does, fits
L(N, D) = E + A / N^α + B / D^β to its fifteen runs, forecasts the next size on the largest budget, trains it, and says
by how much the forecast missed. In a folder that is named it can be interrupted and started again: what has been
trained counts.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from stages.measuring.scaling import fit
from stages.store.errors import UserError
from stages.store.groups import Group, find_group, group_names
from stages.store.rundir import RunDir
from stages.store.scaling import Fit
from stages.store.workspace import Workspace
from workbench.runs import launch
from workbench.studies import groups
from workbench.studies.ladder import Ladder, plan_ladder
from workbench.studies.study import Study, launch_next, misses, read_study
from workbench.studies.study_lines import check_line, law_lines

NAME, TEXT, TOKENIZER = "scaling", "world", "world-bpe"
AT_ONCE = 2
"""Runs at work at once, of one thread each."""
GOAL = 0.03
"""Share by which the forecast may miss."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--widths", default="16, 24, 32, 48, 64")
    parser.add_argument("--budgets", default="500k, 1M, 2M")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace((arguments.folder or Path(temporary)).absolute()).ensure()
        try:
            study(workspace, Ladder(widths=arguments.widths, budgets=arguments.budgets, layers=2, batch_size=8))
        finally:
            if NAME in group_names(workspace):
                groups.pause_group(workspace, NAME)


def study(workspace: Workspace, ladder: Ladder) -> None:
    """Train what is missing, fit, forecast, check, and say how near the forecast was."""
    if NAME not in group_names(workspace):
        prepare(workspace)
        groups.launch_group(workspace, plan(workspace, ladder), cpu_width=AT_ONCE)
    else:
        groups.resume_group(workspace, NAME, cpu_width=AT_ONCE)
    wait(workspace, find_group(workspace, NAME))
    group = find_group(workspace, NAME)
    if not any(member.role == "check" for member in group.members):
        group = launch_next(workspace, group, cpu_width=AT_ONCE)
        wait(workspace, group)
    found = read_study(workspace, group)
    law = fit(*found.question().values())
    tell(found, law)
    (check,) = misses(found, law)
    near = check[2] is not None and abs(check[2]) <= GOAL
    print(f"{'within' if near else 'not within'} the goal of {GOAL:.0%}")


def prepare(workspace: Workspace) -> None:
    """The text and its tokenizer."""
    _end(launch(workspace, "build", TEXT, {"sources": ["starter:world"]}))
    _end(launch(workspace, "tokenizer", TOKENIZER, {"vocab_size": 512}, dataset=TEXT))


def plan(workspace: Workspace, ladder: Ladder) -> Group:
    """The ladder as a group, on one thread each."""
    return plan_ladder(workspace, NAME, ladder, dataset=TEXT, tokenizer=TOKENIZER, settings={"threads": 1})


def wait(workspace: Workspace, group: Group) -> None:
    """Until no run works or waits; UserError where one did not finish."""
    while any(row.working for row in groups.standings(workspace, group)):
        time.sleep(1.0)
    rows = groups.standings(workspace, group)
    if unfinished := [row.member.name for row in rows if not row.finished]:
        raise UserError(f"{unfinished[0]} did not finish.", f"Its log stands below {workspace.runs}.")


def tell(found: Study, law: Fit) -> None:
    """The runs with what the law says of them, the law, and the forecast beside what came out."""
    for point in found.points:
        said = law.law.loss(point.parameters, point.tokens)
        name = point.row.member.name
        print(f"{name:<16} {point.parameters:>9,} {point.tokens:>10,}  {point.loss:.4f}  law {said:.4f}")
    for line in law_lines(law):
        print(line)
    for check in misses(found, law):
        print(check_line(*check))


def _end(run: RunDir) -> None:
    while run.alive():
        time.sleep(0.2)
    if run.status() != "finished":
        raise UserError(f"{run.spec().name} did not finish.", run.log.read_text()[-500:])


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(143)


if __name__ == "__main__":
    main()
