"""What a model of the starter world makes of its prompt: examples teach a base model, passages a tuned one.

By commands, as people would: examples in the prompt against none, and questions about facts that were written after
training, without and with a folder of them to look in.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stages.asking.retrieval import find
from stages.data.conversations import Masker
from stages.data.world import is_correct
from stages.data.world import lexicon as lx
from stages.desk import Job
from stages.generate import Sampling, generate
from stages.models.opening import open_decoder
from stages.store.checkpoints import resolve_checkpoint
from stages.store.evaluations import read_evaluation
from stages.store.records import Message
from stages.store.rundir import find_run
from stages.store.specs.retrieval import Retrieval
from stages.store.statistics import share
from stages.store.workspace import Workspace
from tests.e2e.terminal import environment, workbench
from workbench.talking.grounding import framed

pytestmark = pytest.mark.bench

RELATIONS = ("young", "sound", "home")
TASK = """\
Question: Go on with the list.
{% for example in examples %}
{{ example.question }}: {{ example.answer }}
{% endfor %}
{{ item.question }}:
Answer:"""
"""The world's own way of asking for a list to be gone on with, with as many examples as wanted."""
DRAWS = 3
"""Draws of examples for every question."""
GAIN, RIGHT = 0.10, 0.80
"""What four examples must gain over none, and the least share that is right with retrieval."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the base model `tiny` and the tuned one, `tuned`: about twenty minutes on a core of its own.

    WORLD_PRETRAIN_STEPS and WORLD_SFT_EPOCHS choose other lengths; WORLD_HOME names a workspace that has both already.
    """
    if given := os.environ.get("WORLD_HOME"):
        return Path(given)
    folder = tmp_path_factory.mktemp("world")
    steps, epochs = os.environ.get("WORLD_PRETRAIN_STEPS", "2000"), os.environ.get("WORLD_SFT_EPOCHS", "3")
    run(folder, "data", "build", "starter:world", "--name", "world")
    run(folder, "data", "build", "starter:world-chat", "--name", "world-chat")
    run(folder, "tokenizer", "train", "--data", "world", "--type", "bpe", "--vocab-size", "512", "--name", "world-bpe")
    run(folder, "train", "pretrain", "--data", "world", "--tokenizer", "world-bpe", "--name", "tiny",
        "--set", f"steps={steps}")  # fmt: skip
    run(
        folder, "train", "sft", "--data", "world-chat", "--from", "tiny", "--name", "tuned", "--set", f"epochs={epochs}"
    )
    return Path(environment(folder)["WORKBENCH_HOME"])


def run(folder: Path, *arguments: str, **variables: str) -> None:
    known = os.environ | environment(folder) | variables
    del known["OMP_NUM_THREADS"]
    done = subprocess.run(workbench(*arguments), cwd=folder, env=known, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_four_examples_gain_ten_points_over_none(home: Path, tmp_path: Path) -> None:
    """Each animal's three words in every order, one of them meant: which, only the examples say."""
    rows = [
        {"task": "choice", "texts": [animal, *order], "label": order.index(words[place]), "meta": {"task": relation}}
        for place, relation in enumerate(RELATIONS)
        for animal, words in lx.ANIMAL_FACTS.items()
        for order in itertools.permutations(words)
    ]
    (tmp_path / "lists.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "lists.jinja").write_text(TASK)
    variables = {"WORKBENCH_HOME": str(home)}
    run(tmp_path, "data", "build", "lists.jsonl", "--name", "lists", "--replace", **variables)
    hits: dict[str, list[float]] = {}
    for seed in range(DRAWS):
        run(tmp_path, "in-context", "tiny", "--data", "lists", "--task", "./lists.jinja", "--name", f"few-{seed}",
            "--set", "alike=task", "--set", "split=all", "--set", "shots=0,1,2,3,4", "--set", f"seed={seed}",
            **variables)  # fmt: skip
        (row,) = read_evaluation(find_run(Workspace(home), f"few-{seed}")).rows
        for name, part in row.shares.items():
            if "/" not in name:
                hits.setdefault(name, []).append(part.value or 0.0)
    print(f"\n{len(rows)} questions, {DRAWS} draws of examples, {row.checkpoint}")
    means = {name: sum(values) / len(values) for name, values in hits.items()}
    for name, values in hits.items():
        print(f"{name}  {means[name]:6.1%}  ({', '.join(f'{value:.1%}' for value in values)})")
    assert means["4-shot"] - means["0-shot"] >= GAIN


def test_facts_written_after_training_are_answered_from_passages(home: Path, tmp_path: Path) -> None:
    """Whose toy has which colour, drawn anew: 192 facts in 16 files, a paragraph each."""
    facts = write_facts(tmp_path / "notes", random.Random(7))
    questions = [f"What colour is the {toy} of {name}?" for name, toy, _ in facts]
    workspace, folder = Workspace(home), resolve_checkpoint(Workspace(home), "tuned").path
    settings = Retrieval(passages=1, frame="{passages} {question}")
    job = Job(workspace)
    passages = [find(job, str(tmp_path / "notes"), text, settings.passages)["passages"] for text in questions]
    model = open_decoder(folder)
    given = [framed(*pair, settings, model.config.context) for pair in zip(questions, passages, strict=True)]
    without, with_ = (right(answers(model, folder, texts), facts) for texts in (questions, given))
    found = sum(f"{name} has a {colour} {toy}." in some[0]["text"] for some, (name, toy, colour) in
                zip(passages, facts, strict=True))  # fmt: skip
    print(f"\nright without {share(without, len(facts))}, with retrieval {share(with_, len(facts))}; "
          f"the passage was found for {found} of {len(facts)}")  # fmt: skip
    assert with_ / len(facts) >= RIGHT
    assert without / len(facts) < 0.2, "it could not have known"


def write_facts(folder: Path, draw: random.Random) -> list[tuple[str, str, str]]:
    """Name, toy and colour of every fact; each stands in a paragraph with a sentence about something else."""
    folder.mkdir()
    facts = []
    for name in lx.NAMES:
        paragraphs = []
        for toy in lx.TOYS:
            colour, thing, spot = (draw.choice(words) for words in (lx.COLOURS, lx.SMALL_THINGS, lx.SPOTS))
            sentences = [f"{name} has a {colour} {toy}.", f"The {thing} is in the {spot}."]
            draw.shuffle(sentences)
            paragraphs.append(" ".join(sentences))
            facts.append((name, toy, colour))
        (folder / f"{name}.txt").write_text("\n\n".join(paragraphs))
    return facts


def answers(model: Any, folder: Path, questions: Sequence[str]) -> list[str]:
    """What the model says, each token the likeliest."""
    with Masker(folder) as masker:
        stops = tuple({masker.encoder.text.eos_id, masker.end_of_turn() or 0})
        prompts = [masker.prompt([Message("user", text)]) for text in questions]
        found = generate(model, prompts, Sampling(temperature=0.0, max_new_tokens=32, stop_ids=stops), 64)
        return [masker.encoder.text.decode(ids) for ids in found]


def right(said: Sequence[str], facts: Sequence[tuple[str, str, str]]) -> int:
    """How many answers give the colour, by the world's rule."""
    records = [{"answer": colour, "meta": {"lead": f"The {toy} of {name} is"}} for name, toy, colour in facts]
    return sum(is_correct(record, text) for record, text in zip(records, said, strict=True))
