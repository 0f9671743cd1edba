"""Sources: what a folder gives, what is left out and counted, what is refused."""

import gzip
import io
import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from stages.data.sources import Corpus
from stages.store.errors import UserError, WorkFailed
from stages.store.records import KINDS, texts_in
from stages.store.sources import STARTERS, spool


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


LABELLED = {"text": "a", "label": "x"}


def lines(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def surveyed(*sources: Path | str, **options: Any) -> Corpus:
    corpus = Corpus([str(source) for source in sources], 8_192, **options)
    corpus.survey(lambda done, total: None)
    return corpus


def test_data_wins_over_the_licence_and_the_readme_beside_it(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("You may. " * 1_000)
    (tmp_path / "README.md").write_text("What this is. " * 1_000)
    lines(tmp_path / "train.jsonl", LABELLED)
    corpus = surveyed(tmp_path)
    assert corpus.kind == "labelled" and [Path(source.path).name for source in corpus.sources] == ["train.jsonl"]
    assert {line.name: line.removed for line in corpus.skipped()} == {"licences and READMEs": 2}


def test_a_readme_of_code_is_part_of_it_and_its_settings_are_not(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("What this does.")
    (tmp_path / "main.py").write_text("print('hello, world')\n" * 20)
    (tmp_path / "package.json").write_text('{"name": "main", "version": 1}')
    corpus = surveyed(tmp_path)
    assert corpus.kind == "text"
    assert [Path(source.path).name for source in corpus.sources] == ["README.md", "main.py"]
    assert {line.name: line.removed for line in corpus.skipped()} == {"files of another kind": 1}


def test_sources_of_different_kinds_are_refused_until_one_is_chosen(tmp_path: Path) -> None:
    one = lines(tmp_path / "one.jsonl", {"prompt": "Q", "chosen": "A", "rejected": "B"})
    two = lines(tmp_path / "two.jsonl", {"prompt": "Q", "completion": "A"})
    with pytest.raises(UserError, match=r"different kinds: .*one\.jsonl gives preference, .*two\.jsonl gives chat"):
        surveyed(one, two)
    corpus = surveyed(one, two, kind="chat")
    assert len(list(corpus.documents(lambda done, total: None))) == 2


def test_fields_that_nobody_knows_are_named_with_what_to_do(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"frage": "Q", "antwort": "A"})
    with pytest.raises(UserError, match="its fields are: frage, antwort") as error:
        surveyed(path)
    assert "--map prompt=FIELD" in error.value.hint
    corpus = surveyed(path, mapping={"prompt": "frage", "completion": "antwort"})
    assert corpus.kind == "chat" and read(corpus) == ["Q", "A"]


def test_a_refused_record_is_named_by_file_line_and_their_field(tmp_path: Path) -> None:
    good = {"q": "Q", "a": "A"}
    path = lines(tmp_path / "a.jsonl", good, good, good, {"q": "Q", "a": 1.5}, {"q": "Q", "a": ["A"]}, [1])
    corpus = Corpus([str(path)], 8_192, mapping={"prompt": "q", "completion": "a"})
    assert read(corpus) == ["Q", "A"] * 3 + ["Q", "1.5"]
    assert [(problem.line, problem.field) for problem in corpus.problems] == [(5, "a"), (6, "")]


def test_a_glob_gives_the_files_that_match(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "c.txt"):
        lines(tmp_path / "x" / name, {"text": name})
    assert read(corpus_of(tmp_path / "*" / "*.jsonl")) == ["a.jsonl", "b.jsonl"]
    with pytest.raises(UserError, match="No file matches"):
        surveyed(tmp_path / "*.csv")


def test_the_form_can_be_said(tmp_path: Path) -> None:
    path = tmp_path / "table.dat"
    path.write_text("text,label\na,x\n")
    assert surveyed(path).kind == "text"
    assert surveyed(path, form="csv").kind == "labelled"


def hub(home: Path, *, main: str | None) -> None:
    """A cache of the hub with two snapshots of one dataset, of which the second is the newer."""
    repository = home / "hub" / "datasets--org--rhymes"
    for place, revision in enumerate(("first", "second")):
        lines(repository / "snapshots" / revision / "data" / "train.jsonl", {"text": revision})
        os.utime(repository / "snapshots" / revision, (place, place))
    if main:
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(main)


@pytest.mark.parametrize(("main", "found"), [("first", "first"), (None, "second"), ("../../..", "second")])
def test_an_id_is_looked_up_in_the_local_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: str | None, found: str
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    hub(tmp_path, main=main)
    assert read(corpus_of("org/rhymes")) == [found]
    with pytest.raises(UserError, match="no dataset of that name in the Hugging Face cache") as error:
        surveyed("org/rhyme")
    assert "Nothing is fetched" in error.value.hint


def test_a_saved_dataset_is_read_with_all_its_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        folder = tmp_path / "saved" / split
        folder.mkdir(parents=True)
        rows = pa.Table.from_pylist([{"text": f"{split} {n}", "label": n % 2} for n in range(3)])
        with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", rows.schema) as writer:
            writer.write_table(rows)
        (folder / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
        (folder / "dataset_info.json").write_text("{}")
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    corpus = surveyed(tmp_path / "saved")
    assert corpus.kind == "labelled"
    assert read(corpus) == [f"{split} {n}" for split in ("test", "train") for n in range(3)]


@pytest.mark.parametrize("name", STARTERS)
def test_all_starter_data_is_of_the_kind_it_says(name: str) -> None:
    corpus = surveyed(name)
    kind, _ = STARTERS[name]
    found = list(islice(corpus.documents(lambda done, total: None), 50))
    assert corpus.kind == kind and found
    assert all(type(record) is KINDS[kind] and record.source and record.meta for record in found)
    assert corpus.problem_count == 0 and corpus.sources[0].size > 1_000


def test_what_comes_on_standard_input_is_recognised(tmp_path: Path) -> None:
    for data, kind in [
        (b'{"prompt": "Q", "completion": "A"}\n', "chat"),
        (b'[{"text": "a", "label": "x"}]', "labelled"),
        (gzip.compress(b'{"prompt": "Q"}\n'), "prompts"),
        (b"Plain words.", "text"),
    ]:
        path = spool(io.BytesIO(data), tmp_path, "mine")
        corpus = surveyed(path)
        records = list(corpus.documents(lambda done, total: None))
        assert corpus.kind == kind and records[0].source == "stdin"


def test_a_gzip_bomb_in_a_folder_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.data.opening.FREE", 1_000_000)
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(b"x" * 9_000_000))
    (tmp_path / "good.txt").write_text("good")
    corpus = corpus_of(tmp_path)
    assert read(corpus) == ["good"]
    assert "200 times its size" in corpus.problems[0].message
    with pytest.raises(UserError, match=r"bomb\.txt\.gz cannot be read: it unpacks"):
        surveyed(tmp_path / "bomb.txt.gz")
