"""Finding the files that sources name, and by which reader each is read."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from stages.data.opening import GZIP
from stages.data.readers import shown
from stages.store.datasets import Filter
from stages.store.errors import UserError
from stages.store.sources import STARTER, absolute_source, is_spooled

TEXT = frozenset(".txt .text .md .markdown .rst .org .adoc .tex .log".split())
CODE = frozenset(
    ".py .pyi .js .mjs .jsx .ts .tsx .c .h .cc .cpp .cxx .hpp .hh .cu .cuh .cs .java .kt .kts .scala .go .rs .rb .php "
    ".pl .pm .lua .r .jl .m .mm .swift .dart .ex .exs .erl .hs .ml .mli .fs .clj .lisp .el .scm .vim .sh .bash .zsh "
    ".fish .ps1 .sql .html .htm .css .scss .less .vue .svelte .xml .yaml .yml .toml .ini .cfg .cmake .mk .proto "
    ".graphql .zig .nim .v .sv .vhd .asm .s .f .f90 .pas .ada .d .groovy .gradle .tf .nix".split()
)
NAMES = frozenset("Makefile Dockerfile README LICENSE CMakeLists.txt Rakefile Gemfile".split())
"""Files of these endings and names are taken from folders as text."""

Form = Literal["text", "jsonl", "json", "csv", "tsv", "parquet", "arrow", "starter"]
FORMS: dict[str, Form] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
REFUSED = frozenset(".bz2 .xz .zst .zip .tar .tgz .7z .pdf .docx .epub .xlsx .xls .npy .npz .pkl .pt .bin".split())
"""Endings that are refused by name: a reader for plain text would make nonsense of them."""

PACKAGING = frozenset("dataset_info.json dataset_infos.json state.json dataset_dict.json".split())
"""Files beside the records of a saved dataset, which are not records."""

TOOLS = frozenset("__pycache__ node_modules CVS _darcs venv".split())
"""Folders that are skipped like hidden ones."""

EXAMPLES = 5
READABLE = "Text, source code, JSONL, JSON, CSV, TSV, Parquet and Arrow files can be read, and gzip of them."


class Item(NamedTuple):
    """One thing to read."""

    path: Path
    label: str
    form: Form
    named: bool
    """Given by name, not found in a folder."""
    origin: str
    """The source that named it."""


class Skipped:
    """Files that were left out, and why."""

    def __init__(self, name: str, sentence: str) -> None:
        self._name, self._sentence = name, sentence
        self._count, self._examples = 0, list[str]()

    def add(self, path: Path) -> None:
        """Count a file; the first few are kept by name."""
        self._count += 1
        if len(self._examples) < EXAMPLES:
            self._examples.append(shown(path))

    def filters(self) -> list[Filter]:
        """A line for the report, when there is something to say."""
        return [Filter(self._name, self._sentence, self._count, 0, self._examples)] if self._count else []


class Finder:
    """Finds the files of sources; `skipped` tells what it passed by in folders."""

    def __init__(self, form: Form | None = None) -> None:
        self._form = form
        self._hidden = Skipped("hidden files", "Left out hidden files and folders, and folders of tools.")
        self._other = Skipped("other files", "Left out files in folders that hold neither text nor records.")

    def skipped(self) -> list[Filter]:
        """What was passed by so far, a line for each reason."""
        return [*self._hidden.filters(), *self._other.filters()]

    def find(self, source: str) -> Iterator[Item]:
        """The files that a source names. UserError when it names nothing, or nothing that can be read."""
        found = absolute_source(source)
        if found.startswith(STARTER):
            yield Item(Path(found), found, "starter", named=True, origin=found)
            return
        path = Path(found)
        if path.is_dir():
            yield from self._walk(path, source)
        elif not path.exists():
            for one in sorted(glob.iglob(found, recursive=True)):  # noqa: PTH207  # Path.glob takes no whole pattern
                yield from self._walk(Path(one), source) if Path(one).is_dir() else self._matched(Path(one), source)
        elif not path.is_file():
            raise UserError(f"{shown(path)} is neither a file nor a folder.")
        elif self._form is None and path.suffix.lower() in REFUSED:
            raise UserError(f"{shown(path)}: files that end in {path.suffix} cannot be read.", READABLE)
        else:
            label = "stdin" if is_spooled(path) else shown(Path(path.name))
            yield Item(path, label, self._form or form_of(path, look=is_spooled(path)), named=True, origin=source)

    def _matched(self, path: Path, source: str) -> Iterator[Item]:
        if wanted(path) and path.is_file():
            yield Item(path, shown(Path(path.name)), self._form or form_of(path), named=False, origin=source)
        else:
            self._other.add(path)

    def _walk(self, root: Path, source: str) -> Iterator[Item]:
        """The readable files below `root`, sorted. Links to folders are not followed."""
        for parent, folders, files in os.walk(root):
            for name in [name for name in folders if name.startswith(".") or name in TOOLS]:
                self._hidden.add(Path(parent, name))
                folders.remove(name)
            folders.sort()
            for path in (Path(parent, name) for name in sorted(files)):
                if path.name.startswith("."):
                    self._hidden.add(path)
                elif not wanted(path) or not path.is_file():
                    self._other.add(path)
                else:
                    label = shown(path.relative_to(root.parent))
                    yield Item(path, label, self._form or form_of(path), named=False, origin=source)


def wanted(path: Path) -> bool:
    """Whether a file in a folder is to be read, by its name."""
    bare = Path(path.stem) if path.suffix.lower() == ".gz" else path
    suffix = bare.suffix.lower()
    return (suffix in TEXT or suffix in CODE or suffix in FORMS or bare.name in NAMES) and path.name not in PACKAGING


def form_of(path: Path, *, look: bool = False) -> Form:
    """The reader for a file, by its name; by its first bytes when asked to look."""
    bare = Path(path.stem) if path.suffix.lower() == ".gz" else path
    if not look:
        return FORMS.get(bare.suffix.lower(), "text")
    start = _start(path)
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    return "json" if start[:1] in (b"{", b"[") else "text"


def _start(path: Path) -> bytes:
    import gzip
    import zlib

    with path.open("rb") as file:
        start = file.read(4096)
    if not start.startswith(GZIP):
        return start
    try:
        return zlib.decompressobj(wbits=31).decompress(start, 4096)
    except (zlib.error, gzip.BadGzipFile):
        return b""


def is_licence(path: Path) -> bool:
    """Whether a file tells on which terms the others may be used."""
    return path.stem.upper().partition("-")[0] in ("LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT")


def is_readme(path: Path) -> bool:
    """Whether a file describes the others."""
    return path.stem.upper() == "README"


def is_code(path: Path) -> bool:
    """Whether the file's ending is that of source code."""
    return path.suffix.lower() in CODE
