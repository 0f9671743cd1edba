"""`workbench scale`: a ladder of sizes and budgets, the law fitted to it, a forecast, and the run that checks it."""

from __future__ import annotations

import click
import msgspec

from stages.store import strict
from stages.store.errors import UserError
from stages.store.groups import find_group, group_names
from stages.store.scaling import Fit
from workbench.cli.common import (
    CommandGroup,
    Environment,
    SpecCommand,
    detach_option,
    json_option,
    parse_pairs,
    pass_environment,
    say,
    say_json,
    say_table,
    set_option,
)
from workbench.cli.sweep import attend, begin
from workbench.runs import unique_name
from workbench.studies.ladder import STAGE, Ladder, plan_ladder, size_and_tokens, told_sizes
from workbench.studies.study import VERB, Point, Study, launch_next, misses, read_study
from workbench.studies.study_lines import check_line, law_lines, short, told
from workbench.talking.desk_client import ask_once
from workbench.wording import operations, standing


@click.group(cls=CommandGroup)
def scale() -> None:
    """A scaling study: train sizes × budgets, fit how the loss falls, forecast the next size and check it.

    The law is L(N, D) = E + A / N^α + B / D^β (Hoffmann et al. 2022): N parameters in matrix products, D tokens.
    """


@scale.command("start", cls=SpecCommand, spec=Ladder)
@click.option("--data", "dataset", required=True, metavar="NAME", help="Text to train on.")
@click.option("--tokenizer", required=True, metavar="NAME", help="Tokenizer of the models.")
@click.option("--name", help="Name of the study; left out: made of the dataset.")
@set_option
@detach_option
@pass_environment
def start(
    env: Environment, dataset: str, tokenizer: str, name: str | None, pairs: tuple[str, ...], detach: bool
) -> None:
    """Train a ladder of sizes on a ladder of budgets, every size with every budget, through the queue."""
    ladder = strict.parse(Ladder, parse_pairs(Ladder, pairs), "scale settings")
    chosen = name or unique_name(group_names(env.workspace), f"{dataset[:30]}-scale")
    settings = env.settings.stage(STAGE)
    group = plan_ladder(env.workspace, chosen, ladder, dataset=dataset, tokenizer=tokenizer, settings=settings)
    say(f"{chosen}: {told_sizes([size_and_tokens(env.workspace, group, one) for one in group.members])}.")
    begin(env, group, detach)
    if not detach:
        _say_study(env, chosen, as_json=False)


@scale.command("show")
@click.argument("name", metavar="STUDY")
@json_option
@pass_environment
def show(env: Environment, name: str, as_json: bool) -> None:
    """Show a study: its runs, the law fitted to those that have finished, and the forecast of the next size."""
    _say_study(env, name, as_json=as_json)


@scale.command("next")
@click.argument("name", metavar="STUDY")
@detach_option
@pass_environment
def next_(env: Environment, name: str, detach: bool) -> None:
    """Train the next size on the largest budget, and hold the forecast against what comes out."""
    group = find_group(env.workspace, name)
    study = read_study(env.workspace, group)
    fit = _fit(env, study)
    size, tokens = study.ahead
    say(f"{study.upcoming.name}: {size:,} parameters, {tokens:,} tokens.")
    say(f"forecast: {told(fit.forecasts[-1].loss)}")
    grown = launch_next(env.workspace, group, cpu_width=env.settings.queue.cpu_width)
    if detach:
        say(f"`workbench scale show {name}` tells how it did.")
        return
    attend(env, grown)
    _say_study(env, name, as_json=False)


def _fit(env: Environment, study: Study) -> Fit:
    return msgspec.convert(ask_once(env.workspace, VERB, **study.question()), Fit)


def _say_study(env: Environment, name: str, *, as_json: bool) -> None:
    study = read_study(env.workspace, find_group(env.workspace, name))
    fit, why = None, None
    try:
        fit = _fit(env, study)
    except UserError as error:
        why = error
    rows = [_row(point, fit) for point in study.points]
    if as_json:
        size, tokens = study.ahead
        say_json({"name": name, "runs": rows, "fit": fit, "next": {"parameters": size, "tokens": tokens}})
        return
    columns = ("name", "parameters", "tokens", "work", "status", "loss", "law says")
    say_table(rows, {key: key for key in columns}, as_json=False, empty="It has no runs.")
    say("")
    if fit is None:
        say(f"No law yet: {why}")
        return
    for line in law_lines(fit):
        say(line)
    for check in misses(study, fit):
        say(check_line(*check))
    if not study.checks:
        size, tokens = study.ahead
        forecast = told(fit.forecasts[-1].loss)
        say(f"next size: {size:,} parameters, {short(tokens)} tokens: forecast {forecast}")
        say(f"`workbench scale next {name}` trains it.")


def _row(point: Point, fit: Fit | None) -> dict[str, object]:
    row = point.row
    stands = standing(row.state, row.status) if row.state is not None and row.status is not None else "not launched"
    return {
        "name": row.member.name,
        "kind": row.member.role or "run",
        "parameters": point.parameters,
        "tokens": point.tokens,
        "work": operations(point.flops),
        "flops": point.flops,
        "status": stands,
        "loss": point.loss,
        "law says": fit.law.loss(point.parameters, point.tokens) if fit else None,
    }
