"""What was made from what: the tree in the app and by command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.store.checkpoints import list_checkpoints
from stages.store.errors import UserError
from stages.store.labels import Candidate, Prompt, open_labels
from stages.store.records import Message
from stages.store.rundir import Parent, find_run
from stages.store.workspace import Workspace
from tests.workbench.conftest import add_dataset, add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.cli.root import run as command
from workbench.models.lineage_tree import lineage_tree, matching, rows
from workbench.screens.lineage import LineageList, LineageScreen
from workbench.screens.run import RunScreen


@pytest.fixture
def grown(populated: Workspace) -> Workspace:
    """A tuned model, and answers of it to judge, below the model that was there."""
    model = find_run(populated, "world-tiny")
    (checkpoint,) = list_checkpoints(model)
    parents = {"checkpoint": Parent(str(checkpoint.path), checkpoint.digest())}
    chat = Parent("notes", "d2" * 32)
    add_run(populated, "sft", "chatty", parents={**parents, "dataset": chat}, created=1_796_000_000.0)
    add_run(populated, "sample", "answers", parents=parents, created=1_796_000_100.0)
    with open_labels(populated.labels) as labels:
        labels.add_set("answers", "rank", [])
    return populated


def drawn(workspace: Workspace, *words: str) -> list[str]:
    tree = lineage_tree(workspace)
    return [f"{before}{node.kind} {node.name}" for before, node in rows(matching(tree, list(words)) if words else tree)]


def test_each_stands_below_what_it_goes_on_from(grown: Workspace) -> None:
    assert drawn(grown) == [
        "├ dataset notes",
        "└ dataset world",
        "  ├ tokenizer world-bpe",
        "  ├ run too-hot",
        "  ├ run cut-off",
        "  └ run world-tiny",
        "    └ checkpoint world-tiny@2000",
        "      ├ run chatty",
        "      └ run answers",
        "        └ labels answers",
    ]
    assert drawn(grown, "chatty") == [
        "└ dataset world",
        "  └ run world-tiny",
        "    └ checkpoint world-tiny@2000",
        "      └ run chatty",
    ]
    chatty = next(node for _, node in rows(lineage_tree(grown)) if node.name == "chatty")
    assert chatty.note == "sft, on notes"


def test_a_label_set_has_a_digest_that_changes_with_each_label(grown: Workspace) -> None:
    def digest() -> str:
        return next(node.digest for _, node in rows(lineage_tree(grown)) if node.kind == "labels")

    prompt = Prompt(messages=[Message("user", "Why?")], part="reward")
    candidates = [Candidate(run="r", k=k, text=f"Because of {k}.") for k in range(2)]
    found = [digest()]
    with open_labels(grown.labels) as labels:
        chosen = labels.add_set("answers", "rank", [(prompt, candidates)])
        found.append(digest())
        shown = labels.at(chosen.id, 0)
        labels.save(shown.label("rank", "ada", ranks=[1, 2]))
    found.append(digest())
    assert len(set(found)) == 3 and all(len(one) == 64 for one in found)
    assert digest() == found[-1]


def test_a_dataset_of_labels_stands_below_their_set(grown: Workspace) -> None:
    add_dataset(grown, "liked", digest="1a" * 32, kind="preference", settings={"label_sets": ["answers"]})
    add_dataset(grown, "of-a-set-that-is-gone", digest="1b" * 32, settings={"label_sets": ["gone"]})
    below = ["      └ run answers", "        └ labels answers", "          └ dataset liked"]
    assert drawn(grown, "liked")[-3:] == below
    assert drawn(grown, "gone") == ["└ dataset of-a-set-that-is-gone"]


def test_a_set_that_was_sampled_anew_from_what_it_taught_is_no_ring(grown: Workspace) -> None:
    """A set is known by its name, which a later run may bear too."""
    add_dataset(grown, "liked", digest="1a" * 32, kind="preference", settings={"label_sets": ["answers"]})
    parent = {"dataset": Parent("liked", "1a" * 32)}
    add_run(grown, "sample", "answers", parents=parent, created=1_796_000_900.0)
    assert drawn(grown, "liked") == ["└ dataset liked", "  └ run answers", "    └ labels answers"]


def test_a_run_whose_parents_are_gone_stands_for_itself(workspace: Workspace, tmp_path: Path) -> None:
    add_run(workspace, "sft", "orphan", parents={"checkpoint": Parent(str(tmp_path), "e" * 64)})
    assert drawn(workspace) == ["└ run orphan"]


def test_the_command_prints_it(
    grown: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(grown.root))
    assert command(["lineage", "chatty"]) == 0
    assert "      └ run chatty  sft, on notes\n" in capsys.readouterr().out
    assert command(["lineage", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert [node["name"] for node in tree] == ["notes", "world"]
    assert len(tree[1]["children"][0]["digest"]) == 64
    for options in ([], ["--json"]):
        with pytest.raises(UserError, match=r"Nothing here matches 'chaty'\. Did you mean 'chatty'\?") as caught:
            command(["lineage", "chaty", *options])
        assert caught.value.exit_code == 2 and not capsys.readouterr().out


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_the_screen_filters_and_leads_on(
    grown: Workspace, make_app: Callable[..., WorkbenchApp], size: tuple[int, int]
) -> None:
    async with make_app().run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press("L")
        await wait_for(
            pilot, lambda: isinstance(pilot.app.screen, LineageScreen) and "chatty" in screen_text(pilot.app)
        )
        assert "d2d2d2d2" in screen_text(pilot.app)
        await pilot.press("slash", *"chatty", "enter")
        await wait_for(pilot, lambda: len(pilot.app.screen.query_one(LineageList).options) == 4)
        await pilot.press("G", "enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        assert "chatty" in screen_text(pilot.app)


async def test_a_run_is_done_again_and_a_card_is_written_from_its_line(
    grown: Workspace, make_app: Callable[..., WorkbenchApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(WorkbenchApp, "start_run", lambda app, stage, values=None: started.append(stage))
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("L")
        await wait_for(pilot, lambda: "world-tiny@" in screen_text(app))
        await pilot.press("g", "T", "m")
        await settled(pilot)
        assert not started and isinstance(app.screen, LineageScreen), "the first line is a dataset"
        kinds = [node.kind for node in app.screen._shown]
        app.screen.query_one(LineageList).highlighted = kinds.index("checkpoint")
        await pilot.press("m")
        await wait_for(pilot, lambda: "model card of" in screen_text(app))
        cards = list((grown.root / "cards").glob("world-tiny*/README.md"))
        assert len(cards) == 1 and "world-tiny" in cards[0].read_text()
        await pilot.press("escape", "T")
        await wait_for(pilot, lambda: started == ["pretrain"])


async def test_a_checkpoint_is_deleted_after_a_question_and_taken_back(
    populated: Workspace, make_app: Callable[..., WorkbenchApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(populated.root))
    run = find_run(populated, "world-tiny")
    app = make_app()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("L")
        await wait_for(pilot, lambda: "checkpoint world-tiny@2000" in screen_text(app))
        await pilot.press("d")  # the cursor is on a dataset
        await wait_for(pilot, lambda: "go to a line of one" in screen_text(app))
        listed = app.screen.query_one(LineageList)
        while "world-tiny@2000" not in str(listed.get_option_at_index(listed.highlighted or 0).prompt):
            await pilot.press("down")
        await pilot.press("d")
        await wait_for(pilot, lambda: "Delete the checkpoint world-tiny@2000?" in screen_text(app))
        assert "only checkpoint" in screen_text(app)
        await pilot.press("n")
        await settled(pilot)
        assert len(list_checkpoints(run)) == 1
        await pilot.press("d")
        await wait_for(pilot, lambda: "Delete the checkpoint world-tiny@2000?" in screen_text(app))
        await pilot.press("y")
        await wait_for(pilot, lambda: "checkpoint world-tiny@2000" not in screen_text(app))
    assert list_checkpoints(run) == []
    assert command(["bin", "restore", "world-tiny@2000"]) == 0
    assert len(list_checkpoints(run)) == 1


def test_by_command_one_checkpoint_is_named_as_everywhere(
    populated: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(populated.root))
    assert command(["runs", "delete", "world-tiny@2000", "--yes"]) == 0
    assert "Deleted the checkpoint world-tiny@2000" in capsys.readouterr().out
    run = find_run(populated, "world-tiny")
    assert list_checkpoints(run) == [] and run.path.is_dir()
    with pytest.raises(UserError, match="no checkpoint at step 7"):
        command(["runs", "delete", "world-tiny@7", "--yes"])
