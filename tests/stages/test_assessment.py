"""Figures of labelling by hand-made answers: entities, F1, confusion, the worst examples."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from stages.data.labelled import UNKNOWN, Writer, in_order, read_examples, survey
from stages.data.tokenizer import TextTokenizer
from stages.measuring.assessment import (
    Answers,
    confusion,
    entities,
    entity_figures,
    figures,
    macro_f1,
    outside_of,
    per_class,
)
from stages.store.classifiers import Head
from stages.store.errors import UserError
from tests.stages.classify_helpers import write_decoder, write_encoder
from tests.stages.data.labels import classes, labelled_dataset, tagged


def answers(wanted: list[int], found: list[int], ends: list[int] | None = None) -> Answers:
    """Answers of records with one target each, or that end at these targets."""
    starts = np.array([0, *(ends or range(1, len(wanted) + 1))])
    log_p = np.where(np.array(wanted) == np.array(found), -0.1, -2.0)
    return Answers(np.arange(len(starts) - 1), starts, np.array(wanted), np.array(found), log_p)


def test_f1_by_hand() -> None:
    """Of a: 2 right, 3 found, 3 there. Of b: 1, 2, 1. Of c: 0 of 1; d neither occurs nor is found."""
    said = answers([0, 0, 0, 1, 2], [0, 0, 1, 1, 0])
    rows = {row.label: row for row in per_class(said, ["a", "b", "c", "d"])}
    assert list(rows) == ["a", "b", "c"]
    assert (rows["a"].precision, rows["a"].recall, rows["a"].f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert rows["b"].f1 == pytest.approx(2 / 3) and rows["c"].f1 == 0.0
    assert macro_f1(list(rows.values())) == pytest.approx(4 / 9)
    assert confusion(said, 4).tolist() == [[2, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert figures(said, Head(task="classify", labels=["a", "b", "c", "d"]))["val/accuracy"] == pytest.approx(0.6)


def test_a_label_that_the_model_does_not_have_counts_as_wrong() -> None:
    said = answers([UNKNOWN, 0], [1, 0])
    assert said.right.tolist() == [False, True]
    assert confusion(said, 2).tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["B-x", "I-x", "O", "B-y"], {("x", 0, 2), ("y", 3, 4)}),
        (["B-x", "B-x"], {("x", 0, 1), ("x", 1, 2)}),
        (["B-x", "I-y", "I-y"], {("x", 0, 1), ("y", 1, 3)}),
        (["O", "I-x", "I-x"], {("x", 1, 3)}),
        (["S-x", "B-x", "E-x", "I-x"], {("x", 0, 1), ("x", 1, 3), ("x", 3, 4)}),
        (["x", "x", "O", "y"], {("x", 0, 2), ("y", 3, 4)}),
        (["O", "O"], set()),
    ],
)
def test_entities_are_told_apart(labels: list[str], wanted: set[tuple[str, int, int]]) -> None:
    assert entities(labels) == wanted


def test_an_entity_counts_when_its_sort_and_both_ends_are_right() -> None:
    labels = ["O", "B-x", "I-x", "B-y"]
    said = answers([1, 2, 0, 3, 1, 0], [1, 0, 0, 3, 1, 2], ends=[4, 6])
    found = entity_figures(said, labels)
    assert found is not None
    rows, f1 = found
    by_sort = {row.label: (row.precision, row.recall) for row in rows}
    assert by_sort == {"x": (0.0, 0.0), "y": (1.0, 1.0)}  # both x have one end wrong
    assert f1 == pytest.approx(2 * 1 / (3 + 3))
    assert entity_figures(said, ["noun", "verb", "dot", "other one"]) is None
    assert outside_of(["person", "other"]) == "other"


def test_numbers_stand_by_their_size_and_names_by_the_alphabet() -> None:
    assert in_order({"10", "9", "1"}) == ["1", "9", "10"]
    assert in_order({"b", "10", "a"}) == ["10", "a", "b"]


def test_inputs_have_the_shape_of_their_task(tmp_path: Path) -> None:
    tokenizer = TextTokenizer.load(write_decoder(tmp_path / "decoder"))
    eos, turn = tokenizer.eos_id, tokenizer.id_of("<|im_start|>")
    cat, dog = tokenizer.encode("cat"), tokenizer.encode("dog")

    def written(head: Head, texts: list[str], room: int = 48) -> list[list[int]]:
        writer = Writer(tokenizer, head, room, encoder=False)
        return [one.ids for one in next(writer.inputs([texts]))]

    two = ["a", "b"]
    assert written(Head(task="classify", labels=two), ["cat"]) == [[eos, *cat, eos]]
    one, other = [eos, *cat, turn, *dog, eos], [eos, *dog, turn, *cat, eos]
    assert written(Head(task="pair", labels=two), ["cat", "dog"]) == [one]
    assert written(Head(task="pair", labels=two, both_orders=True), ["cat", "dog"]) == [one, other]
    assert written(Head(task="choice", labels=[]), ["cat", "dog", "dog"]) == [one, one]
    long = written(Head(task="pair", labels=two), ["cat " * 40, "dog"], room=20)
    assert len(long[0]) == 20 and long[0][-1 - len(dog) : -1] == dog  # the longer gives way

    folder = write_encoder(tmp_path / "encoder")
    words = TextTokenizer.load(folder)
    writer = Writer(words, Head(task="pair", labels=two), 48, encoder=True)
    (pair,) = next(writer.inputs([["cat", "dog"]]))
    names = [words.name_of(token) for token in pair.ids]
    assert names == ["[CLS]", "cat", "[SEP]", "dog", "[SEP]"] and pair.second == 3


@pytest.mark.parametrize("encoder", [False, True])
def test_words_are_labelled_at_their_first_or_their_last_piece(tmp_path: Path, encoder: bool) -> None:
    folder = (write_encoder if encoder else write_decoder)(tmp_path / "model")
    tokenizer = TextTokenizer.load(folder)
    writer = Writer(tokenizer, Head(task="tokens", labels=["O", "B-x"]), 48, encoder=encoder)
    written, places = writer.words(["the", "catdog", "", "hen"])
    names = [tokenizer.name_of(written.ids[place]).strip("Ġ#") for place in places if place >= 0]
    assert places[2] == -1 and names[0] == "the" and names[2] == "hen"
    assert "catdog".startswith(names[1]) if encoder else "catdog".endswith(names[1])
    short = Writer(tokenizer, Head(task="tokens", labels=["O", "B-x"]), 4, encoder=encoder)
    cut, places = short.words(["the", "hen", "the", "hen", "the"])
    assert cut.cut and len(cut.ids) == 4 and places[-1] == -1


def test_examples_of_both_parts_know_their_records(tmp_path: Path) -> None:
    write_decoder(tmp_path / "decoder")
    mixed = [record for both in zip(classes(6), tagged(6), strict=True) for record in both]
    dataset = labelled_dataset(tmp_path / "mixed", mixed, val=classes(3, 1))
    found = survey(dataset)
    assert found.tasks == {"classify": 6, "tokens": 6}
    head = found.head("classify", "mixed", both_orders=False)
    writer = Writer(TextTokenizer.load(tmp_path / "decoder"), head, 48, encoder=False)
    examples = read_examples(dataset, ["train", "val"], writer)
    assert examples.records.tolist() == [0, 2, 4, 6, 8, 10, 0, 1, 2]
    assert examples.places_in_set.tolist() == [0, 2, 4, 6, 8, 10, 12, 13, 14]
    batch = examples.batch(np.array([7, 0]))
    wanted = [head.labels.index(record.label or "") for record in (classes(3, 1)[1], mixed[0])]
    assert batch.targets.tolist() == wanted and len(batch.documents) == 3
    assert len(read_examples(dataset, ["train"], writer, at_most=2)) == 2


def test_a_dataset_of_another_kind_is_refused(tmp_path: Path) -> None:
    dataset = labelled_dataset(tmp_path / "texts", classes(2))
    other = dataset._replace(info=msgspec.structs.replace(dataset.info, kind="text"))
    with pytest.raises(UserError, match="which have no labels"):
        survey(other)
