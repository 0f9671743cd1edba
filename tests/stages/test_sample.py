"""Sampling completions to judge: the same whatever interrupted it, and a label set at the end."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import msgspec
import pytest

from stages import sample
from stages.sample import chosen
from stages.store.completions import FILE, read_completions, tasks_in
from stages.store.datasets import find_dataset
from stages.store.errors import UserError
from stages.store.labels import LabelSet, open_labels
from stages.store.records import part_of
from stages.store.rundir import RunDir, find_run
from stages.store.specs.sample import Sample
from stages.store.workspace import Workspace
from tests.stages.helpers import build_small_world, copy_of, finish, made_run, pretrain, wait_until
from tests.stages.resuming import events
from workbench import runs
from workbench.cli.root import run as command
from workbench.judging.taking_in import left_out, take_in, take_in_finished
from workbench.settings import LabelSettings

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


@pytest.fixture(scope="module")
def whole(prepared: Workspace) -> RunDir:
    """A run that nothing interrupted."""
    return finish(sampled(prepared, "whole", seed=3))


def test_every_prompt_has_its_completions_from_the_checkpoints_in_turn(prepared: Workspace, whole: RunDir) -> None:
    tasks = tasks_in(whole)
    assert [len(candidates) for _, candidates in tasks] == [3] * 8
    for prompt, candidates in tasks:
        assert prompt.answer == "een"
        assert [one.checkpoint.partition("@")[0] for one in candidates] == ["one", "two", "one"]
        assert len({one.sampling["seed"] for one in candidates}) == 3
    with open_labels(prepared.labels) as labels:
        made = labels.add_set("all", "rank", tasks)
        assert made == labels.add_set("all", "rank", tasks_in(whole))


def test_a_killed_run_goes_on_to_the_same_completions(prepared: Workspace, whole: RunDir) -> None:
    run = sampled(prepared, "killed", seed=3)
    wait_until(lambda: len(read_completions(run)) >= 4, what="some completions")
    pid = run.state().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not run.alive(), what="the end")
    assert run.status() == "lost"
    before = read_completions(run)
    assert 4 <= len(before) < 24
    with (run.path / FILE).open("ab") as file:
        file.write(b'{"prompt": 1, "k"')  # as a kill within a write leaves it
    runs.start(run)
    finish(run)

    def written(run: RunDir) -> list[tuple[int, int, str]]:
        return sorted((line.prompt, line.k, line.text) for line in read_completions(run))

    assert written(run) == written(whole)
    assert len(written(whole)) == 24
    assert read_completions(run)[: len(before)] == before  # nothing was lost, nor written again
    with open_labels(prepared.labels) as labels:
        assert take_in(labels, run, LabelSettings()) == take_in(labels, run, LabelSettings())
        assert labels.prompts_of_run(run.id) == 8


def test_a_prompt_is_taken_in_when_all_its_completions_are_there(prepared: Workspace, whole: RunDir) -> None:
    """Whatever a run had written when it was taken in, in the end it is as if it had been taken in once."""
    run, path = whole, whole.path / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    with open_labels(prepared.labels) as labels:
        for count in range(0, len(lines) + 1, 5):
            path.write_bytes(b"".join(lines[:count]))
            if tasks_in(run):
                take_in(labels, run, LabelSettings())
        path.write_bytes(b"".join(lines))
        made = take_in(labels, run, LabelSettings())
        assert made.prompts == 8
        for place in range(8):
            shown = labels.at(made.id, place)
            assert shown is not None
            texts = [one.text for one in shown.completions]
            written = {line.text for line in read_completions(run) if line.asked.messages == shown.prompt.messages}
            assert len(texts) == len(set(texts)) and set(texts) == written  # equal ones once, none left out


def test_finished_runs_become_label_sets_by_themselves(prepared: Workspace, tmp_path: Path) -> None:
    home = copy_of(prepared, tmp_path)
    known: set[str] = set()
    run = finish(sampled(home, "later", k=2, slots=16))
    made = take_in_finished(home, LabelSettings(), known)
    sets = [one for one in made if isinstance(one, LabelSet)]
    assert len(sets) == len(made) and {(one.name, one.mode) for one in sets} >= {("later", "pair")}
    assert run.id in known
    assert not take_in_finished(home, LabelSettings(), set())  # all are there, whoever asks


def test_prompts_that_are_answered_alike_are_not_compared(prepared: Workspace, tmp_path: Path) -> None:
    home = copy_of(prepared, tmp_path)
    likeliest = {**SETTINGS, "k": 2, "slots": 16, "temperature": 0.0}
    alike = finish(runs.launch(home, "sample", "alike", likeliest, dataset="asked", checkpoints=["one"]))
    with open_labels(home.labels) as labels:
        with pytest.raises(UserError, match="every prompt is answered alike"):
            take_in(labels, alike, LabelSettings())
        assert take_in(labels, alike, LabelSettings(), "rate").prompts == 8
    other = finish(sampled(home, "mostly", k=2, slots=16))
    path = other.path / FILE
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    path.write_bytes(b"".join(msgspec.json.encode(line | {"text": "the same"}) + b"\n" for line in lines[:4]))
    with path.open("ab") as file:
        file.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines[4:]))
    made = [one for one in take_in_finished(home, LabelSettings(), {alike.id}) if isinstance(one, LabelSet)]
    assert {one.name: one.prompts for one in made}["mostly"] == len({line["prompt"] for line in lines[4:]})
    assert not take_in_finished(home, LabelSettings(), {alike.id})
    assert alike.state().result["alike"] == 8
    assert left_out(alike, "pair") == "8 more answered alike are left out" and left_out(alike, "rate") == ""


def test_typed_prompts_need_no_dataset(
    prepared: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(prepared.root))
    quick = ("-k", "2", "--set", "max_new_tokens=4", "--set", "template=raw", "--from", "one", "--name", "typed")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("3 gr, ähm\n\n4 gr\n".encode())))
    assert command(["sample", "--prompts", "-", "--prompt", "5 gr", *quick]) == 0
    assert "The label set typed has 3 prompts" in capsys.readouterr().out
    tasks = tasks_in(find_run(prepared, "typed"))
    assert [prompt.messages[0].content for prompt, _ in tasks] == ["5 gr", "3 gr, ähm", "4 gr"]
    assert all(prompt.part == part_of(prompt.messages) and prompt.source == "typed" for prompt, _ in tasks)
    assert all(one.sampling["digest"] for _, candidates in tasks for one in candidates)
    with pytest.raises(UserError, match="There are no prompts"):
        command(["sample", "--from", "one"])
    with pytest.raises(UserError, match="exclude each other"):
        command(["sample", "--from", "one", "--prompts", "asked", "--prompt", "x"])
    with pytest.raises(UserError, match="judged in another way"):
        command(["sample", "--prompt", "x", *quick, "--mode", "rate"])


def test_prompts_of_one_part_are_chosen_and_none_is_said(prepared: Workspace, tmp_path: Path) -> None:
    dataset = find_dataset(prepared, "asked")
    every = chosen(dataset, Sample())
    parts = {prompt.part for prompt in every}
    assert sum(len(chosen(dataset, Sample(part=part))) for part in parts) == len(every) == 8
    assert len(chosen(dataset, Sample(max_prompts=3))) == 3
    with pytest.raises(UserError, match="Prompts are taken from"):
        chosen(find_dataset(prepared, "rhymes"), Sample())


def test_a_prompt_that_does_not_fit_is_left_out_and_told(prepared: Workspace) -> None:
    """The model sees 16 tokens. It would be asked by the end of the prompt alone."""
    settings = SETTINGS | {"k": 2, "device": "cpu", "max_new_tokens": 64}
    run = made_run(prepared, "sample", "long", settings | {"prompts": ["short", "x" * 12]}, checkpoint="one")
    assert sample.run(run) == {"prompts": 2, "completions": 2, "alike": 0}
    assert [prompt.messages[0].content for prompt, _ in tasks_in(run.dir)] == ["short"]
    (warned,) = events(run.dir, "warning")
    assert "exceed the 8 tokens that fit beside a completion" in warned["message"]
    run = made_run(prepared, "sample", "longer", settings | {"prompts": ["x" * 12]}, checkpoint="one")
    with pytest.raises(UserError, match="No prompt fits"):
        sample.run(run)
