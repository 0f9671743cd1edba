"""`workbench labels elo`: how strong checkpoints are by what people preferred."""

from __future__ import annotations

import click

from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.labels.elo import outcomes, standings
from stages.store.labels.judged import Choice, judged
from workbench.cli.common import Environment, json_option, pass_environment, say_table
from workbench.models.lineage_table import Line, along_lineage

COLUMNS = {
    "shown": "checkpoint",
    "elo": "Elo",
    "interval": "95 %",
    "won": "won",
    "tied": "tied",
    "lost": "lost",
    "win_rate": "wins, ties as halves",
}


@click.command()
@click.option("--label-set", "sets", multiple=True, help="Only judgements of this set; repeatable.")
@json_option
@pass_environment
def elo(env: Environment, sets: tuple[str, ...], as_json: bool) -> None:
    """Checkpoints along their lineage, with Elo and win rates from every pair that people ranked.

    Bradley-Terry strengths, fitted to all judgements in force at once: 1000 + 400 log10 of the strength, a tie is
    half a win, and every checkpoint begins with one tie with an imaginary one of Elo 1000. Intervals are of 95 %.
    """
    if not env.workspace.labels.is_file():
        raise UserError("There are no labels yet.", "In the app: C, then v compares two checkpoints.")
    with open_labels(env.workspace.labels) as labels:
        for name in sets:
            labels.find_set(name)
        found = standings(outcomes(judged(labels, Choice(sets=sets))))
    rows = [_row(line) for line in along_lineage(env.workspace, found)]
    empty = "Nobody has compared two checkpoints yet. In the app: C, then v."
    say_table(rows, COLUMNS, as_json=as_json, empty=empty)


def _row(line: Line) -> dict[str, object]:
    one = line.standing
    return {
        "name": one.checkpoint,
        "kind": "checkpoint",
        "shown": "  " * line.depth + one.checkpoint,
        "parent": line.parent,
        "elo": round(one.elo, 1),
        "interval": f"{one.low:.0f} to {one.high:.0f}",
        "low": round(one.low, 1),
        "high": round(one.high, 1),
        "won": one.won,
        "tied": one.tied,
        "lost": one.lost,
        "win_rate": str(one.wins),
        "wins": [one.wins.value, one.wins.low, one.wins.high],
    }
