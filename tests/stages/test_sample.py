"""Sampling completions to judge: the same whatever interrupted it, and a label set at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.sample import chosen
from stages.store.completions import FILE, read_completions, tasks_in
from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.labels import open_labels
from stages.store.rundir import RunDir
from stages.store.specs.sample import Sample
from stages.store.workspace import Workspace
from tests.stages.helpers import build_small_world, finish, pretrain, wait_until
from workbench import runs

SETTINGS = {"k": 3, "max_new_tokens": 6, "template": "raw", "slots": 2}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with two models and the dataset `asked`: eight prompts."""
    folder = tmp_path_factory.mktemp("sample")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        workspace = build_small_world(folder)
        for name in ("one", "two"):
            finish(pretrain(workspace, name, seed=len(name) + ord(name[0]), sample_every=0))
        lines = "".join(f'{{"prompt": "{number} gr", "answer": "een"}}\n' for number in range(8))
        (folder / "asked.jsonl").write_text(lines)
        settings = {"sources": [str(folder / "asked.jsonl")], "kind": "prompts", "split": "none"}
        finish(runs.launch(workspace, "build", "asked", settings))
    return workspace


def sampled(workspace: Workspace, name: str, **settings: object) -> RunDir:
    return runs.launch(workspace, "sample", name, SETTINGS | settings, dataset="asked", checkpoints=["one", "two"])


def test_every_prompt_has_its_completions_from_the_checkpoints_in_turn(prepared: Workspace) -> None:
    run = finish(sampled(prepared, "all"))
    tasks = tasks_in(run)
    assert [len(candidates) for _, candidates in tasks] == [3] * 8
    for prompt, candidates in tasks:
        assert prompt.answer == "een"
        assert [one.checkpoint.partition("@")[0] for one in candidates] == ["one", "two", "one"]
        assert len({one.sampling["seed"] for one in candidates}) == 3
    with open_labels(prepared.labels) as labels:
        made = labels.add_set("all", "rank", tasks)
        assert made == labels.add_set("all", "rank", tasks_in(run))


def test_a_killed_run_goes_on_to_the_same_completions(prepared: Workspace) -> None:
    whole = finish(sampled(prepared, "whole", seed=3))
    run = sampled(prepared, "killed", seed=3)
    wait_until(lambda: len(read_completions(run)) >= 4, what="some completions")
    runs.stop(run)
    wait_until(lambda: not run.alive(), what="the end")
    with (run.path / FILE).open("ab") as file:
        file.write(b'{"prompt": 1, "k"')  # as a kill within a write leaves it
    runs.start(run)
    finish(run)

    def written(run: RunDir) -> list[tuple[int, int, str]]:
        return sorted((line.prompt, line.k, line.text) for line in read_completions(run))

    assert written(run) == written(whole)
    assert len(written(whole)) == 24


def test_prompts_of_one_part_are_chosen_and_none_is_said(prepared: Workspace, tmp_path: Path) -> None:
    dataset = find_dataset(prepared, "asked")
    every = chosen(dataset, Sample())
    parts = {prompt.part for prompt in every}
    assert sum(len(chosen(dataset, Sample(part=part))) for part in parts) == len(every) == 8
    assert len(chosen(dataset, Sample(max_prompts=3))) == 3
    with pytest.raises(UserError, match="Prompts are taken from"):
        chosen(find_dataset(prepared, "rhymes"), Sample())
