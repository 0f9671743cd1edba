"""Taking in a tokenizer that others made: tokenizer.json, or GPT-2's vocabulary and merges.

A file from elsewhere may be anything, and the library that opens it may panic, fill the memory or not come back. So the
work is done by a child, `python -P -m stages.data.tokenizer_import ORDER`, with limits that the kernel enforces. What
it has written has been opened, used and measured there.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from stages.data.foreign_tokenizers import Choice, Plan, read_plan
from stages.store.errors import UserError, WorkFailed
from stages.store.files import sha256_file, write_atomic
from stages.store.tokenizers import INFO, TokenizerInfo
from stages.store.workspace import installation_root

MEMORY = 480_000_000
"""Bytes of data that the child may have; about 40 MB of them are its own."""
SECONDS = 60.0
"""What the largest published tokenizers take is under 10 s on a slow machine."""
HIGHEST_ID = 4_000_000
"""No published vocabulary comes near; a model has a row for every id."""

NO_MEMORY = 77
"""Exit code of a child that has no memory left to say so."""

TRIALS = (
    "Hello world",
    "  Two  spaces,\n\n\tand 12,345.678 'quotes' (it's) …\r\n",
    "naïve café, Ελλάδα, Привет, 日本語, עברית, 🙂 e\u0301",
    "<|endoftext|><s></s>[SEP]<|im_start|>user\n",
    "a" * 3_000 + " " * 3_000 + "!" * 3_000 + "\n" * 3_000 + "a1" * 3_000,
)
"""Texts that every tokenizer must take."""


class Order(msgspec.Struct, frozen=True):
    """What the child is to do."""

    source: str
    target: str
    name: str
    choice: Choice


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of it: the tokenizer's card, or why there is none."""

    info: TokenizerInfo | None = None
    error: str = ""
    hint: str = ""


def import_tokenizer(
    source: Path,
    target: Path,
    *,
    name: str = "",
    end: str = "",
    pad: str = "",
    rows: int | None = None,
    check: object = None,
) -> TokenizerInfo:
    """Write the tokenizer at `source`, a file or a folder, into the folder `target`, and its tokenizer.info.json.

    end, pad: which of its tokens they are, where its files do not say. A padding token that is missing, or is the end
    of text, is added as the last id; with `rows`, those of a model's embedding, only where there is a row for it.
    check: a function called now and then, which may raise to cancel.
    Raises UserError in one sentence, whatever the files hold, within SECONDS and MEMORY.
    """
    order = Order(str(source.absolute()), str(target.absolute()), name or target.name, Choice(end, pad, rows))
    root = str(installation_root())
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "stages.data.tokenizer_import", msgspec.json.encode(order).decode()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=root,
        env={
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": root,
            "PYTHONSAFEPATH": "1",
            "RAYON_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "LC_ALL": "C.UTF-8",
        },
    )
    try:
        answer = _wait(child, check)
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    return _taken(answer, child.returncode, source)


def _wait(child: subprocess.Popen[bytes], check: object) -> bytes:
    deadline = time.monotonic() + SECONDS + 5
    while True:
        if callable(check):
            check()
        try:
            return child.communicate(timeout=0.1)[0]
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                return b""


def _taken(answer: bytes, code: int | None, source: Path) -> TokenizerInfo:
    if code == 0:
        outcome = msgspec.json.decode(answer, type=Outcome)
        if outcome.info is not None:
            return outcome.info
        raise UserError(outcome.error, outcome.hint)
    other = "Choose another tokenizer."
    if code in (-signal.SIGALRM, -signal.SIGKILL):
        raise UserError(f"The tokenizer in {source} takes longer than {SECONDS:.0f} s to open or use.", other)
    if code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, NO_MEMORY):
        raise UserError(f"The tokenizer in {source} cannot be opened within {MEMORY // 1_000_000} MB of memory.", other)
    raise WorkFailed(f"The process that opens tokenizers ended with exit code {code}.", "Try again.")


def main(arguments: list[str]) -> None:
    """The child: do one order, say the outcome."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)  # its default action ends the process, whatever the process is doing
    order = msgspec.json.decode(arguments[0], type=Order)
    try:
        outcome = attempt(order)
    except MemoryError:
        os._exit(NO_MEMORY)
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
    sys.stdout.buffer.flush()
    os._exit(0)


def attempt(order: Order) -> Outcome:
    """Do one order in this process."""
    try:
        return Outcome(_import(order))
    except UserError as error:
        return Outcome(None, error.title, error.hint)
    except OSError as error:
        return Outcome(None, f"{order.source} cannot be read: {error.strerror or error}.")


def _import(order: Order) -> TokenizerInfo:
    from stages.data.tokenizer import FILE, TextTokenizer, write_files

    source, target = Path(order.source), Path(order.target)
    plan = read_plan(source, order.choice)
    target.mkdir(parents=True, exist_ok=True)
    write_files(target, msgspec.json.encode(plan.tokenizer), plan.config)
    info = _try(TextTokenizer.load(target), plan, order, sha256_file(target / FILE))
    write_atomic(target / INFO, msgspec.json.format(msgspec.json.encode(info), indent=1), durable=False)
    return info


def _try(tokenizer: object, plan: Plan, order: Order, digest: str) -> TokenizerInfo:
    """Use it, and say what was found."""
    from stages.data.tokenizer import TextTokenizer

    assert isinstance(tokenizer, TextTokenizer)
    size = tokenizer.vocab_size
    if size > HIGHEST_ID:
        raise UserError(f"The tokenizer in {order.source} has an id of {size - 1:,}: it is damaged.")
    if order.choice.rows is not None and size > order.choice.rows:
        raise UserError(
            f"The tokenizer in {order.source} has ids up to {size - 1:,}, and the model {order.choice.rows:,} rows.",
            "They do not belong together; or name one of its tokens as padding.",
        )
    notes = list(plan.notes)
    try:
        same = [tokenizer.decode(tokenizer.encode(text)) == text for text in TRIALS]
    except UserError:
        raise
    except MemoryError:
        raise
    except BaseException as error:  # the library's panics are no Exceptions
        sentence = " ".join(str(error).split())[:200]
        raise UserError(f"The tokenizer in {order.source} cannot encode a plain text: {sentence}.") from error
    if not all(same):
        notes.append("Texts do not come back exactly: it changes or drops characters (white space, rare characters).")
    return TokenizerInfo(
        name=order.name,
        type=plan.kind,
        vocab_size=size,
        digest=digest,
        special={role: number for role, token in plan.roles.items() if (number := tokenizer.id_of(token)) is not None},
        source=order.source,
        round_trips=sum(same),
        round_trip_checked=len(same),
        notes=notes,
        created=time.time(),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
