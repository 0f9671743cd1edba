"""Labels by a reward model: in its own name, counted nowhere unasked, and what it would ask a person next."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest

from stages import label
from stages.label import scored, to_score
from stages.measuring.scorer import Scorer
from stages.run import Run
from stages.store.errors import UserError
from stages.store.files import append_line
from stages.store.labels import open_labels
from stages.store.labels.figures import figures
from stages.store.labels.judged import Choice, judged, preference_of
from stages.store.rundir import RunDir, RunSpec, create_run
from stages.store.scores import FILE, Line, disagreement, read_scores, uncertainty
from stages.store.workspace import Workspace
from tests.stages.helpers import finish, made_run
from tests.stages.store.labels.conftest import tasks
from tests.tiny_model import write_tiny_judge
from workbench import runs
from workbench.judging.model_labels import ask_next, take_in_scores

ASKED = 6


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A label set of which a person has judged the first prompt."""
    made = Workspace(tmp_path / "ws").ensure()
    with open_labels(made.labels) as labels:
        chosen = labels.add_set("mine", "rank", tasks(ASKED))
        shown = labels.next(chosen.id, "ada")
        assert shown is not None
        labels.save(shown.label("rank", "ada", ranks=[1, 2, 3, 4]))
    return made


def write_lines(workspace: Workspace, scores: dict[int, list[float]]) -> RunDir:
    """A run that has scored these places."""
    run = create_run(workspace, RunSpec(stage="label", name="l", settings={"label_set": "mine"}, parents={}, threads=1))
    with open_labels(workspace.labels) as labels:
        for place, given in scores.items():
            shown = labels.at(labels.find_set("mine").id, place)
            assert shown is not None
            ids = sorted(one.id for one in shown.completions)
            line = Line(place=place, shown=ids, scores=given, checkpoint="r@8")
            append_line(run.path / FILE, msgspec.json.encode(line))
    return run


def test_a_models_labels_stand_in_its_name_and_count_nowhere_unasked(workspace: Workspace) -> None:
    run = write_lines(workspace, {place: [0.0, 2.0, 1.0, 1.0] for place in range(1, ASKED)})
    with open_labels(workspace.labels) as labels:
        assert take_in_scores(labels, run) == ASKED - 1
        assert take_in_scores(labels, run) == 0
        chosen = labels.find_set("mine")
        assert labels.count(chosen.id) == labels.count_all() == 1
        assert figures(judged(labels)).by_annotator == {"ada": 1}
        assert [one.label.annotator for one in judged(labels)] == ["ada"]
        with_models = list(judged(labels, Choice(models=True)))
        records = [preference_of(one) for one in with_models]
        assert [one.annotator for one in records if one] == ["ada"] + ["model:r@8"] * (ASKED - 1)
        assert records[1] is not None and records[1].ranks == [1, 2, 2, 3]
        assert records[1].meta["origin"] == "model:r@8" and records[1].completions[0].endswith(".1")
        left = set()
        while (shown := labels.next(chosen.id, "ada")) is not None:
            left.add(shown.place)
            labels.save(shown.label("skip", "ada"))
        assert left == set(range(1, ASKED))  # what a model has judged, people are still asked


def test_what_the_model_is_least_sure_of_is_asked_first(workspace: Workspace) -> None:
    run = write_lines(workspace, {1: [0, 5, 10, 15], 2: [0.1, 0, 0, 0.1], 3: [0, 1, 2, 3]})
    with open_labels(workspace.labels) as labels:
        made = ask_next(labels, run, "next", "uncertain", 2)
        shown = [labels.at(made.id, place) for place in range(made.prompts)]
    assert [one.prompt.messages[0].content for one in shown if one] == ["Question 2?", "Question 3?"]
    assert {one.text for one in shown[0].completions} == {f"Answer 2.{k}" for k in range(4)}  # type: ignore[union-attr]


def test_what_the_model_contradicts_is_asked_again(workspace: Workspace) -> None:
    with open_labels(workspace.labels) as labels:
        (label,) = labels.labels()
    by_id = dict(zip(label.shown, label.ranks or [], strict=True))
    against = [float(by_id[id_]) for id_ in sorted(by_id)]  # the higher the rank number, the higher the score
    run = write_lines(workspace, {0: against, 1: [0, 0, 0, 0]})
    with open_labels(workspace.labels) as labels:
        made = ask_next(labels, run, "again", "disagreement", 5)
        assert made.prompts == 1 and labels.at(made.id, 0).prompt.messages[0].content == "Question 0?"  # type: ignore[union-attr]
        run = write_lines(workspace, {1: [0, 0, 0, 0]})
        with pytest.raises(UserError, match="No prompt of 'mine' is worth asking"):
            ask_next(labels, run, "none", "disagreement", 5)


def test_uncertainty_and_disagreement_are_their_formulas() -> None:
    assert uncertainty([1.0, 1.0]) == pytest.approx(math.log(2))
    p = 1 / (1 + math.exp(-1.5))
    assert uncertainty([0.5, 2.0]) == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    assert uncertainty([0.0, 2_000.0]) == pytest.approx(0)
    assert disagreement([0.5, 2.0], [1, 2]) == pytest.approx(-math.log(1 - p))
    assert disagreement([1.0, 2.0, 3.0], [1, 1, 1]) == 0


def test_a_worker_scores_what_nobody_has_judged(workspace: Workspace) -> None:
    folder = write_tiny_judge(workspace.models / "judge")
    launched = runs.launch(
        workspace, "label", "scores", {"label_set": "mine", "threads": 1, "device": "cpu"}, checkpoint="judge"
    )
    found = read_scores(finish(launched))
    assert [line.place for line in found] == [1, 2, 3, 4, 5]
    with Scorer(folder) as scorer, open_labels(workspace.labels) as labels:
        again = list(scored(scorer, list(to_score(labels, labels.find_set("mine"), judged=True)), "judge"))
    assert len(again) == ASKED
    for line, other in zip(found, again[1:], strict=True):
        mine, theirs = (dict(zip(one.shown, one.scores, strict=True)) for one in (line, other))
        assert mine == pytest.approx(theirs, abs=1e-5)


def test_a_worker_goes_on_after_a_torn_line_and_what_people_judged_since(workspace: Workspace) -> None:
    write_tiny_judge(workspace.models / "judge")
    settings = {"label_set": "mine", "threads": 1, "device": "cpu"}
    run = made_run(workspace, "label", "scores", settings, checkpoint="judge")
    assert label.run(run)["prompts"] == ASKED - 1
    path = run.dir.path / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    with open_labels(workspace.labels) as labels:
        for _ in range(2):
            shown = labels.next(labels.find_set("mine").id, "ada")
            assert shown is not None
            labels.save(shown.label("rank", "ada", ranks=[1, 2, 3, 4]))
    told = label.run(Run(run.dir.path))
    assert [line.place for line in read_scores(run.dir)] == [1, 2, 3, 4, 5]
    assert told["prompts"] == ASKED - 1 and told["left_out"] == 0


def test_a_prompt_that_was_skipped_or_flagged_is_not_judged(workspace: Workspace) -> None:
    with open_labels(workspace.labels) as labels:
        chosen = labels.find_set("mine")
        shown = labels.next(chosen.id, "ada")
        assert shown is not None
        labels.save(shown.label("skip", "ada"))
        assert [one.place for one in to_score(labels, chosen, judged=False)] == [1, 2, 3, 4, 5]
