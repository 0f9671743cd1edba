"""The index of passages: found by words, up to date as files change, whatever stands in files and questions."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.store import retrieval
from stages.store.errors import UserError, WorkFailed
from stages.store.retrieval import LONGEST, Document, Extent, Index, chunks, files_in, query


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    notes = tmp_path / "notes"
    (notes / "deep").mkdir(parents=True)
    (notes / "pets.md").write_text("# Pets\n\nAda has a red kite.\n\nThe key is in the drawer.\n")
    (notes / "deep" / "land.txt").write_text("The capital of Fendra is Mirlo.\r\nIt rains there.")
    return notes


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "cache" / "i.db")


def found(index: Index, folder: Path, question: str, count: int = 3) -> list[tuple[str, int, str]]:
    index.update(files_in(folder))
    return [(one.document, one.line, one.text) for one in index.search(question, count)]


def test_a_passage_is_found_by_its_words_with_file_and_line(index: Index, folder: Path) -> None:
    assert found(index, folder, "What colour is the KITE of Ada?")[0] == ("pets.md", 1, "# Pets\nAda has a red kite.")
    assert found(index, folder, "where are the keys", 1) == [("pets.md", 5, "The key is in the drawer.")]
    name = str(Path("deep") / "land.txt")
    assert found(index, folder, "Fendra", 1) == [(name, 1, "The capital of Fendra is Mirlo.\nIt rains there.")]
    assert found(index, folder, "zebra") == []


def test_it_is_up_to_date_as_files_change(index: Index, folder: Path) -> None:
    assert index.update(files_in(folder)) == Extent(2, 3, 0)
    (folder / "pets.md").write_text("Ada has a blue kite.")
    assert found(index, folder, "kite") == [("pets.md", 1, "Ada has a blue kite.")]
    (folder / "new.txt").write_text("The kite of Bo is white.")
    assert {one[0] for one in found(index, folder, "kite")} == {"pets.md", "new.txt"}
    (folder / "pets.md").unlink()
    assert {one[0] for one in found(index, folder, "kite")} == {"new.txt"}
    (folder / "new.txt").rename(folder / "old.txt")
    assert {one[0] for one in found(index, folder, "kite")} == {"old.txt"}
    assert index.update(files_in(folder)) == Extent(2, 2, 0)


def test_only_what_changed_is_read_again(index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.update(files_in(folder))
    (folder / "pets.md").write_text("Ada has two kites.")
    read: list[str] = []
    whole = retrieval._text_of
    monkeypatch.setattr(retrieval, "_text_of", lambda path, size: read.append(path.name) or whole(path, size))
    index.update(files_in(folder))
    assert read == ["pets.md"]


def test_documents_known_to_be_the_same_as_a_whole_are_not_looked_at(index: Index) -> None:
    document = Document("a", "1", lambda: "one apple")
    assert index.update([document], whole="x") == Extent(1, 1, 0)
    assert index.update(iter([]), whole="x") == Extent(1, 1, 0)
    assert index.update([], whole="y") == Extent(0, 0, 0)


def test_what_is_no_text_is_skipped_and_counted(index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "picture.png").write_bytes(b"\x89PNG\x00\x01")
    (folder / "latin.txt").write_bytes("Käse".encode("latin-1"))
    (folder / ".hidden").write_text("secret")
    (folder / "empty.txt").write_text("")
    os.mkfifo(folder / "pipe")
    (folder / "gone").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert index.update(files_in(folder)) == Extent(3, 3, 2)
    monkeypatch.setattr(retrieval, "MOST_FILES", 2)
    with pytest.raises(UserError, match="more than 2 files"):
        index.update(files_in(folder))
    assert index.extent() == Extent(3, 3, 2), "a refused update leaves all as it was"
    with pytest.raises(UserError, match="There is no file or folder"):
        index.update(files_in(folder / "nothing"))


def test_ranks_are_those_of_bm25(index: Index) -> None:
    texts = ["kite kite kite", "the red kite", "a key and the kite in the drawer of the house", "the key", "it"]
    texts += ["the long road"] * 7
    index.update(Document(f"{n:02}", "1", lambda text=text: text) for n, text in enumerate(texts))  # type: ignore[misc]
    words, mean = [text.split() for text in texts], sum(len(text.split()) for text in texts) / len(texts)

    def bm25(place: int, question: list[str]) -> float:
        total = 0.0
        for word in question:
            holding = sum(word in text for text in words)
            idf = math.log((len(texts) - holding + 0.5) / (holding + 0.5))
            f = Counter(words[place])[word]
            total += max(idf, 1e-6) * f * 2.2 / (f + 1.2 * (0.25 + 0.75 * len(words[place]) / mean))
        return total

    for passage in index.search("red kite drawer", 10):
        assert passage.score == pytest.approx(bm25(int(passage.document), ["red", "kite", "drawer"]), rel=1e-6)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return Index(tmp_path_factory.mktemp("shared") / "i.db")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_no_question_is_taken_for_the_indexs_language(shared: Index, text: str) -> None:
    shared.update([Document("a", text, lambda: text)])
    assert not shared.search(text, 3) or query(text)


@pytest.mark.parametrize("question", ['" OR 1', "NEAR(a b)", "text: kite*", "'; DROP TABLE passages; --", "(((", "^-+"])
def test_operators_in_a_question_are_words(index: Index, folder: Path, question: str) -> None:
    found(index, folder, question)
    assert found(index, folder, f"{question} kite")


def test_long_paragraphs_are_cut_between_sentences() -> None:
    text = "First one. " * 300 + "\n\n" + "x" * (2 * LONGEST + 10)
    pieces = list(chunks(text))
    assert all(0 < len(piece.text) <= LONGEST for piece in pieces)
    assert pieces[0].text.endswith("one.") and pieces[1].text.startswith("First")
    assert [piece.line for piece in pieces[-3:]] == [3, 3, 3]
    assert "".join(piece.text for piece in pieces[-3:]) == "x" * (2 * LONGEST + 10)


@given(st.text(alphabet="ab#. \n", max_size=300))
def test_no_word_is_lost_in_chunks(text: str) -> None:
    assert " ".join(piece.text for piece in chunks(text)).split() == text.split()


def test_a_damaged_index_is_made_anew(index: Index, folder: Path) -> None:
    index.update(files_in(folder))
    index.close()
    index.path.write_bytes(b"this is no database" * 200)
    assert found(Index(index.path), folder, "kite")


def test_an_index_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkFailed, match="cannot be created"):
        Index(tmp_path / "file" / "i.db")
    (tmp_path / "i.db").mkdir()
    with pytest.raises(WorkFailed, match="cannot be written"):
        Index(tmp_path / "i.db")


def test_two_that_update_at_once_wait_for_each_other(tmp_path: Path, folder: Path) -> None:
    for number in range(40):
        (folder / f"{number}.txt").write_text(f"note {number} of a kite")
    results: list[Extent] = []

    def work() -> None:
        index = Index(tmp_path / "shared.db")
        results.append(index.update(files_in(folder)))
        index.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [Extent(42, 43, 0)] * 4
