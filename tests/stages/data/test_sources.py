"""Sources: what a folder gives, what is left out and counted, what is refused."""

import os
import random
from pathlib import Path

import pytest

from stages.data.sources import Corpus
from stages.store.errors import UserError, WorkFailed
from stages.store.records import texts_in
from tests.stages.data.parts import real


def read(corpus: Corpus) -> list[str]:
    corpus.survey(lambda done, total: None)
    return [text for record in corpus.documents(lambda done, total: None) for text in texts_in(record)]


def corpus_of(*sources: Path | str, cut: int = 1_000_000) -> Corpus:
    return Corpus([str(source) for source in sources], cut)


def test_a_folder_gives_its_text_code_and_json_lines_in_order(tmp_path: Path) -> None:
    root = tmp_path / "notes"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "b.md").write_text("b")
    (root / "a.txt").write_text("a")
    (root / "Makefile").write_text("all:")
    (root / "deep" / "er" / "c.py").write_text("c = 1")
    (root / "deep" / "d.jsonl").write_text('{"text": "d"}\n')
    corpus = corpus_of(root)
    assert read(corpus) == ["all:", "a", "b", "d", "c = 1"]
    assert corpus.skipped() == [] and corpus.problem_count == 0
    assert [Path(source.path).name for source in corpus.sources] == ["Makefile", "a.txt", "b.md", "d.jsonl", "c.py"]


def test_labels_do_not_tell_where_the_folder_stands(tmp_path: Path) -> None:
    (tmp_path / "notes" / "x").mkdir(parents=True)
    (tmp_path / "notes" / "x" / "a.txt").write_text("a")
    corpus = corpus_of(tmp_path / "notes", tmp_path / "notes" / "x" / "a.txt")
    corpus.survey(lambda done, total: None)
    assert [record.source for record in corpus.documents(lambda done, total: None)] == ["notes/x/a.txt"]


def test_hidden_tool_binary_and_other_files_are_left_out_and_counted(tmp_path: Path) -> None:
    for folder in (".git", "__pycache__"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "inside.txt").write_text("hidden")
    (tmp_path / ".secret.txt").write_text("hidden")
    (tmp_path / "table.csv").write_text("1,2")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\0")
    (tmp_path / "binary.txt").write_bytes(b"text\0then not")
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.txt")
    corpus = corpus_of(tmp_path)
    assert read(corpus) == ["good"]
    counts = {line.name: line.removed for line in corpus.skipped()}
    assert counts == {"hidden files": 3, "other files": 3, "binary files": 1, "files of another kind": 1}


def test_a_link_that_leads_back_up_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert read(corpus_of(tmp_path)) == ["a"]


def test_a_file_of_broken_utf8_is_refused_by_name_and_the_others_kept(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"fine\nnot \xff fine\n")
    (tmp_path / "good.txt").write_text("good")
    corpus = corpus_of(tmp_path)
    assert read(corpus) == ["good"]
    assert corpus.problem_count == 1
    problem = corpus.problems[0]
    assert problem.file.endswith("bad.txt") and problem.line == 2 and "UTF-8" in problem.message


def test_file_names_that_are_not_unicode_are_read_and_shown_legibly(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("coffee")
    corpus = corpus_of(tmp_path)
    assert read(corpus) == ["coffee"]
    corpus.sources[0].path.encode()


@pytest.mark.parametrize("name", ["missing.txt", "pipe", "table.zip", "binary.txt", "starter:wrold"])
def test_a_source_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "table.zip").write_bytes(b"PK")
    (tmp_path / "binary.txt").write_bytes(b"\0\1\2")
    source = name if name.startswith("starter:") else str(tmp_path / name)
    with pytest.raises(UserError) as error:
        read(corpus_of(source))
    assert name in str(error.value) and "\n" not in str(error.value)
    assert name != "starter:wrold" or "starter:world" in error.value.hint


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = tmp_path / "locked.txt"
    path.write_text("locked")
    path.chmod(0)
    (tmp_path / "open.txt").write_text("open")
    corpus = corpus_of(tmp_path)
    assert read(corpus) == ["open"] and corpus.problem_count == 1
    with pytest.raises(UserError, match="permission denied"):
        read(corpus_of(path))


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    corpus = corpus_of(path)
    corpus.survey(lambda done, total: None)
    path.write_text("two and more")
    with pytest.raises(WorkFailed, match=r"a\.txt changed"):
        list(corpus.documents(lambda done, total: None))


def test_the_starter_data_is_read_with_its_meta() -> None:
    corpus = corpus_of("starter:sentences", "starter:world")
    corpus.survey(lambda done, total: None)
    records = list(corpus.documents(lambda done, total: None))
    assert corpus.problem_count == 0 and len(records) > 8_000
    assert all(texts_in(record)[0] and record.source and record.meta for record in records)
    assert all(source.size > 1_000 for source in corpus.sources)


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n" * 400_000)
    (tmp_path / "b.txt").write_text("b")
    told: list[tuple[int, int]] = []
    corpus = corpus_of(tmp_path, cut=1_000)
    corpus.survey(lambda done, total: told.append((done, total)))
    assert told[-1] == (800_001, 800_001)
    told.clear()
    list(corpus.documents(lambda done, total: told.append((done, total))))
    assert told[-1] == (800_001, 800_001) and len(told) > 2


def mutated(data: bytes, draw: random.Random) -> bytes:
    """`data` with a few random edits: bytes flipped, cut out, doubled, or replaced by something awkward."""
    out = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        place = draw.randrange(len(out) + 1)
        kind = draw.randrange(4)
        if kind == 0 and place < len(out):
            out[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del out[place : place + draw.randint(1, 200)]
        elif kind == 2:
            out[place:place] = out[place : place + draw.randint(1, 200)]
        else:
            awkward = [b"\xff", b"\0", b"\n", b"\r", b"\xed\xa0\x80", b"{" * 5_000, b"\\ud800", b'"', b"NaN"]
            out[place:place] = draw.choice(awkward)
    return bytes(out)


def survive_mutations(folder: Path, count: int) -> None:
    for name in ("tinyshakespeare/input.txt", "mt_bench/question.jsonl", "self_instruct/seed_tasks.jsonl"):
        data = real(name).read_bytes()[:60_000]
        path = folder / Path(name).name
        for seed in range(count):
            path.write_bytes(mutated(data, random.Random(seed)))
            corpus = Corpus([str(path)], 8_192)
            try:
                for text in read(corpus):
                    text.encode()
            except UserError as error:
                assert path.name in str(error)


def test_mutated_files_never_end_in_a_traceback(tmp_path: Path) -> None:
    survive_mutations(tmp_path, 70)


@pytest.mark.soak
def test_mutated_files_never_end_in_a_traceback_at_length(tmp_path: Path) -> None:
    survive_mutations(tmp_path, 1_700)
