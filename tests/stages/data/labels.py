"""Labelled datasets written by hand, for tests: little worlds of animals and colours, one for each task."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec

from stages.data.records import RecordWriter
from stages.store.datasets import Dataset, DatasetInfo
from stages.store.records import LabelledRecord

ANIMALS = ("cat", "dog", "cow", "hen")
COLOURS = {"red": "warm", "pink": "warm", "blue": "cold", "green": "cold", "black": "dark", "brown": "dark"}


def labelled_dataset(folder: Path, train: Sequence[LabelledRecord], *, val: Sequence[LabelledRecord] = ()) -> Dataset:
    """A dataset of kind labelled in `folder`, which carries its name."""
    digests, counts, sizes = [], {}, {}
    for split, records in (("train", train), ("val", val)):
        with RecordWriter(folder / "records", split, "labelled") as writer:
            for record in records:
                writer.write(record)
        digests.append(writer.digest())
        counts[split], sizes[split] = writer.records, writer.bytes
    info = DatasetInfo(
        name=folder.name, kind="labelled", digest="".join(digests)[::2], records=counts, bytes=sizes, characters=sizes
    )
    (folder / "dataset.json").write_bytes(msgspec.json.encode(info))
    return Dataset(folder, info)


def classes(count: int, seed: int = 0) -> list[LabelledRecord]:
    """Sentences with the sort of their colour."""
    dice = random.Random(seed)
    made = []
    for _ in range(count):
        colour = dice.choice(list(COLOURS))
        text = f"the {dice.choice(ANIMALS)} near the {dice.choice(ANIMALS)} is {colour} ."
        made.append(LabelledRecord(task="classify", texts=[text], label=COLOURS[colour], source="hand"))
    return made


def pairs(count: int, seed: int = 0) -> list[LabelledRecord]:
    """Two words, and whether one is an animal: the same either way round."""
    dice = random.Random(seed)
    words = [*ANIMALS, *COLOURS]
    found = [[dice.choice(words), dice.choice(words)] for _ in range(count)]
    return [
        LabelledRecord(task="pair", texts=two, label="alive" if set(two) & set(ANIMALS) else "not") for two in found
    ]


def choices(count: int, seed: int = 0) -> list[LabelledRecord]:
    """Which of two or three words is an animal."""
    dice = random.Random(seed)
    made = []
    for _ in range(count):
        options = dice.sample(list(COLOURS), dice.choice((1, 2)))
        place = dice.randrange(len(options) + 1)
        options.insert(place, dice.choice(ANIMALS))
        made.append(LabelledRecord(task="choice", texts=["which is an animal ?", *options], label=str(place)))
    return made


def tagged(count: int, seed: int = 0) -> list[LabelledRecord]:
    """Sentences whose animals are entities, their colour with them."""
    dice = random.Random(seed)
    made = []
    for _ in range(count):
        words, labels = [], []
        for word in dice.sample(["see", "the", "and", "ANIMAL", "ANIMAL", "hear"], 5):
            if word != "ANIMAL":
                words.append(word)
                labels.append("O")
                continue
            coloured = dice.random() < 0.5
            words += [*([dice.choice(list(COLOURS))] if coloured else []), dice.choice(ANIMALS)]
            labels += ["B-beast", *(["I-beast"] if coloured else [])]
        made.append(LabelledRecord(task="tokens", texts=words, labels=labels))
    return made


TASKS = {"classify": classes, "pair": pairs, "choice": choices, "tokens": tagged}
