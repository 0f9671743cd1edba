"""Judging with keys: what is pressed is what is stored, and nothing is lost on the way."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Markdown

from stages.store.labels import Candidate as Given
from stages.store.labels import Label, Labels, Prompt, open_labels
from stages.store.labels.records import Mode
from stages.store.records import Message
from stages.store.workspace import Workspace
from tests.workbench.conftest import add_dataset, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.screens.judge import JudgeScreen
from workbench.screens.rank import RankScreen
from workbench.widgets.candidate import Candidate, marked
from workbench.widgets.form import SpecForm
from workbench.widgets.prompt import Prompt as Field

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[Any], str], Awaitable[None]]

TEXTS = ("Paris.", "The capital of France is Paris.", "Lyon, I think.", "It is **Paris**, a city\non the river Seine.")


@pytest.fixture(autouse=True)
def _annotator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ada")


@pytest.fixture(autouse=True)
def _in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show candidates unshuffled, so that a test knows what a digit means."""
    monkeypatch.setattr("random.SystemRandom.shuffle", lambda self, values: None)


@pytest.fixture
def labels(workspace: Workspace) -> Iterator[Labels]:
    workspace.ensure()
    with open_labels(workspace.labels) as opened:
        yield opened


def fill(labels: Labels, mode: Mode = "rank", prompts: int = 6, texts: tuple[str, ...] = TEXTS) -> int:
    tasks = [
        (
            Prompt(messages=[Message("user", f"What is the capital of France? ({number})")], part="reward"),
            [Given(run="r", k=k, text=text, checkpoint=f"model-{k}@1") for k, text in enumerate(texts)],
        )
        for number in range(prompts)
    ]
    return labels.add_set("capitals", mode, tasks).id


async def judging(pilot: Pilot[Any]) -> JudgeScreen:
    """From Home to the first prompt of the set."""
    await pilot.press("K")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, RankScreen) and "capitals" in screen_text(pilot.app))
    await pilot.press("enter")
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, JudgeScreen) and pilot.app.screen.session is not None)
    await settled(pilot)
    screen = pilot.app.screen
    assert isinstance(screen, JudgeScreen)
    return screen


async def press(pilot: Pilot[Any], *keys: str) -> None:
    await pilot.press(*keys)
    await settled(pilot)


def stored(labels: Labels) -> list[Label]:
    return labels.labels()


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_the_screen(labels: Labels, make_app: MakeApp, snapshot: Snapshot, size: tuple[int, int]) -> None:
    fill(labels)
    async with make_app().run_test(size=size) as pilot:
        await judging(pilot)
        await press(pilot, "2", "equals_sign", "4", "1")
        await snapshot(pilot, f"judge-{size[0]}x{size[1]}")


async def test_nine_candidates_keep_lines_to_read_in_and_scroll(labels: Labels, make_app: MakeApp) -> None:
    fill(labels, texts=tuple(f"one{n}\ntwo{n}\nthree{n}" for n in range(9)))
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await judging(pilot)
        assert all(text in screen_text(pilot.app) for text in ("one0", "two0", "three0"))
        assert "one8" not in screen_text(pilot.app)
        await press(pilot, "h")
        assert screen.contenders.cursor == 8
        assert all(text in screen_text(pilot.app) for text in ("one8", "two8", "three8"))
        await press(pilot, "9", "enter")
    assert stored(labels)[0].ranks == [2] * 8 + [1]


async def test_five_keys_rank_four_candidates(labels: Labels, make_app: MakeApp) -> None:
    fill(labels)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await judging(pilot)
        await press(pilot, *"4213", "enter")
        (label,) = stored(labels)
        assert (label.kind, label.ranks, label.annotator) == ("rank", [3, 2, 4, 1], "ada")
        assert "1 of 6" in screen_text(pilot.app)
        assert "model-3@1" in screen_text(pilot.app)  # who wrote what is told only now


async def test_nothing_tells_who_wrote_what_before_the_judgement(labels: Labels, make_app: MakeApp) -> None:
    fill(labels)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await judging(pilot)
        assert "model" not in screen_text(pilot.app)


async def test_keys_typed_ahead_act_on_the_prompts_they_were_typed_for(labels: Labels, make_app: MakeApp) -> None:
    fill(labels)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await judging(pilot)
        await press(pilot, *"1234", "enter", *"4321", "enter", "2", "equals_sign", "3", "enter", "space", "x")
        assert [label.ranks for label in stored(labels)] == [
            [1, 2, 3, 4],
            [4, 3, 2, 1],
            [2, 1, 1, 2],
            [1, 2, 2, 2],
            [1, 1, 1, 1],
        ]
        assert stored(labels)[-1].verdict == "all bad"


async def test_why_a_key_did_nothing_stands_in_the_line_of_the_order_and_covers_nothing(
    labels: Labels, make_app: MakeApp
) -> None:
    fill(labels)
    async with make_app().run_test(size=(120, 40), notifications=True) as pilot:
        screen = await judging(pilot)
        await pilot.press("enter")
        await wait_for(pilot, lambda: "Put at least the best in its place" in screen_text(pilot.app))
        await pilot.press("9")
        await wait_for(pilot, lambda: "There are 4 candidates." in screen_text(pilot.app))
        await pilot.press("1")
        await wait_for(pilot, lambda: "what is left comes last" in screen_text(pilot.app))
        assert not screen.app._notifications


async def test_undo_steps_back_and_restores_what_was_said(labels: Labels, make_app: MakeApp) -> None:
    fill(labels, prompts=8)
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await judging(pilot)
        for number in range(8):
            await press(pilot, *("1234" if number % 2 else "4321"), "enter")
        before = stored(labels)
        assert len(before) == 8
        for number in reversed(range(8)):
            await press(pilot, "u")
            assert screen.session is not None and screen.session.shown is not None
            assert screen.session.shown.place == number
            assert screen.order.ranks() == before[number].ranks
        assert stored(labels) == []
        assert len(labels.labels(history=True)) == 16
        await press(pilot, "enter")  # as it was
        (again,) = stored(labels)
        assert (again.prompt_id, again.ranks, again.shown) == (before[0].prompt_id, before[0].ranks, before[0].shown)


async def test_resizing_in_the_middle_changes_nothing(labels: Labels, make_app: MakeApp) -> None:
    fill(labels)
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await judging(pilot)
        await press(pilot, "3", "equals_sign", "1")
        for size in ((80, 24), (40, 12), (120, 40)):
            await pilot.resize_terminal(*size)
            await settled(pilot)
        assert str(screen.order) == "3 = 1"
        await press(pilot, "enter")
        assert stored(labels)[0].ranks == [1, 2, 1, 2]


async def test_a_skip_takes_a_reason_and_a_note_goes_with_the_label(labels: Labels, make_app: MakeApp) -> None:
    fill(labels)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await judging(pilot)
        await press(pilot, "s", *"unclear", "enter")
        await press(pilot, "n", *"hard", "enter")
        await press(pilot, "1", "enter")
        skip, ranking = stored(labels)
        assert (skip.kind, skip.verdict, skip.ranks) == ("skip", "unclear", None)
        assert (ranking.kind, ranking.note) == ("rank", "hard")


async def test_a_flag_names_the_candidate_and_the_prompt_stays(labels: Labels, make_app: MakeApp) -> None:
    fill(labels)
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await judging(pilot)
        await press(pilot, "l", "l", "f", "2", "3", "enter")
        await wait_for(pilot, lambda: stored(labels))
        (flag,) = stored(labels)
        assert screen.session is not None and screen.session.shown is not None
        assert (flag.kind, flag.verdict) == ("flag", "not honest, harmful")
        assert flag.completion == screen.session.shown.completions[2].id
        assert screen.session.shown.place == 0


async def test_a_better_answer_is_the_best_of_its_ranking(labels: Labels, make_app: MakeApp) -> None:
    fill(labels, prompts=1)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await judging(pilot)
        await press(pilot, "e", "ctrl+u", *"Better", "enter")
        await wait_for(pilot, lambda: len(stored(labels)) == 2)
        ranking, written = stored(labels)
        assert (ranking.ranks, written.kind) == ([1, 2, 2, 2, 2], "write")
        assert labels.completions([ranking.shown[0]])[0].author == "ada"


async def test_an_answer_that_a_candidate_gives_already_is_not_stored_as_a_better_one(
    labels: Labels, make_app: MakeApp
) -> None:
    fill(labels, prompts=1)
    async with make_app().run_test(size=(80, 24), notifications=True) as pilot:
        screen = await judging(pilot)
        await press(pilot, "e", "enter")
        await wait_for(pilot, lambda: "It is what 1 says" in screen_text(pilot.app))
        assert stored(labels) == [] and screen.session is not None and screen.session.shown is not None


async def test_ratings_are_kept_as_scores_and_as_ranks(labels: Labels, make_app: MakeApp) -> None:
    fill(labels, "rate")
    async with make_app().run_test(size=(120, 40)) as pilot:
        await judging(pilot)
        await press(pilot, *"571", "enter")
        assert stored(labels) == []  # the fourth has none yet
        await press(pilot, "5", "enter")
        (label,) = stored(labels)
        assert (label.kind, label.scores, label.ranks) == ("rate", [5, 7, 1, 5], [2, 1, 3, 2])


async def test_pairs_are_saved_with_one_key(labels: Labels, make_app: MakeApp) -> None:
    fill(labels, "pair", texts=TEXTS[:2])
    async with make_app().run_test(size=(120, 40)) as pilot:
        await judging(pilot)
        await press(pilot, *"abtx")
        assert [(one.kind, one.ranks) for one in stored(labels)] == [
            ("pair", [1, 2]),
            ("pair", [2, 1]),
            ("pair", [1, 1]),
            ("pair", [1, 1]),
        ]


async def test_answers_are_written_where_there_is_nothing_to_compare(labels: Labels, make_app: MakeApp) -> None:
    fill(labels, "write", prompts=2, texts=())
    async with make_app().run_test(size=(120, 40)) as pilot:
        await judging(pilot)
        await press(pilot, *"Paris", "ctrl+o", *"of course", "enter")
        await wait_for(pilot, lambda: stored(labels))
        (label,) = stored(labels)
        assert label.kind == "write" and label.completion is not None
        assert labels.completions([label.completion])[0].text == "Paris\nof course"


async def test_one_goes_to_a_prompt_by_number_and_judging_it_again_supersedes(
    labels: Labels, make_app: MakeApp
) -> None:
    fill(labels)
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await judging(pilot)
        await press(pilot, *"1234", "enter")
        await press(pilot, "g", "ctrl+u", "1", "enter")
        await wait_for(pilot, lambda: screen.session and screen.session.shown and screen.session.shown.place == 0)
        await settled(pilot)
        assert screen.order.ranks() == [1, 2, 3, 4]
        await press(pilot, *(["backspace"] * 4), *"4321", "enter")
        assert [one.ranks for one in stored(labels)] == [[4, 3, 2, 1]]
        assert len(labels.labels(history=True)) == 2


async def test_markdown_and_differences_are_shown_on_request(labels: Labels, make_app: MakeApp) -> None:
    fill(labels)
    async with make_app().run_test(size=(160, 40)) as pilot:
        screen = await judging(pilot)
        await press(pilot, "m")
        assert len(screen.query(Markdown)) == 4
        await press(pilot, "m", "d")
        assert not screen.query(Markdown)
        second = list(screen.query(Candidate))[1]
        assert ("The capital of France is ", True) in marked(second.completion.text, TEXTS[0])


async def test_when_the_file_cannot_be_written_the_screen_says_so_and_keeps_the_order(
    labels: Labels, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(labels)
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await judging(pilot)
        monkeypatch.setattr("stages.store.labels.trouble.PATIENCE", 0.1)
        assert screen.session is not None
        screen.session.labels._db.execute("PRAGMA busy_timeout = 50")
        blocker = sqlite3.connect(labels.path)
        blocker.execute("BEGIN EXCLUSIVE")
        await press(pilot, *"1234", "enter")
        await wait_for(pilot, lambda: "busy" in screen_text(pilot.app))
        assert screen.order.ranks() == [1, 2, 3, 4]
        blocker.rollback()
        await press(pilot, "enter")
        assert [one.ranks for one in stored(labels)] == [[1, 2, 3, 4]]


@contextlib.contextmanager
def full_disk(size: int = 16_384) -> Iterator[None]:
    """No file may grow beyond `size` bytes: to SQLite, a disk that takes no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_what_the_disk_does_not_take_stays_on_the_screen_until_it_does(
    labels: Labels, make_app: MakeApp, workspace: Workspace
) -> None:
    fill(labels, prompts=40)
    async with make_app().run_test(size=(120, 40), notifications=True) as pilot:
        screen = await judging(pilot)
        await press(pilot, *"2134", "enter", "n", *"hard", "enter", "3", "equals_sign", "1")
        with full_disk():
            await press(pilot, "enter")
            await wait_for(pilot, lambda: "cannot be read or written: disk I/O error" in screen_text(pilot.app))
            assert (str(screen.order), screen.note) == ("3 = 1", "hard")
            await press(pilot, "e", "ctrl+u", *"Mine", "enter")
            await wait_for(pilot, lambda: screen._unsaved == "Mine")
            assert str(screen.order) == "3 = 1"
        assert len(stored(labels)) == 1
        await press(pilot, "enter")
        assert [(one.ranks, one.note) for one in stored(labels)] == [([2, 1, 3, 4], ""), ([1, 2, 1, 2], "hard")]
        with full_disk():
            await press(pilot, "escape")
            await wait_for(pilot, lambda: "labels-backups" in screen_text(pilot.app))
        await settled(pilot)
        assert isinstance(pilot.app.screen, RankScreen)
    assert not list(workspace.root.glob("labels-backups/*"))


async def test_a_file_that_is_damaged_while_one_judges_is_told_and_the_order_stays(
    labels: Labels, make_app: MakeApp, workspace: Workspace
) -> None:
    fill(labels, prompts=40)
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await judging(pilot)
        await press(pilot, *"24")
        data = bytearray(workspace.labels.read_bytes())
        data[27] ^= 1  # the count of changes, so that nothing read before is trusted
        data[4096:] = bytes(len(data) - 4096)
        workspace.labels.write_bytes(data)
        await press(pilot, "enter")
        await wait_for(pilot, lambda: "is damaged" in screen_text(pilot.app))
        assert str(screen.order) == "2 > 4"
        await press(pilot, "u", "g", "ctrl+u", "2", "enter")
        assert isinstance(pilot.app.screen, JudgeScreen)


async def test_leaving_makes_a_backup_and_frees_the_prompt(
    labels: Labels, make_app: MakeApp, workspace: Workspace
) -> None:
    set_id = fill(labels, prompts=1)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await judging(pilot)
        assert labels.next(set_id, "ben") is None
        await press(pilot, "escape")
        await wait_for(pilot, lambda: list(Path(workspace.root).glob("labels-backups/*.db")))
        assert labels.next(set_id, "ben") is not None


async def test_an_editor_that_cannot_be_shown_leaves_the_text_and_the_app(labels: Labels, make_app: MakeApp) -> None:
    fill(labels, prompts=1)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await judging(pilot)
        await press(pilot, "e", *"ab", "f4")  # a test's terminal cannot set the app aside
        assert pilot.app.screen.query_one(Field).text.endswith("ab")


def in_conflict(labels: Labels, places: tuple[int, ...] = (0, 2)) -> int:
    """Two people who agree but at some places; the id of their set."""
    fill(labels, prompts=4)
    set_id = labels.find_set("capitals").id
    for place in range(4):
        for annotator in ("ben", "eve"):
            shown = labels.at(set_id, place)
            assert shown is not None
            contrary = annotator == "eve" and place in places
            labels.save(shown.label("rank", annotator, ranks=[4, 3, 2, 1] if contrary else [1, 2, 3, 4]))
    return set_id


async def test_disagreements_are_settled_from_their_list(labels: Labels, make_app: MakeApp) -> None:
    set_id = in_conflict(labels)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.press("K")
        await wait_for(pilot, lambda: "2 disagreements to settle" in screen_text(pilot.app))
        await press(pilot, "c")
        await wait_for(pilot, lambda: "prompt 3: ben and eve" in screen_text(pilot.app))
        await press(pilot, "enter")
        await wait_for(pilot, lambda: "2 to settle" in screen_text(pilot.app))
        await press(pilot, *"2134", "enter")
        screen = pilot.app.screen
        assert isinstance(screen, JudgeScreen) and screen.session is not None and screen.session.shown is not None
        assert screen.session.shown.place == 2
        await press(pilot, "u")
        assert screen.session.shown.place == 0
        assert screen.order.ranks() == [2, 1, 3, 4]
        await press(pilot, "enter", *"1243", "enter")
        await wait_for(pilot, lambda: "Nobody disagrees" in screen_text(pilot.app))
        await press(pilot, "escape")
        await wait_for(pilot, lambda: "0 disagreements to settle, 2 settled" in screen_text(pilot.app))
    mine = [one for one in stored(labels) if one.annotator == "ada"]
    assert [(one.place, one.ranks) for one in mine] == [(0, [2, 1, 3, 4]), (2, [1, 2, 4, 3])]
    given = {place: [one.id for one in stored(labels) if one.place == place] for place in (0, 2)}
    assert [one.settles for one in mine] == [given[0][:2], given[2][:2]]
    assert labels.count(set_id, "ada") == 2


async def test_the_sheet_shows_progress_and_agreement_with_intervals(
    labels: Labels, make_app: MakeApp, snapshot: Snapshot
) -> None:
    in_conflict(labels)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.press("K")
        await wait_for(pilot, lambda: "to settle" in screen_text(pilot.app))
        await snapshot(pilot, "rank-sheet-120x40")
        await pilot.resize_terminal(80, 24)
        await snapshot(pilot, "rank-sheet-80x24")


async def test_the_name_of_a_new_set_follows_the_dataset_until_one_types_another(
    labels: Labels, make_app: MakeApp, workspace: Workspace
) -> None:
    fill(labels)
    for name in ("capitals", "rivers"):
        add_dataset(workspace, name, kind="preference")
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.press("K")
        await wait_for(pilot, lambda: "capitals" in screen_text(pilot.app))
        await press(pilot, "n")
        rows = pilot.app.screen.query_one(SpecForm).rows
        names = {"capitals": "capitals-2", "rivers": "rivers"}  # there is a set capitals already
        assert rows["name"].text == names[rows["dataset"].text]
        rows["dataset"].text = "rivers" if rows["dataset"].text == "capitals" else "capitals"
        await settled(pilot)
        assert rows["name"].text == names[rows["dataset"].text]
        rows["name"].text = "mine"
        rows["dataset"].text = "rivers" if rows["dataset"].text == "capitals" else "capitals"
        await settled(pilot)
        assert rows["name"].text == "mine"


async def test_a_better_answer_stands_above_the_order_that_was_given_and_one_step_takes_it_back(
    labels: Labels, make_app: MakeApp
) -> None:
    fill(labels, prompts=2)
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await judging(pilot)
        await press(pilot, *"31", "e", "ctrl+u", *"Better", "enter")
        await wait_for(pilot, lambda: len(stored(labels)) == 2)
        assert stored(labels)[0].ranks == [1, 3, 4, 2, 4]
        await settled(pilot)
        await press(pilot, "u")
        assert stored(labels) == []
        assert screen.order.ranks() == [2, 3, 1, 3]


async def test_taking_a_second_judgement_back_leaves_the_first(labels: Labels, make_app: MakeApp) -> None:
    fill(labels)
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await judging(pilot)
        await press(pilot, *"1234", "enter", "g", "ctrl+u", "1", "enter")
        await wait_for(pilot, lambda: screen.session and screen.session.shown and screen.session.shown.place == 0)
        await settled(pilot)
        await press(pilot, *(["backspace"] * 4), *"4321", "enter", "u")
        (first,) = stored(labels)
        assert first.ranks == [1, 2, 3, 4]
        assert screen.order.ranks() == [4, 3, 2, 1]
        await press(pilot, "enter")
        assert [one.ranks for one in stored(labels)] == [[4, 3, 2, 1]]


async def test_a_rating_is_for_the_candidate_under_the_cursor(labels: Labels, make_app: MakeApp) -> None:
    fill(labels, "rate")
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await judging(pilot)
        await press(pilot, *"12", "backspace", "5", *"34", "l", "7")
        assert screen.ratings.scores == [7, 5, 3, 4]


async def test_g_goes_to_a_prompt_from_within_a_long_text(labels: Labels, make_app: MakeApp) -> None:
    fill(labels, texts=("word " * 2_000, "b", "c", "d"))
    async with make_app().run_test(size=(120, 40)) as pilot:
        screen = await judging(pilot)
        await press(pilot, "j", "j", "g", "ctrl+u", "3", "enter")
        await wait_for(pilot, lambda: screen.session and screen.session.shown and screen.session.shown.place == 2)


async def test_what_is_typed_while_an_answer_is_saved_begins_the_next(labels: Labels, make_app: MakeApp) -> None:
    fill(labels, "write", prompts=3, texts=())
    async with make_app().run_test(size=(120, 40)) as pilot:
        await judging(pilot)
        await pilot.press(*"one", "enter")
        for key in (*"two", "enter"):  # at once, while the first is on its way to the disk
            pilot.app.simulate_key(key)
        await wait_for(pilot, lambda: len(stored(labels)) == 2)
        ids = [one.completion for one in stored(labels) if one.completion is not None]
        assert [one.text for one in labels.completions(ids)] == ["one", "two"]
        await settled(pilot)
