"""`python -P -m stages.serve FOLDER`: load a checkpoint, and answer HTTP requests until it is interrupted."""

from __future__ import annotations

import argparse
import ipaddress
import os
import secrets
import signal
import socket
import sys
import threading
from pathlib import Path

from stages.chat import choose_place
from stages.models.bases import checkpoint_config
from stages.store.checkpoints import MANIFEST, Checkpoint, verify
from stages.store.errors import UserError
from stages.store.sizes import inference_memory
from stages.training.devices import Device, confine_to

TOKEN = "WORKBENCH_SERVE_TOKEN"
"""The environment variable that hands the token over: arguments can be read by everybody on the machine."""
CACHE_SHARE = 0.5
"""Share of the free memory that the caches of all slots may take together, at the longest texts."""


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        return serve(options)
    except KeyboardInterrupt:
        return 0  # the way to end it
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def serve(options: argparse.Namespace) -> int:
    """Load and serve until interrupted; the exit code."""
    if options.until_stdin_ends:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    listening = listen(options.host, options.port)
    verify(options.folder)
    device, precision, note = choose_place(options.folder, options.device)
    confine_to(device)
    import uvicorn

    from stages.asking.completion import open_text_model  # torch: only now that it is known which device it may see
    from stages.asking.dialogue import Dialogue
    from stages.serve.app import Endpoint, Served

    checkpoint = Checkpoint(options.folder, 0)
    manifest = options.folder / MANIFEST
    digest = checkpoint.digest() if manifest.is_file() else ""
    model = open_text_model(options.folder, device.kind, precision=precision, threads=options.threads)
    length = min(options.max_length or model.context, model.context)
    slots = slots_that_fit(options.folder, options.slots, length, model.precision, device)
    created = int(options.folder.stat().st_mtime)
    served = Served(options.name or options.folder.name, digest, created, model, Dialogue.of(options.folder))
    token = os.environ.get(TOKEN) or secrets.token_urlsafe(24)
    endpoint = Endpoint(served, slots, length)
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"
    lines = [
        f"Serving {served.name} ({'chat' if served.dialogue else 'completions only: a base model'}) on {device.name}: "
        f"{slots} at once, {length:,} tokens each, prompt included."
        f"{'' if options.until_stdin_ends else ' Ctrl+C ends it.'}",
        *([note] if note else []),
        f"  address  {address}",
        f"  token    {token}",
        f"  try      curl {address}/models -H 'Authorization: Bearer {token}'",
    ]
    if not _is_loopback(host):
        lines.append("Anybody who reaches this machine can connect, without encryption: keep the token to yourself.")
    print("\n".join(lines), flush=True)
    app = endpoint.app(token=token, host=options.host)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2, lifespan="on"
    )
    uvicorn.Server(config).run(sockets=[listening])
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket on which to listen. Raises UserError when the address is not ours or in use."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()  # from here on a client that knows the address waits instead of being refused
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"Cannot listen on {host}:{port}: {reason}.", "Choose another --port or --host.") from error
    return listening


def slots_that_fit(folder: Path, wanted: int, length: int, precision: str, device: Device) -> int:
    """At most `wanted` slots, whose caches at `length` tokens take half of what is free. At least one."""
    import psutil

    from stages.chat import free_gpu_bytes

    free = free_gpu_bytes(device) if device.kind == "cuda" else psutil.virtual_memory().available
    dtype = precision if device.kind == "cuda" and precision in ("bf16", "fp16") else "fp32"
    each = inference_memory(checkpoint_config(folder), context=length, dtype=dtype).cache
    return max(1, min(wanted, int(free * CACHE_SHARE / max(each, 1))))


def _end_with_stdin() -> None:
    """Interrupt this process when whoever holds the other end of stdin has gone."""
    while os.read(sys.stdin.fileno(), 4_096):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stages.serve", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a model folder")
    parser.add_argument("--name", default="", help="what clients call the model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--slots", type=int, default=64, help="requests answered at once")
    parser.add_argument("--max-length", type=int, default=None, help="tokens of a text, prompt included")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    parser.add_argument("--until-stdin-ends", action="store_true", help="end with whoever started it")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
