"""The endpoint under load: tokens a second of one request, and of many at once, through HTTP and OpenAI's client.

    python -m benchmarks.serve [--at-once 64] [--rounds 3] [--shapes tiny,tiny-llama,30m]

Models of random weights are served by `workbench serve` on the CPU with one thread; the client runs in this process on
the other core. One request after another and many at once take turns, in four kinds of traffic: what counts is the
ratio within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import openai
import psutil

from benchmarks.generate import MEDIUM
from stages.data.tokenizer import save_tokenizer, train_tokenizer
from stages.models.decoder import new_decoder
from stages.models.hf import save_weights
from stages.store.presets import load_preset
from stages.store.workspace import installation_root


class Asked(NamedTuple):
    """One request: bytes of its prompt, tokens of its answer."""

    prompt: int
    tokens: int


def uniform(prompt: int, tokens: int) -> Callable[[int], Asked]:
    """Requests that are all of one size."""
    return lambda which: Asked(prompt, tokens)


def ragged(which: int) -> Asked:
    """Prompts of 4 to 124 bytes, answers of 12 to 96 tokens, in no order."""
    return Asked(4 + 8 * (which * 5 % 16), 12 + 12 * (which * 3 % 8))


TRAFFIC: dict[str, Callable[[int], Asked]] = {
    "short prompts, long answers": uniform(8, 224),
    "prompts of 16, answers of 96": uniform(16, 96),
    "ragged": ragged,
    "long prompts, short answers": uniform(192, 24),
}
ALONE = 4
"""Requests that are asked one after another for the rate of one: of ragged traffic no single one would do."""


async def ask(client: openai.AsyncOpenAI, model: str, asked: Asked, which: int) -> int:
    """Tokens of one streamed answer: random weights hardly ever end a text, so it has all. No two prompts are alike."""
    prompt = (f"{which:03d} " + "Once upon a time " * 16)[: asked.prompt]
    body: dict[str, Any] = {"model": model, "prompt": prompt, "max_tokens": asked.tokens, "seed": which}
    usage = None
    async for chunk in await client.completions.create(**body, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
    assert usage is not None
    return int(usage.completion_tokens)


class Load(NamedTuple):
    """What some requests came to."""

    rate: float
    """Tokens a second."""
    cpu: float
    """Milliseconds of the server's CPU time a token: unlike the rate, hardly touched by what else the machine does."""


async def measure(url: str, model: str, traffic: Callable[[int], Asked], at_once: int, server: int) -> list[Load]:
    """One round: some requests one after another, then all together."""
    process = psutil.Process(server)
    async with openai.AsyncOpenAI(base_url=url, api_key="bench", max_retries=0, timeout=600) as client:

        async def load(singly: bool) -> Load:
            began, before = time.perf_counter(), sum(process.cpu_times()[:2])
            if singly:
                spread = range(0, at_once, at_once // ALONE + 1)
                tokens = sum([await ask(client, model, traffic(which), which) for which in spread])
            else:
                together = (ask(client, model, traffic(which), which) for which in range(at_once))
                tokens = sum(await asyncio.gather(*together))
            cpu = sum(process.cpu_times()[:2]) - before
            return Load(tokens / (time.perf_counter() - began), 1e3 * cpu / tokens)

        return [await load(True), await load(False)]


def told(name: str, rounds: list[list[Load]]) -> str:
    """A row of the table: medians over the rounds, and how far the ratios within them reach."""
    one, many = (list(column) for column in zip(*rounds, strict=True))
    ratios = sorted(after.rate / before.rate for before, after in rounds)
    cells = [
        name,
        *(f"{statistics.median(load.rate for load in loads):,.0f}" for loads in (one, many)),
        f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})",
        " / ".join(f"{statistics.median(load.cpu for load in loads):.2f}" for loads in (one, many)),
        f"{statistics.median(before.cpu / after.cpu for before, after in rounds):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


@contextlib.contextmanager
def served(shape: str) -> Iterator[tuple[str, str, int]]:
    """A shape's random weights behind an endpoint: its address, what it calls them, and its process."""
    config = MEDIUM if shape == "30m" else load_preset(shape)
    with tempfile.TemporaryDirectory() as folder:
        save_weights(new_decoder(config, 0), Path(folder))
        save_tokenizer(train_tokenizer([], "byte", 260, split_digits=False), Path(folder))
        environment = {**os.environ, "WORKBENCH_SERVE_TOKEN": "bench", "OMP_NUM_THREADS": "1"}
        options = ["--port", "0", "--device", "cpu", "--threads", "1"]
        command = [sys.executable, "-m", "workbench", "serve", folder, *options]
        process = subprocess.Popen(command, cwd=installation_root(), env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        try:
            said = ""
            while not (found := re.search(r"http://\S+/v1", said)):
                line = process.stdout.readline()
                assert line, said
                said += line
            yield found[0], folder, process.pid
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", default="tiny,tiny-llama,30m")
    options = parser.parse_args()
    print(f"Medians of {options.rounds} rounds in turns, streamed; fp32 on one thread; load {os.getloadavg()[0]:.1f}")
    many = f"{options.at_once} at once"
    print(f"| shape, traffic | one, tokens/s | {many}, tokens/s | ratio | server's CPU, ms a token | its ratio |")
    print("|---|---|---|---|---|---|")
    for shape in options.shapes.split(","):
        with served(shape) as (url, model, server):
            for name, traffic in TRAFFIC.items():
                one_round = functools.partial(measure, url, model, traffic, options.at_once, server)
                rounds = [asyncio.run(one_round()) for _ in range(options.rounds)]
                print(told(f"{shape}, {name}", rounds), flush=True)


if __name__ == "__main__":
    main()
