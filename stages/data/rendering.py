"""Rendering templates that others wrote: in a child process with 2 seconds and 256 MB for each conversation.

Jinja's sandbox stops a template from reaching out, not from working for minutes or filling the memory. The child is
`python -P -m stages.data.rendering`; it reads a line of JSON with a template and conversations and writes a line for
each of them. The kernel enforces both limits: the child ends itself by an alarm that no template can take back, and
cannot have more memory. It may write no file. It ends when its stdin does.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from stages.data.templates import Messages, Rendered, render_here, shipped
from stages.store.errors import UserError, WorkFailed
from stages.store.workspace import installation_root

SECONDS = 2.0
ALARM = 1.8
"""Seconds that a conversation has: less than SECONDS, which the end of the process is part of."""
MEMORY = 256 * 2**20
"""Bytes of address space of the child, its libraries included."""
LONGEST = 16 * 2**20
"""Characters that a template may write."""

OTHER = "Choose another template."
TOO_SLOW = f"The chat template takes longer than {SECONDS:.0f} s."
TOO_BIG = f"The chat template needs more than {MEMORY // 2**20} MB of memory."


class Item(msgspec.Struct, frozen=True):
    """A conversation to render."""

    messages: list[dict[str, Any]]
    prompt: bool = False


class Order(msgspec.Struct, frozen=True):
    """What the child is asked: one template over some conversations."""

    template: str
    variables: dict[str, Any]
    items: list[Item]


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one conversation."""

    text: str = ""
    spans: list[tuple[int, int]] = []
    error: str | None = None


class Renderer:
    """Renders conversations with one template; shipped ones in this process, others in a child. For one thread."""

    def __init__(self, template: str, variables: Mapping[str, Any]) -> None:
        self.template, self.variables = template, dict(variables)
        self._trusted = template in shipped().values()
        self._child: _Child | None = None

    def render(self, messages: Messages, *, prompt: bool = False) -> Rendered:
        """One conversation. Raises UserError in a sentence when the template cannot or must not."""
        (found,) = self.render_all([(messages, prompt)])
        if isinstance(found, UserError):
            raise found
        return found

    def render_all(self, items: Sequence[tuple[Messages, bool]]) -> list[Rendered | UserError]:
        """Several, each with its text or what went wrong."""
        if self._trusted:
            return [self._here(messages, prompt) for messages, prompt in items]
        if self._child is None:
            self._child = _Child()
        order = [Item([dict(message) for message in messages], prompt) for messages, prompt in items]
        return list(self._child.render(self.template, self.variables, order))

    def close(self) -> None:
        if self._child is not None:
            self._child.close()

    def _here(self, messages: Messages, prompt: bool) -> Rendered | UserError:
        try:
            return render_here(self.template, messages, prompt=prompt, variables=self.variables)
        except UserError as error:
            return error


class _Child:
    """The process, started when it is needed and again after a template has ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None

    def render(self, template: str, variables: dict[str, Any], items: list[Item]) -> Iterator[Rendered | UserError]:
        done = 0
        while done < len(items):
            process = self._running()
            assert process.stdin and process.stdout
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(msgspec.json.encode(Order(template, variables, items[done:])) + b"\n")
                process.stdin.flush()
            while done < len(items):
                line = process.stdout.readline()
                done += 1
                if not line.endswith(b"\n"):
                    yield self._ended()
                    break
                yield _result(msgspec.json.decode(line, type=Answer))

    def close(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            root = str(installation_root())
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "stages.data.rendering"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=root,
                env={
                    "PATH": os.environ.get("PATH", ""),
                    "PYTHONPATH": root,
                    "PYTHONSAFEPATH": "1",
                    "LC_ALL": "C.UTF-8",
                },
            )
            self._finalizer = weakref.finalize(self, _end, self._process)
        return self._process

    def _ended(self) -> UserError:
        assert self._process is not None
        code = self._process.wait()
        self.close()
        if code == -signal.SIGALRM:
            return UserError(TOO_SLOW, OTHER)
        if code in (-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT, NO_MEMORY):
            return UserError(TOO_BIG, OTHER)
        return WorkFailed(f"The process that renders chat templates ended with exit code {code}.", "Try again.")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe:
                pipe.close()


def _result(answer: Answer) -> Rendered | UserError:
    if answer.error is not None:
        return UserError(answer.error, OTHER)
    return Rendered(answer.text, answer.spans)


NO_MEMORY = 77
"""Exit code of a child that has no memory left to say so."""


def main() -> None:
    """The child: answer until stdin ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        while line := sys.stdin.buffer.readline():
            order = msgspec.json.decode(line, type=Order)
            for item in order.items:
                sys.stdout.buffer.write(msgspec.json.encode(_answer(order, item)) + b"\n")
                sys.stdout.buffer.flush()
    except MemoryError:
        os._exit(NO_MEMORY)


def _answer(order: Order, item: Item) -> Answer:
    signal.setitimer(signal.ITIMER_REAL, ALARM)  # its default action ends the process, whatever the process is doing
    try:
        text, spans = render_here(order.template, item.messages, prompt=item.prompt, variables=order.variables)
        if len(text) > LONGEST:
            return Answer(error=f"The chat template writes more than {LONGEST // 2**20} million characters.")
        return Answer(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), spans)
    except UserError as error:
        return Answer(error=error.title)
    except MemoryError:
        return Answer(error=TOO_BIG)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
