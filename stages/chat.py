"""A model on pipes: `python -P -m stages.chat FOLDER`. Requests come in on stdin, text goes out on stdout.

The lines are those of stages.store.chat. One request is answered at a time; others wait. The process ends at once when
its stdin does, so it never outlives the app, and by itself when nobody has asked for anything for a while.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec
import psutil
import pynvml

from stages.models.bases import writer_config
from stages.store import strict
from stages.store.chat import MAX_LINE, Done, Facts, Reply, Request, Trouble, encode
from stages.store.checkpoints import MANIFEST, Checkpoint, verify
from stages.store.endpoints import endpoint_in
from stages.store.errors import UserError
from stages.store.sizes import inference_memory
from stages.store.specs.chat import Chat
from stages.training.devices import CPU, Device, confine_to, visible_gpus

if TYPE_CHECKING:
    from stages.asking.speaking import Answering, Speaker

FLUSH = 0.03
"""Seconds of text that go into one line."""
CACHED = 8_192
"""Tokens of cache that are reckoned with. It grows with the conversation, and few fill a context of 100,000."""
GPU_RESERVE = 800 * 10**6
"""Bytes that a process on a GPU takes beside its weights and cache."""


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl+c is for the app, which then closes our stdin
    out = claim_stdout()
    lines = listen(sys.stdin.buffer)
    try:
        server = Server(out, lines, options.idle)
        try:
            server.load(options.folder, options.device, options.threads)
        except UserError as error:
            server.say(Reply(error=Trouble(error.title, error.hint)))
            return error.exit_code
        server.serve()
    except BrokenPipeError:
        return 0  # the app is gone
    return 0


def claim_stdout() -> BinaryIO:
    """The real stdout for the protocol alone; what libraries print goes to stderr from here on."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return out


def listen(stdin: BinaryIO) -> queue.SimpleQueue[bytes]:
    """Lines from stdin, read in a thread. The end of stdin is the end of the process: there is nothing to save."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        while line := stdin.readline(MAX_LINE + 1):
            lines.put(line)
            while not line.endswith(b"\n") and line:  # the rest of a line that is too long
                line = stdin.readline(MAX_LINE)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


class Server:
    """Answers requests one after the other, and hears a cancel while it does."""

    def __init__(self, out: BinaryIO, lines: queue.SimpleQueue[bytes], idle: float) -> None:
        self._out, self._lines, self._idle = out, lines, idle
        self._waiting: deque[Request] = deque()
        self._running: int | None = None
        self._cancelled = False
        self._speaker: Speaker

    def load(self, folder: Path, device_setting: str, threads: int | None) -> None:
        """Verify and load the checkpoint, and say that it is ready."""
        if not folder.is_dir():
            raise UserError(f"There is no folder {folder}.", "Choose a checkpoint that exists.")
        verify(folder)
        if endpoint := endpoint_in(folder):
            from stages.asking.remote import RemoteSpeaker

            self._speaker = RemoteSpeaker(endpoint)
            self.say(Reply(ready=_facts(folder, self._speaker, CPU._replace(name=endpoint.url), "")))
            return
        device, precision, note = choose_place(folder, device_setting)
        confine_to(device)
        from stages.asking.speaking import open_speaker  # torch: only now that it is known which device it may see

        self._speaker = open_speaker(folder, device.kind, precision=precision, threads=threads)
        self.say(Reply(ready=_facts(folder, self._speaker, device, note)))

    def serve(self) -> None:
        """Answer until nobody has asked for anything for `idle` seconds."""
        while True:
            self._hear()
            if not self._waiting:
                try:
                    self._take(self._lines.get(timeout=self._idle))
                except queue.Empty:
                    return self.say(Reply(ended="idle"))
                continue
            self._answer(self._waiting.popleft())

    def say(self, reply: Reply) -> None:
        """Write one line, whole."""
        rest = memoryview(encode(reply))
        while rest:
            rest = rest[self._out.write(rest) or 0 :]

    def _answer(self, request: Request) -> None:
        self._running, self._cancelled = request.id, False
        try:
            self._complete(self._start(request))
        except UserError as error:
            self._refuse(request.id, error)
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - one request failed; said and kept in the log, the next may work
            traceback.print_exc()
            kind = type(error).__name__
            self._refuse(request.id, UserError(f"The model could not go on: {kind}: {str(error)[:300]}."))
        finally:
            self._running = None
            self._speaker.stop()

    def _start(self, request: Request) -> Answering:
        settings = strict.parse(Chat, request.sampling, "sampling")
        if request.messages is None and request.prompt is None:
            raise UserError("The request has no prompt.")
        return self._speaker.start(request, settings)

    def _complete(self, completion: Answering) -> None:
        text, sent = "", 0.0
        while completion.done is None:
            self._hear()
            text += completion.cancel() if self._cancelled else completion.step()
            if text and time.monotonic() - sent >= FLUSH:
                self.say(Reply(id=self._running, text=text, tokens=completion.generated))
                text, sent = "", time.monotonic()
        if text:
            self.say(Reply(id=self._running, text=text, tokens=completion.generated))
        self.say(Reply(id=self._running, done=completion.done))

    def _hear(self) -> None:
        """Take in what has arrived, without waiting."""
        while not self._lines.empty():
            self._take(self._lines.get())

    def _take(self, line: bytes) -> None:
        """Queue a request or act on a cancel; a line that is neither is refused."""
        if not line.strip():
            return
        try:
            request = decode_request(line)
        except UserError as error:
            self._refuse(None, error)
            return
        if request.cancel is None:
            self._waiting.append(request)
        elif request.cancel == self._running:
            self._cancelled = True
        else:
            self._drop(request.cancel)

    def _drop(self, id_: int) -> None:
        """Cancel what has not begun."""
        for request in [waiting for waiting in self._waiting if waiting.id == id_]:
            self._waiting.remove(request)
            self.say(Reply(id=id_, done=Done(reason="cancelled", tokens=0, seconds=0.0, tokens_per_s=0.0, seed=0)))

    def _refuse(self, id_: int | None, error: UserError) -> None:
        self.say(Reply(id=id_, error=Trouble(error.title, error.hint)))


def decode_request(line: bytes) -> Request:
    """The request in a line; UserError when there is none."""
    if len(line) > MAX_LINE:
        raise UserError(f"A request has more than {MAX_LINE // 2**20} MB.")
    try:
        return msgspec.json.decode(line, type=Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"A request cannot be read: {error}.") from error


def choose_place(folder: Path, setting: str) -> tuple[Device, str, str]:
    """Device and precision with room for the model, and a sentence when it is not the place one would expect.

    A GPU is used when it has room in bf16 or fp32; otherwise the CPU, in fp32, or in bf16 when memory is short.
    Raises UserError when no place has room, or the one that was asked for has not.
    """
    config = writer_config(folder)
    need = {name: inference_memory(config, context=CACHED, dtype=name).total for name in ("fp32", "bf16")}
    gpus = [] if setting == "cpu" else [(free_gpu_bytes(gpu), gpu) for gpu in visible_gpus()]
    if setting == "cuda" and not gpus:
        raise UserError("This machine has no NVIDIA GPU that can be used.", "Choose the device cpu or auto.")
    free, gpu = max(gpus, key=lambda pair: pair[0], default=(0, CPU))
    if gpus and free >= need["fp32"] + GPU_RESERVE:
        return gpu, "auto", ""
    wanted = f"{(need['fp32'] + GPU_RESERVE) / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free on {gpu.name}."
    if setting == "cuda":
        raise UserError(wanted, "Wait for the run that uses it, or choose the device cpu.")
    note = f"The CPU is used: {wanted}" if gpus else ""
    memory = psutil.virtual_memory().available
    for precision in ("fp32", "bf16"):
        if need[precision] < memory:
            return CPU, precision, note
    raise UserError(
        f"The model needs {need['bf16'] / 1e9:.1f} GB of memory and {memory / 1e9:.1f} GB are free.",
        "Close other programs, or choose a smaller model.",
    )


def free_gpu_bytes(gpu: Device) -> int:
    """Free memory of a GPU; 0 when the driver does not say."""
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(gpu.queue)).free)
    except pynvml.NVMLError:
        return 0


def _facts(folder: Path, speaker: Speaker, device: Device, note: str) -> Facts:
    checkpoint = Checkpoint(folder, 0)
    lineage = checkpoint.lineage()
    return Facts(
        kind=speaker.kind,
        parameters=speaker.parameters,
        context=speaker.config.context,
        vocab_size=speaker.config.vocab_size,
        device=device.name,
        precision=speaker.precision,
        name=lineage.name if lineage else folder.name,
        step=lineage.step if lineage else 0,
        digest=checkpoint.digest() if (folder / MANIFEST).is_file() else "",
        note=" ".join(sentence for sentence in (note, speaker.note) if sentence),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stages.chat", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a model folder")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--idle", type=float, default=1_800.0, help="seconds without a request before it ends")
    return parser


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # the thread that reads stdin would make an orderly shutdown abort
