"""Judging a label set by a reward model: a score for each candidate, from which labels in its name are made.

The worker reads labels.db and writes scores.jsonl to its run; labels are written by the app and the command line alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from stages.loop import set_up_torch
from stages.measuring.scorer import Scorer
from stages.run import Run
from stages.store.checkpoints import Checkpoint
from stages.store.errors import UserError
from stages.store.files import append_line, drop_torn_line
from stages.store.labels import Labels, LabelSet, Shown, open_labels
from stages.store.scores import FILE, Line, read_scores
from stages.store.specs.label import Label

TOGETHER = 64
"""Prompts that are scored at once."""


def run(run: Run) -> dict[str, Any]:
    """Score what an earlier worker of this run has not scored."""
    settings = run.settings(Label)
    device, folder = set_up_torch(run, deterministic=False), run.checkpoint()
    name, path = Checkpoint(folder, 0).title(), run.dir.path / FILE
    if not run.workspace.labels.is_file():
        raise UserError("There are no labels yet.", "`workbench labels new NAME --from DATASET` makes a set to judge.")
    with open_labels(run.workspace.labels) as labels, Scorer(folder, device, precision=settings.precision) as scorer:
        chosen = labels.find_set(settings.label_set)
        if chosen.mode == "write":
            raise UserError(f"The label set {chosen.name!r} asks for answers to write; there is nothing to score.")
        drop_torn_line(path)
        known = {line.place for line in read_scores(run.dir)}
        wanted = list(islice(to_score(labels, chosen, settings.judged), settings.max_prompts))
        waiting = [shown for shown in wanted if shown.place not in known]
        done = len(wanted) - len(waiting)
        for start in range(0, len(waiting), TOGETHER):
            for line in scored(scorer, waiting[start : start + TOGETHER], name):
                append_line(path, msgspec.json.encode(line))
                done += 1
            run.progress(done, len(wanted), unit="prompts", phase="scoring")
    found = {line.place for line in read_scores(run.dir)}
    left_out = len({shown.place for shown in wanted} - found)  # what is scored may have been judged since
    return {"label_set": chosen.name, "prompts": len(found), "left_out": left_out, "annotator": name}


def to_score(labels: Labels, chosen: LabelSet, judged: bool) -> Iterator[Shown]:
    """The places of a set with two candidates or more; those that a person has judged only where that is asked for."""
    given = (one for one in labels.labels(chosen.id) if one.kind not in ("flag", "skip"))
    done = {one.place for one in given if not one.origin.startswith("model:")}
    for place in range(chosen.prompts):
        shown = labels.at(chosen.id, place)
        if shown is not None and len(shown.completions) > 1 and (judged or place not in done):
            yield shown


def scored(scorer: Scorer, prompts: list[Shown], name: str) -> Iterator[Line]:
    """The raw scores of each prompt's candidates; a prompt of which one does not fit the context is left out."""
    answers = [(shown.prompt.messages, one.text) for shown in prompts for one in shown.completions]
    found = iter(scorer.score_all(answers))
    for shown in prompts:
        scores = [next(found) for _ in shown.completions]
        raw = [one.raw for one in scores if not isinstance(one, UserError)]
        if len(raw) == len(scores):
            yield Line(place=shown.place, shown=[one.id for one in shown.completions], scores=raw, checkpoint=name)
