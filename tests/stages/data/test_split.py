"""Splits: the tail is exactly the end, the hash keeps equal documents together."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from stages.data.split import FEW, Split, by_document, cut_tail, key_of, place
from stages.store.records import ChatRecord, Message, PreferenceRecord, TextRecord


def test_settings_are_taken_apart() -> None:
    assert Split.parse("documents:0.1") == ("documents", 0.1)
    assert Split.parse("tail:.25") == ("tail", 0.25)
    assert Split.parse("none") == ("none", 0.0)


@given(st.lists(st.text(min_size=1, max_size=20), max_size=12), st.sampled_from([0.05, 0.1, 0.5, 0.9]))
def test_the_tail_is_the_end_of_the_corpus_by_characters(texts: list[str], share: float) -> None:
    whole = "".join(texts)
    sided = list(cut_tail((TextRecord(text=text) for text in texts), len(whole), share))
    border = int(len(whole) * (1 - share))
    assert "".join(record.text for side, record in sided if side == "train") == whole[:border]
    assert "".join(record.text for side, record in sided if side == "val") == whole[border:]
    assert len(sided) <= len(texts) + 1


def sides(texts: list[str], share: float, seed: int) -> dict[str, str]:
    return {key_of(record): side for side, record in by_document((TextRecord(text=t) for t in texts), share, seed)}


def test_the_hash_takes_about_its_share_and_depends_on_text_and_seed_alone() -> None:
    texts = [f"document {n}" for n in range(10_000)]
    chosen = sides(texts, 0.1, 0)
    assert 850 < sum(side == "val" for side in chosen.values()) < 1_150
    assert chosen == sides(texts[::-1], 0.1, 0)
    assert chosen != sides(texts, 0.1, 1)
    wider = sides(texts, 0.2, 0)
    assert all(wider[text] == "val" for text, side in chosen.items() if side == "val")


@given(st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=12, unique=True))
def test_two_documents_are_enough_for_a_validation_part(texts: list[str]) -> None:
    lowest = min(texts, key=lambda text: place(text, 0))
    chosen = sides(texts, 1e-9, 0)
    assert len(chosen) == len(texts)
    assert [text for text, side in chosen.items() if side == "val"] == [lowest]


def test_one_document_is_all_training() -> None:
    assert sides(["alone"], 1e-9, 0) == {"alone": "train"}


def test_answers_to_one_prompt_stay_on_one_side() -> None:
    asked = [Message("system", "Be brief."), Message("user", "Why?")]
    chat = ChatRecord(messages=[*asked, Message("assistant", "Because."), Message("user", "And?")])
    ranked = PreferenceRecord(messages=asked, completions=["a", "b"], ranks=[1, 2])
    assert key_of(chat) == key_of(ranked) != key_of(ChatRecord(messages=[Message("user", "Why?")]))


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12), st.integers(0, 20))
def test_equal_documents_stay_on_one_side_where_the_lowest_is_the_validation_part(texts: list[str], seed: int) -> None:
    found = list(by_document((TextRecord(text=text) for text in texts), 1e-9, seed))
    assert sorted(key_of(record) for _, record in found) == sorted(texts)
    lowest = min(texts, key=lambda text: place(text, seed), default=None)
    validated = {key_of(record) for side, record in found if side == "val"}
    assert validated == ({lowest} if len(set(texts)) > 1 else set())
    assert not validated & {key_of(record) for side, record in found if side == "train"}


def test_many_equal_documents_are_not_held_in_memory() -> None:
    read: list[TextRecord] = []

    def reading() -> Iterator[TextRecord]:
        for _ in range(3 * FEW):
            read.append(TextRecord(text="again"))
            yield read[-1]

    found = by_document(reading(), 1e-9, 0)
    assert next(found) == ("train", read[0]) and len(read) == FEW + 1
    assert {side for side, _ in found} == {"train"} and len(read) == 3 * FEW
