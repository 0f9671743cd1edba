"""A reward model's order of what one judges: told once one's own order is given, and never before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import pytest

from stages.store.files import append_line
from stages.store.labels import Candidate, Labels, Prompt, open_labels
from stages.store.records import Message
from stages.store.rundir import RunDir, RunSpec, create_run
from stages.store.scores import FILE, Line
from stages.store.workspace import Workspace
from tests.workbench.conftest import screen_text, settled
from tests.workbench.test_judge_screen import MakeApp, Snapshot, fill, judging, press
from workbench.judging.model_orders import ModelOrder, ModelOrders, in_words
from workbench.judging.on_the_spot import CHAT, save_judgement
from workbench.screens.rank_answers import RankAnswersScreen, Ranked

MODEL = "judge@8"


@pytest.fixture(autouse=True)
def _as_ada_in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ada")
    monkeypatch.setattr("random.SystemRandom.shuffle", lambda self, values: None)


@pytest.fixture
def labels(workspace: Workspace) -> Iterator[Labels]:
    workspace.ensure()
    with open_labels(workspace.labels) as opened:
        yield opened


def scored(
    workspace: Workspace,
    labels: Labels,
    scores: dict[int, Sequence[float]],
    name: str = "capitals",
    by: str = "judge@8",
) -> RunDir:
    """A run that has scored these places of a label set, candidates in the order of the set."""
    run = create_run(
        workspace, RunSpec(stage="label", name="scores", settings={"label_set": name}, parents={}, threads=1)
    )
    add_scores(run, labels, scores, name, by)
    return run


def add_scores(run: RunDir, labels: Labels, scores: dict[int, Sequence[float]], name: str, by: str = MODEL) -> None:
    for place, given in scores.items():
        shown = labels.at(labels.find_set(name).id, place)
        assert shown is not None
        ids = sorted(one.id for one in shown.completions)
        line = Line(place=place, shown=ids, scores=list(given), checkpoint=by)
        append_line(run.path / FILE, msgspec.json.encode(line))


def test_an_order_and_where_it_contradicts_the_person_in_words() -> None:
    order = ModelOrder("judge@8", {0: -0.2, 1: 3.0, 2: 1.0, 3: 1.0})
    assert in_words(order, [4, 1, 2, 2]) == "judge@8 ordered them 2 > 3 = 4 > 1 · nowhere against you in 5 pairs"
    assert in_words(order, [2, 1, 1, 3]) == ("judge@8 ordered them 2 > 3 = 4 > 1 · against you in 1 of 5 pairs: 4 > 1")
    assert in_words(order, [1, 4, 3, 2]).endswith("against you in 5 of 6 pairs: 2 > 1, 3 > 1, 4 > 1 and 2 more")
    assert in_words(order, [1, 1, 1, 1]) == "judge@8 ordered them 2 > 3 = 4 > 1"
    assert in_words(ModelOrder("j", {1: 0.0, 2: 1.0}), [1, 2, 3]).endswith("3 > 2 · against you in 1 of 1 pair: 3 > 2")


def test_the_newest_run_with_scores_of_the_prompt_is_asked(workspace: Workspace, labels: Labels) -> None:
    set_id = fill(labels)
    first, second = labels.next(set_id, "ada"), labels.at(set_id, 1)
    assert first is not None and second is not None
    label = labels.save(first.label("rank", "ada", ranks=[1, 2, 3, 4]))
    orders = ModelOrders(workspace, "capitals")
    assert orders.of(label) is None
    run = scored(workspace, labels, {1: [1, 2, 3, 4]})
    scored(workspace, labels, {0: [0, 0, 0, 9]}, by="later@1").path.rename(run.path.with_name("zz"))
    create_run(workspace, RunSpec(stage="label", name="o", settings={"label_set": "others"}, parents={}, threads=1))
    (workspace.runs / "damaged").mkdir()
    (workspace.runs / "damaged" / "spec.json").write_text("{")
    found = orders.of(label)
    assert found is not None and found.checkpoint == "later@1" and dict(found.scores)[3] == 9
    add_scores(run, labels, {0: [5, 6, 7, 8]}, "capitals")  # an older run, that has gone on
    assert orders.of(label) == found
    (workspace.runs / "zz" / FILE).unlink()
    assert orders.told(label).startswith("judge@8 ordered them 4 > 3 > 2 > 1 · against you in 6 of 6 pairs")
    skipped = labels.save(second.label("skip", "ada"))
    assert orders.told(skipped) == "" and orders.of(skipped) is not None


async def test_while_one_judges_it_stands_there_only_once_the_own_order_is_given(
    workspace: Workspace, labels: Labels, make_app: MakeApp
) -> None:
    fill(labels)
    scored(workspace, labels, {place: [0.5, 2.0, 1.0, -1.0] for place in range(5)})
    async with make_app().run_test(size=(120, 40)) as pilot:
        await judging(pilot)
        await press(pilot, "1", "2")
        assert "judge@8" not in screen_text(pilot.app)
        await press(pilot, "3", "4", "enter")
        assert "judge@8 ordered them 2 > 3 > 1 > 4 · against you in 2 of 6 pairs: 2 > 1, 3 > 1" in screen_text(
            pilot.app
        )
        await press(pilot, "u")
        assert "judge@8" not in screen_text(pilot.app)
        await press(pilot, "enter", "s", "enter")
        assert "judge@8" not in screen_text(pilot.app)  # a skip is no order


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_it_looks_like_this(
    workspace: Workspace, labels: Labels, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]
) -> None:
    fill(labels)
    scored(workspace, labels, {0: [0.5, 2.0, 1.0, -1.0]})
    async with make_app().run_test(size=size) as pilot:
        screen = await judging(pilot)
        await press(pilot, *"1234", "enter")
        assert screen.session is not None
        screen.session.saved_at = None  # the time of day
        screen._show_order()
        await snapshot(pilot, f"judge-by-model-{size[0]}x{size[1]}")


async def test_hostile_names_are_shown_unharmed(workspace: Workspace, labels: Labels, make_app: MakeApp) -> None:
    fill(labels)
    scored(workspace, labels, {0: [0.5, 2.0, 1.0, -1.0]}, by="[red]x[/]\x1b[31m\n\u202eevil")
    async with make_app().run_test(size=(120, 40)) as pilot:
        await judging(pilot)
        await press(pilot, *"1234", "enter")
        text = screen_text(pilot.app)
        assert "[red]x[/]" in text and "ordered them 2 > 3" in text and not {"\x1b", "\u202e"} & set(text)


async def test_answers_ranked_in_a_chat_are_compared_with_a_model_that_has_scored_them(
    workspace: Workspace, labels: Labels, make_app: MakeApp
) -> None:
    prompt = Prompt(messages=[Message("user", "Capital?")], part="eval")
    shown = [Candidate(run="chat", k=k, text=text, checkpoint="base@1") for k, text in enumerate(("Rome.", "Oslo."))]
    save_judgement(workspace, "ada", CHAT, "rank", prompt, shown, ranks=[2, 1])
    scored(workspace, labels, {0: [0.0, 1.0]}, name=CHAT)
    ranked: list[Ranked] = []
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.app.push_screen(RankAnswersScreen(prompt, shown, ranked.append))
        await settled(pilot)
        await press(pilot, "1")
        assert "judge@8" not in screen_text(pilot.app)
        await press(pilot, "enter")
    assert str(ranked[0]).endswith("judge@8 ordered them 2 > 1 · against you in 1 of 1 pair: 2 > 1")
