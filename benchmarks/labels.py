"""Small models that label: is pre-training worth it on banking77, and what do the tasks of the starter world come to?

    python -m benchmarks.labels [--part banking77|world] [--models decoder,encoder] [--seeds 1] [--steps 1000]
                                [--epochs 3] [--threads 2] [--folder FOLDER]

banking77: a decoder and an encoder of half a million parameters are pre-trained on the texts of the training file and
fine-tuned on its 77 labels; the same architecture is taught the labels from random weights, as long and twice as long,
all at one peak rate. Judged on the 3,080 questions of the test file: accuracy, and the difference with a 95 % interval
by bootstrap over questions, paired. Needs WORKBENCH_TEST_DATA, a folder with banking77/train.csv and test.csv
(Casanueva et al., arXiv 2003.04807).

world: the same shapes, pre-trained on the starter world, learn entailment, multiple choice and entities.

With --folder a measurement that was cut off goes on where it was: what has finished there is not done again.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.asking.labeller import Labeller
from stages.data.labelled import read_examples
from stages.measuring.assessment import ask
from stages.store.checkpoints import list_checkpoints
from stages.store.classifiers import read_classified
from stages.store.datasets import find_dataset
from stages.store.rundir import RunDir, find_run, list_runs
from stages.store.statistics import share
from stages.store.workspace import Workspace
from tests.stages.helpers import finish
from workbench import runs

STAGES = {"decoder": "pretrain", "encoder": "bert"}
TOKENIZERS = {"decoder": "bpe", "encoder": "wordpiece"}
PRESETS = {"decoder": "tiny", "encoder": "tiny-bert"}
SHAPE = {"layers": 2, "heads": 4, "width": 128, "context": 48}
MORE: dict[str, dict[str, Any]] = {"decoder": {}, "encoder": {"mask_share": 0.25, "lr": 2e-3}}
"""Of pre-training: an encoder is asked about more tokens than BERT's 15 %, as in crammed training."""


class Way(NamedTuple):
    """How the labels are taught."""

    called: str
    short: str
    """In the names of runs."""
    scratch: bool
    longer: float = 1.0
    """How many times --epochs."""


TUNED = Way("pre-trained", "tuned", False)
FRESH = Way("from scratch", "fresh", True)
LONG = Way("from scratch, twice as long", "scratch", True, 2.0)
RATE = 2e-3
"""Peak rate at which labels are taught."""
TASKS = {"tokens": ("entities", 10.0), "pair": ("entailment", 40.0), "choice": ("multiple choice", 15.0)}
"""Of the starter world: what they are called, and how many epochs they are taught."""
RESAMPLES = 10_000
HOUR = 3_600.0
NEVER = 1_000_000


class Given(NamedTuple):
    """What a measurement is asked to be."""

    workspace: Workspace
    steps: int
    epochs: float
    seeds: int
    threads: int


def once(workspace: Workspace, stage: str, name: str, settings: dict[str, Any], **parents: Any) -> RunDir:
    """A finished run of this name, which may have been made or begun before."""
    known = [run for run in list_runs(workspace) if (run.spec().stage, run.spec().name) == (stage, name)]
    if not known:
        return finish(runs.launch(workspace, stage, name, settings, **parents), seconds=HOUR)
    run = find_run(workspace, known[0].id)
    if run.status() not in ("finished", "queued", "running"):
        runs.start(run)
    return finish(run, seconds=HOUR)


def pretrain(given: Given, kind: str, dataset: str) -> RunDir:
    """A model of half a million parameters, pre-trained on the texts of a dataset."""
    vocabulary = {"type": TOKENIZERS[kind], "vocab_size": 1_000}
    once(given.workspace, "tokenizer", f"{dataset}-{kind}", vocabulary, dataset=dataset)
    settings = {
        "preset": PRESETS[kind],
        **SHAPE,
        **MORE[kind],
        "batch_size": 64,
        "steps": given.steps,
        "dropout": 0.1,
        "threads": given.threads,
        "eval_every": given.steps,
        "checkpoint_every": 200,
        "sample_every": 0,
        "device": "cpu",
    }
    parents = {"dataset": dataset, "tokenizer": f"{dataset}-{kind}"}
    return once(given.workspace, STAGES[kind], kind, settings, **parents)


def teach(given: Given, name: str, kind: str, dataset: str, **settings: Any) -> RunDir:
    """Learn the labels, from the pre-trained model or from random weights of its shape."""
    fixed = {
        "batch_size": 64,
        "epochs": given.epochs,
        "threads": given.threads,
        "eval_every": NEVER,
        "checkpoint_every": 200,
        "log_every": 20,
        "device": "cpu",
    }
    return once(given.workspace, "classify", name, fixed | settings, dataset=dataset, checkpoint=kind)


def seconds(run: RunDir) -> float:
    """How long a run took."""
    state = run.state()
    return (state.ended or 0.0) - (state.started or 0.0)


def banking77(given: Given, kinds: list[str], folder: Path) -> None:
    """Print what pre-training is worth to each kind of model."""
    data = Path(os.environ.get("WORKBENCH_TEST_DATA", "")) / "banking77"
    if not (data / "train.csv").is_file():
        print("WORKBENCH_TEST_DATA names no folder with banking77: nothing measured")
        return
    with (data / "train.csv").open(newline="", encoding="utf-8") as file:
        (folder / "texts.md").write_text("\n\n".join(row["text"] for row in csv.DictReader(file)), "utf-8")
    text = {"sources": [str(folder / "texts.md")], "split": "tail:0.02", "kind": "text"}
    once(given.workspace, "build", "texts", text)
    for name, split in (("train", "documents:0.1"), ("test", "none")):
        built = {"sources": [str(data / f"{name}.csv")], "split": split, "kind": "labelled", "deduplicate": False}
        once(given.workspace, "build", name, built)
    for kind in kinds:
        compare(given, kind)


def compare(given: Given, kind: str) -> None:
    """Print what a kind of model comes to, either way."""
    print(f"{kind}: pre-trained in {seconds(pretrain(given, kind, 'texts')):,.0f} s", flush=True)
    found: dict[Way, NDArray[np.float64]] = {}
    for way in (TUNED, FRESH, LONG):
        rows = []
        for seed in range(given.seeds):
            run = taught(given, kind, way, seed)
            rows.append(right(given.workspace, run))
            told = share(int(rows[-1].sum()), len(rows[-1]))
            print(f"  {way.called}, seed {seed}: {told} in {seconds(run):,.0f} s", flush=True)
        found[way] = np.mean(rows, axis=0)
        if way is not TUNED:
            apart, low, high = (100 * part for part in difference(found[TUNED], found[way]))
            print(f"  pre-training is worth {apart:+.1f} points ({low:+.1f} to {high:+.1f}) over that", flush=True)


def taught(given: Given, kind: str, way: Way, seed: int) -> RunDir:
    """A run that learns banking77's labels."""
    settings = {"scratch": way.scratch, "lr": RATE, "seed": seed, "epochs": given.epochs * way.longer}
    return teach(given, f"{kind}-{way.short}-{RATE:g}-{seed}", kind, "train", **settings)


def right(workspace: Workspace, run: RunDir) -> NDArray[np.bool_]:
    """Which questions of the test file the run's last checkpoint labels rightly."""
    labeller = Labeller(list_checkpoints(run)[-1].path)
    examples = read_examples(find_dataset(workspace, "test"), ["train"], labeller.writer)
    return ask(labeller.model, examples, np.arange(len(examples))).right


def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float, float]:
    """By how much `one` is right more often, with a 95 % interval: paired bootstrap over questions."""
    apart = one - other
    dice = np.random.default_rng(0)
    means = np.array([apart[dice.integers(0, len(apart), len(apart))].mean() for _ in range(RESAMPLES)])
    return float(apart.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def world(given: Given, kinds: list[str], tasks: list[str]) -> None:
    """Print what the tasks of the starter world come to, on records that training never showed."""
    once(given.workspace, "build", "world", {"sources": ["starter:world"], "split": "documents:0.02"})
    once(given.workspace, "build", "labels", {"sources": ["starter:world-labelled"], "split": "documents:0.15"})
    for kind in kinds:
        print(f"{kind}: pre-trained in {seconds(pretrain(given, kind, 'world')):,.0f} s", flush=True)
        for task in tasks:
            called, epochs = TASKS[task]
            settings = {"task": task, "lr": RATE, "batch_size": 32, "dropout": 0.0, "epochs": epochs}
            run = teach(given, f"{kind}-{task}-{RATE:g}", kind, "labels", **settings)
            found = read_classified(run)
            entities = "" if found.entity_f1 is None else f", entity F1 {100 * found.entity_f1:.1f} %"
            told = f"{found.accuracy} of {found.accuracy.of:,}, macro-F1 {100 * found.macro_f1:.1f} %{entities}"
            print(f"  {called}: {told}, in {seconds(run):,.0f} s", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--part", choices=("banking77", "world"), help="left out: both")
    options.add_argument("--models", default="decoder,encoder")
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--steps", type=int, default=1_000, help="of pre-training, 3,072 tokens each")
    options.add_argument("--epochs", type=float, default=3.0, help="of learning banking77's labels")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--tasks", default=",".join(TASKS), help="of the world")
    options.add_argument("--folder", help="where to work; a temporary folder if left out")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for part in ("banking77", "world"):
            if given.part not in (None, part):
                continue
            folder = Path(given.folder or temporary) / part
            workspace = Workspace(folder / "ws").ensure()
            asked = Given(workspace, given.steps, given.epochs, given.seeds, given.threads)
            print(part, flush=True)
            if part == "banking77":
                banking77(asked, given.models.split(","), folder)
            else:
                world(asked, given.models.split(","), given.tasks.split(","))


if __name__ == "__main__":
    main()
