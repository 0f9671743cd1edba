"""Everything in a workspace as a tree: what was made from what, with digests. Reads files; for a thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stages.store.checkpoints import list_checkpoints
from stages.store.datasets import Dataset, list_datasets
from stages.store.errors import UserError
from stages.store.labels import Labels, LabelSet, open_labels
from stages.store.models import list_models
from stages.store.rundir import RunDir, RunSpec, list_runs
from stages.store.specs.parents import DATASETS, is_checkpoint
from stages.store.tokenizers import list_tokenizers
from stages.store.workspace import Workspace

Kind = Literal["dataset", "tokenizer", "model", "run", "checkpoint", "labels"]

MAKERS = ("build", "tokenizer", "importing")
"""Stages whose runs are records of how something else in the tree was made."""
_DIGESTS: dict[tuple[Path, int], tuple[object, str]] = {}
"""By labels.db and set: how the set stood when it was read, and its digest."""


@dataclass
class Node:
    """One thing, and what was made from it."""

    kind: Kind
    name: str
    key: str
    """A run's id, or the name."""
    digest: str = ""
    note: str = ""
    children: list[Node] = field(default_factory=list)

    def matches(self, words: list[str]) -> bool:
        """Whether each word is in its kind, name, note or digest."""
        told = f"{self.kind} {self.name} {self.note} {self.digest}".casefold()
        return all(word in told for word in words)


def lineage_tree(workspace: Workspace) -> list[Node]:
    """What stands for itself, the oldest first: datasets, imported models, and what lost its parents.

    A thing stands below the one it goes on from: a run below the checkpoint it continues, else below its dataset; a
    tokenizer below the dataset it was trained on; a label set below the run that sampled it; a dataset of labels below
    their set. What else it was made from is told in its note.
    """
    roots: list[Node] = []
    known: dict[str, Node] = {}
    frozen: list[tuple[list[str], Node]] = []
    for dataset in sorted(list_datasets(workspace), key=lambda one: one.info.created):
        sets = label_sets(dataset)
        told = f", of the labels of {', '.join(sets)}" if len(sets) > 1 else ""
        note = f"{dataset.info.kind}, {sum(dataset.info.records.values()):,} records{told}"
        node = Node("dataset", dataset.name, dataset.name, dataset.info.digest, note)
        known[dataset.info.digest] = node
        roots.append(node)
        frozen += [(sets, node)] if sets else []
    for model in list_models(workspace):
        note = f"{model.info.family}, {model.info.parameters:,} parameters"
        known[model.digest()] = Node("model", model.name, model.name, model.digest(), note)
        roots.append(known[model.digest()])
    for tokenizer in list_tokenizers(workspace):
        info = tokenizer.info
        note = f"{info.type}, {info.vocab_size:,} entries"
        known[info.digest] = Node("tokenizer", tokenizer.name, tokenizer.name, info.digest, note)
        _below(known.get(info.dataset_digest), known[info.digest], roots)
    runs = [(spec, _run_node(run, spec, known)) for run, spec in _specs(workspace)]
    for spec, node in runs:
        _below(_parent(spec, known), node, roots)
    samplers = {spec.name: node for spec, node in runs if spec.stage == "sample"}
    judged = {node.name: node for node in _label_sets(workspace)}
    for node in judged.values():
        _below(samplers.get(node.name), node, roots)
    for sets, node in frozen:
        above = next((judged[name] for name in sets if name in judged), None)
        if above is not None and not _holds(node, above):
            roots[:] = [root for root in roots if root is not node]
            above.children.append(node)
    return roots


def label_sets(dataset: Dataset) -> list[str]:
    """Names of the label sets that a dataset was frozen from."""
    found = dataset.info.settings.get("label_sets")
    return [str(name) for name in found] if isinstance(found, list) else []


def _holds(node: Node, sought: Node) -> bool:
    """Whether a node is another, or above it: a set that was sampled anew under its old name may be."""
    return node is sought or any(_holds(child, sought) for child in node.children)


def matching(nodes: list[Node], words: list[str]) -> list[Node]:
    """The tree of what matches, with all that stands above and below it."""
    found = []
    for node in nodes:
        below = node.children if node.matches(words) else matching(node.children, words)
        if below or node.matches(words):
            found.append(Node(node.kind, node.name, node.key, node.digest, node.note, below))
    return found


def rows(nodes: list[Node], above: str = "") -> Iterator[tuple[str, Node]]:
    """The tree line by line: what stands before the node to show its place, and the node."""
    for number, node in enumerate(nodes):
        last = number == len(nodes) - 1
        yield (above + ("└ " if last else "├ ")), node
        yield from rows(node.children, above + ("  " if last else "│ "))


def _specs(workspace: Workspace) -> Iterator[tuple[RunDir, RunSpec]]:
    """The runs that made models, measured or sampled, the oldest first."""
    for run in reversed(list_runs(workspace)):
        try:
            spec = run.spec()
        except UserError:
            continue
        if spec.stage not in MAKERS:
            yield run, spec


def _run_node(run: RunDir, spec: RunSpec, known: dict[str, Node]) -> Node:
    shown = ("checkpoint", "dataset")
    beside = [f"{role} {_short(parent.name)}" for role, parent in spec.parents.items() if role not in shown]
    if "checkpoint" in spec.parents and "dataset" in spec.parents:
        beside.insert(0, f"on {spec.parents['dataset'].name}")
    node = Node("run", spec.name, run.id, note=", ".join([spec.stage, *beside]))
    for checkpoint in list_checkpoints(run):
        child = Node("checkpoint", f"{spec.name}@{checkpoint.step}", run.id, checkpoint.digest())
        known[child.digest] = child
        node.children.append(child)
    return node


def _parent(spec: RunSpec, known: dict[str, Node]) -> Node | None:
    """What a run goes on from: its checkpoint, else its dataset."""
    roles = sorted(spec.parents, key=lambda role: (not is_checkpoint(role), role not in DATASETS, role))
    found = (known.get(spec.parents[role].digest) for role in roles if is_checkpoint(role) or role in DATASETS)
    return next(filter(None, found), None)


def _below(parent: Node | None, node: Node, roots: list[Node]) -> None:
    (roots if parent is None else parent.children).append(node)


def _label_sets(workspace: Workspace) -> list[Node]:
    if not workspace.labels.is_file():
        return []
    try:
        with open_labels(workspace.labels) as labels:
            sets = [(one, _digest(workspace.labels, labels, one)) for one in labels.sets()]
    except UserError:  # the Rank screen tells of it
        return []
    return [Node("labels", one.name, one.name, digest, f"{one.mode}, {one.prompts:,} prompts") for one, digest in sets]


def _digest(path: Path, labels: Labels, one: LabelSet) -> str:
    """The digest of a set, read anew only when something came to the set since it was last asked for."""
    stands = (one, labels.latest(one.id))
    known = _DIGESTS.get((path, one.id))
    if known is None or known[0] != stands:
        known = _DIGESTS[path, one.id] = (stands, labels.digest(one))
    return known[1]


def _short(name: str) -> str:
    """A name, or the run and step of a checkpoint's path."""
    path = Path(name)
    if "/" not in name:
        return name
    try:
        return f"{RunDir(path.parent.parent).spec().name}@{path.name.removeprefix('step-')}"
    except UserError:
        return path.name
