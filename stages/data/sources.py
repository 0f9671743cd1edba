"""What a dataset is built from: files and folders, and the starter data, found, checked and read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from stages.data.readers import read_json_lines, read_text, scan, shown
from stages.store.datasets import Filter, Problem, Source
from stages.store.errors import UserError, WorkFailed
from stages.store.names import nearest
from stages.store.records import TextRecord
from stages.store.workspace import installation_root

TEXT = frozenset(".txt .text .md .markdown .rst .org .adoc .tex .log".split())
CODE = frozenset(
    ".py .pyi .js .mjs .jsx .ts .tsx .c .h .cc .cpp .cxx .hpp .hh .cu .cuh .cs .java .kt .kts .scala .go .rs .rb .php "
    ".pl .pm .lua .r .jl .m .mm .swift .dart .ex .exs .erl .hs .ml .mli .fs .clj .lisp .el .scm .vim .sh .bash .zsh "
    ".fish .ps1 .sql .html .htm .css .scss .less .vue .svelte .xml .yaml .yml .toml .ini .cfg .cmake .mk .proto "
    ".graphql .zig .nim .v .sv .vhd .asm .s .f .f90 .pas .ada .d .groovy .gradle .tf .nix".split()
)
NAMES = frozenset("Makefile Dockerfile README LICENSE CMakeLists.txt Rakefile Gemfile".split())
"""Files of these endings and names are taken from folders, besides .jsonl."""

LATER = frozenset(".json .csv .tsv .parquet .arrow .gz .bz2 .xz .zst .zip .tar .pdf .docx .epub".split())
"""Endings that are refused by name: a reader for plain text would make nonsense of them."""

TOOLS = frozenset("__pycache__ node_modules CVS _darcs venv".split())
"""Folders that are skipped like hidden ones."""

STARTER = ("starter:sentences", "starter:world")
PROBLEMS, EXAMPLES = 100, 5
STEP = 1 << 18
"""Bytes between two reports of progress."""

Advance = Callable[[int, int], None]
"""Called with bytes done and bytes in all. It may raise, to cancel."""


class Item(NamedTuple):
    """One thing to read."""

    path: Path
    label: str
    form: Literal["text", "jsonl", "world"]
    named: bool
    """Given by name, not found in a folder."""


class Skipped:
    """Files of a folder that were left out, and why."""

    def __init__(self, name: str, sentence: str) -> None:
        self._name, self._sentence = name, sentence
        self._count, self._examples = 0, list[str]()

    def add(self, path: Path) -> None:
        self._count += 1
        if len(self._examples) < EXAMPLES:
            self._examples.append(shown(path))

    def filters(self) -> list[Filter]:
        """A line for the report, when there is something to say."""
        return [Filter(self._name, self._sentence, self._count, 0, self._examples)] if self._count else []


class Corpus:
    """The sources of one dataset. First `survey`, then `documents`; `problems` and `skipped` grow with both."""

    def __init__(self, sources: list[str], text_field: str, cut: int) -> None:
        self._names, self._field, self._cut = sources, text_field, cut
        self._items: list[tuple[Item, Source, float]] = []
        self.problems: list[Problem] = []
        self.problem_count = 0
        self._hidden = Skipped("hidden files", "Left out hidden files and folders, and folders of tools.")
        self._other = Skipped("other files", "Left out files in folders that are not text, source code or JSONL.")
        self._binary = Skipped("binary files", "Left out files in folders that are not text.")

    @property
    def sources(self) -> list[Source]:
        """Every file that is read, with size and digest."""
        return [source for _, source, _ in self._items]

    @property
    def size(self) -> int:
        """Bytes of all that is read."""
        return sum(source.size for source in self.sources)

    def skipped(self) -> list[Filter]:
        """What was left out of folders."""
        return [line for skipped in (self._hidden, self._other, self._binary) for line in skipped.filters()]

    def survey(self, advance: Advance) -> None:
        """Find the files, take their digests and refuse what cannot be read.

        Raises UserError for a source that does not exist, is binary or has a form that cannot be read.
        """
        items: dict[Path, Item] = {}
        for name in self._names:
            for item in self._find(name):
                items.setdefault(item.path, item)
        steps = _Steps(advance, sum(_size(path) for path in items))
        for item in items.values():
            self._survey(item, steps)

    def documents(self, advance: Advance) -> Iterator[TextRecord]:
        """Every document, in the order of the sources. Raises WorkFailed when a file has changed since the survey."""
        steps = _Steps(advance, self.size)
        for item, source, changed in self._items:
            if item.form == "world":
                yield from _world(steps)
                continue
            try:
                now = item.path.stat()
                if (now.st_size, now.st_mtime) != (source.size, changed):
                    raise WorkFailed(f"{shown(item.path)} changed while it was being read.", "Build again.")
                yield from self._read(item, steps)
            except (OSError, UnicodeDecodeError) as error:
                raise WorkFailed(f"{shown(item.path)} could not be read to its end: {error}.") from error

    def _read(self, item: Item, steps: _Steps) -> Iterator[TextRecord]:
        if item.form == "jsonl":
            return read_json_lines(item.path, item.label, self._field, self._report, steps.add)
        return read_text(item.path, item.label, self._cut, self._report, steps.add)

    def _survey(self, item: Item, steps: _Steps) -> None:
        if item.form == "world":
            self._items.append((item, _world_source(), 0.0))
            return
        try:
            changed = item.path.stat().st_mtime
            found = scan(item.path, text=item.form == "text", advance=steps.add)
        except OSError as error:
            self._unreadable(item, error)
            return
        if found.binary:
            self._refuse_binary(item)
        elif found.problem is not None:
            self._report(found.problem)
        else:
            self._items.append((item, Source(shown(item.path), found.size, found.sha256), changed))

    def _unreadable(self, item: Item, error: OSError) -> None:
        reason = f"cannot be read: {os.strerror(error.errno or 0).lower()}."
        if item.named:
            raise UserError(f"{shown(item.path)} {reason}") from error
        self._report(Problem(shown(item.path), 0, "", f"This file {reason}"))

    def _refuse_binary(self, item: Item) -> None:
        if item.named:
            raise UserError(f"{shown(item.path)} is not text: it holds zero bytes.", "Convert it to UTF-8 text first.")
        self._binary.add(item.path)

    def _report(self, problem: Problem) -> None:
        self.problem_count += 1
        if len(self.problems) < PROBLEMS:
            self.problems.append(problem)

    def _find(self, name: str) -> Iterator[Item]:
        if name.startswith("starter:"):
            yield _starter(name)
            return
        path = Path(name).expanduser().absolute()
        if path.is_dir():
            yield from self._walk(path)
        elif not path.exists():
            raise UserError(f"There is no file or folder {shown(path)}.")
        elif not path.is_file():
            raise UserError(f"{shown(path)} is neither a file nor a folder.")
        elif path.suffix.lower() in LATER:
            raise UserError(
                f"{shown(path)}: files that end in {path.suffix} cannot be read.",
                "Text, source code and JSONL can.",
            )
        else:
            yield Item(path, shown(Path(path.name)), _form(path), named=True)

    def _walk(self, root: Path) -> Iterator[Item]:
        """The readable files below `root`, sorted. Links to folders are not followed."""
        for parent, folders, files in os.walk(root):
            for name in [name for name in folders if name.startswith(".") or name in TOOLS]:
                self._hidden.add(Path(parent, name))
                folders.remove(name)
            folders.sort()
            for path in (Path(parent, name) for name in sorted(files)):
                if path.name.startswith("."):
                    self._hidden.add(path)
                elif not _wanted(path) or not path.is_file():
                    self._other.add(path)
                else:
                    yield Item(path, shown(path.relative_to(root.parent)), _form(path), named=False)


class _Steps:
    """Adds up bytes and passes them on now and then."""

    def __init__(self, advance: Advance, total: int) -> None:
        self._advance, self._total = advance, total
        self._done = self._told = 0

    def add(self, count: int) -> None:
        self._done += count
        if self._done - self._told >= STEP or self._done == self._total:
            self._told = self._done
            self._advance(self._done, self._total)


def _wanted(path: Path) -> bool:
    return path.suffix.lower() in TEXT | CODE | {".jsonl"} or path.name in NAMES


def _form(path: Path) -> Literal["text", "jsonl"]:
    return "jsonl" if path.suffix.lower() == ".jsonl" else "text"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _starter(name: str) -> Item:
    if name not in STARTER:
        raise UserError(f"There is no starter data {name!r}.", nearest(name, STARTER))
    if name == "starter:world":
        return Item(Path(name), name, "world", named=True)
    return Item(installation_root() / "assets" / "starter" / "sentences.jsonl", name, "jsonl", named=True)


def _world(steps: _Steps) -> Iterator[TextRecord]:
    from stages.data.world import pretraining_documents

    for record in pretraining_documents():
        steps.add(len(msgspec.json.encode(record)))
        yield TextRecord(text=record["text"], source=record["source"], meta=record["meta"])


def _world_source() -> Source:
    from stages.data.world import pretraining_documents

    digest, size = hashlib.sha256(), 0
    for record in pretraining_documents():
        line = msgspec.json.encode(record)
        digest.update(line)
        size += len(line)
    return Source("starter:world", size, digest.hexdigest())
