"""Banking77 by small models pre-trained here, against the same models from scratch: is pre-training worth it?

    python -m benchmarks.labels [--seeds 3] [--steps 1000] [--epochs 8] [--models decoder,encoder] [--threads 2]

A decoder and an encoder of half a million parameters are pre-trained on the texts of banking77's training file, and
fine-tuned on their 77 labels; the same architecture is taught the labels from random weights. Both choose their peak
rate by a tenth of the training file that is held out (`RATES`), and both are then judged on the 3,080 questions of the
test file: accuracy over the seeds, and the difference with a 95 % interval by bootstrap over questions, paired.
Needs WORKBENCH_TEST_DATA, a folder with banking77/train.csv and test.csv. Source of the data: Casanueva et al.,
Efficient Intent Detection with Dual Sentence Encoders (arXiv 2003.04807).
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.assessment import ask
from stages.data.labelled import read_examples
from stages.labeller import Labeller
from stages.store.checkpoints import list_checkpoints
from stages.store.datasets import find_dataset
from stages.store.rundir import RunDir
from stages.store.statistics import share
from stages.store.workspace import Workspace
from tests.stages.helpers import finish
from workbench import runs

STAGES = {"decoder": "pretrain", "encoder": "bert"}
TOKENIZERS = {"decoder": "bpe", "encoder": "wordpiece"}
PRESETS = {"decoder": "tiny", "encoder": "tiny-bert"}
SHAPE = {"layers": 2, "heads": 4, "width": 128, "context": 48}
RATES = {"pre-trained": (1e-3, 2e-3), "from scratch": (1e-3, 2e-3)}
"""Peak rates that are tried."""
RESAMPLES = 10_000
HOUR = 3_600.0


def workspace_in(folder: Path, data: Path) -> Workspace:
    """The texts to pre-train on, the labelled training and test files, and both tokenizers."""
    workspace = Workspace(folder / "ws").ensure()
    with (data / "train.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    (folder / "texts.md").write_text("\n\n".join(texts), "utf-8")
    settings: dict[str, Any] = {"sources": [str(folder / "texts.md")], "split": "tail:0.02", "kind": "text"}
    finish(runs.launch(workspace, "build", "texts", settings))
    for name, split in (("train", "documents:0.1"), ("test", "none")):
        settings = {"sources": [str(data / f"{name}.csv")], "split": split, "kind": "labelled", "deduplicate": False}
        finish(runs.launch(workspace, "build", name, settings))
    for kind in TOKENIZERS.values():
        finish(runs.launch(workspace, "tokenizer", kind, {"type": kind, "vocab_size": 1_000}, dataset="texts"))
    return workspace


def pretrain(workspace: Workspace, kind: str, steps: int, threads: int) -> RunDir:
    """A model of half a million parameters, pre-trained on the texts."""
    settings = {
        "preset": PRESETS[kind],
        **SHAPE,
        "batch_size": 64,
        "steps": steps,
        "dropout": 0.1,
        "threads": threads,
        "eval_every": steps,
        "checkpoint_every": steps,
        "sample_every": 0 if kind == "decoder" else steps,
        "device": "cpu",
    }
    run = runs.launch(workspace, STAGES[kind], kind, settings, dataset="texts", tokenizer=TOKENIZERS[kind])
    return finish(run, seconds=HOUR)


def teach(workspace: Workspace, name: str, kind: str, how: str, **settings: Any) -> RunDir:
    """Learn the labels, from the pre-trained model or from random weights of its shape."""
    fixed = {
        "scratch": how == "from scratch",
        "batch_size": 64,
        "eval_every": 141,
        "checkpoint_every": 1_000_000,
        "log_every": 50,
        "device": "cpu",
    }
    run = runs.launch(workspace, "classify", name, {**fixed, **settings}, dataset="train", checkpoint=kind)
    return finish(run, seconds=HOUR)


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


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=1_000, help="of pre-training, 3,072 tokens each")
    options.add_argument("--epochs", type=float, default=8.0, help="of learning the labels")
    options.add_argument("--models", default="decoder,encoder")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--folder", help="where to work; a temporary folder if left out")
    given = options.parse_args()
    data = Path(os.environ.get("WORKBENCH_TEST_DATA", "")) / "banking77"
    if not (data / "train.csv").is_file():
        print("WORKBENCH_TEST_DATA names no folder with banking77: nothing measured")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.folder or temporary)
        workspace = Workspace(folder / "ws") if (folder / "ws").is_dir() else workspace_in(folder, data)
        for kind in given.models.split(","):
            compare(workspace, kind, given)


def compare(workspace: Workspace, kind: str, given: argparse.Namespace) -> None:
    """Print what a kind of model comes to, either way."""
    began = time.monotonic()
    pretrain(workspace, kind, given.steps, given.threads)
    print(f"{kind}: pre-trained in {time.monotonic() - began:,.0f} s", flush=True)
    found: dict[str, NDArray[np.float64]] = {}
    for how in RATES:
        began = time.monotonic()
        rate = best_rate(workspace, kind, how, given)
        rows = []
        for seed in range(given.seeds):
            name = f"{kind}-{how.replace(' ', '-')}-{seed}"
            run = teach(workspace, name, kind, how, lr=rate, seed=seed, epochs=given.epochs, threads=given.threads)
            rows.append(right(workspace, run))
            print(f"  {how}, seed {seed}: {share(int(rows[-1].sum()), len(rows[-1]))}", flush=True)
        found[how] = np.mean(rows, axis=0)
        print(f"  {how}: {100 * found[how].mean():.1f} % at lr {rate:g}, {time.monotonic() - began:,.0f} s", flush=True)
    apart, low, high = (100 * part for part in difference(found["pre-trained"], found["from scratch"]))
    print(f"{kind}: pre-training is worth {apart:+.1f} points ({low:+.1f} to {high:+.1f})", flush=True)


def best_rate(workspace: Workspace, kind: str, how: str, given: argparse.Namespace) -> float:
    """The rate with the best accuracy on the held-out tenth of the training file."""
    found = {}
    for rate in RATES[how]:
        name = f"{kind}-{how.replace(' ', '-')}-try-{rate:g}"
        run = teach(workspace, name, kind, how, lr=rate, seed=100, epochs=given.epochs, threads=given.threads)
        found[rate] = run.state().result["val/accuracy"]
        print(f"  {how}, lr {rate:g}: {100 * found[rate]:.1f} % of the held-out tenth", flush=True)
    return max(found, key=found.__getitem__)


if __name__ == "__main__":
    main()
