"""The endpoint under load: tokens a second of one request, and of many at once, through HTTP and OpenAI's client.

    python -m benchmarks.serve [--at-once 64] [--tokens 128] [--rounds 5] [--shapes tiny,tiny-llama,30m]

Models of random weights are served by `workbench serve` on the CPU with one thread; the client runs in this process on
the other core. One request and many take turns; what counts is each one's best round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import openai

from benchmarks.generate import MEDIUM
from stages.data.tokenizer import save_tokenizer, train_tokenizer
from stages.models.decoder import new_decoder
from stages.models.hf import save_weights
from stages.store.presets import load_preset
from stages.store.workspace import installation_root


async def rate(client: openai.AsyncOpenAI, model: str, at_once: int, tokens: int) -> float:
    """Tokens a second of `at_once` streams together. Random weights never end a text, so each has `tokens`."""

    async def one(seed: int) -> int:
        asked: dict[str, Any] = {"model": model, "prompt": "Once upon a time", "max_tokens": tokens, "seed": seed}
        usage = None
        async for chunk in await client.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        ):
            usage = chunk.usage or usage
        assert usage is not None
        return int(usage.completion_tokens)

    began = time.perf_counter()
    counts = await asyncio.gather(*map(one, range(at_once)))
    return sum(counts) / (time.perf_counter() - began)


async def measure(url: str, model: str, at_once: int, tokens: int, rounds: int) -> tuple[float, float]:
    """The best rounds of one request and of many, in turns."""
    alone, together = 0.0, 0.0
    async with openai.AsyncOpenAI(base_url=url, api_key="bench", max_retries=0, timeout=600) as client:
        for _ in range(rounds):
            alone = max(alone, await rate(client, model, 1, tokens))
            together = max(together, await rate(client, model, at_once, tokens))
    return alone, together


def served(shape: str, at_once: int, tokens: int, rounds: int) -> tuple[float, float]:
    """Serve a shape's random weights and measure."""
    config = MEDIUM if shape == "30m" else load_preset(shape)
    with tempfile.TemporaryDirectory() as folder:
        save_weights(new_decoder(config, 0), Path(folder))
        save_tokenizer(train_tokenizer([], "byte", 260, split_digits=False), Path(folder))
        environment = {**os.environ, "WORKBENCH_SERVE_TOKEN": "bench", "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            "-m",
            "workbench",
            "serve",
            folder,
            "--port",
            "0",
            "--device",
            "cpu",
            "--threads",
            "1",
        ]
        process = subprocess.Popen(command, cwd=installation_root(), env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        try:
            said = ""
            while not (found := re.search(r"http://\S+/v1", said)):
                line = process.stdout.readline()
                assert line, said
                said += line
            return asyncio.run(measure(found[0], folder, at_once, tokens, rounds))
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", default="tiny,tiny-llama,30m")
    options = parser.parse_args()
    print(
        f"{options.tokens} tokens a request, streamed, best of {options.rounds} rounds in turns; CPU, fp32, one thread"
    )
    print(f"| shape | one request, tokens/s | {options.at_once} at once, tokens/s | ratio |\n|---|---|---|---|")
    for shape in options.shapes.split(","):
        alone, together = served(shape, options.at_once, options.tokens, options.rounds)
        print(f"| {shape} | {alone:,.0f} | {together:,.0f} | {together / alone:.1f} |", flush=True)


if __name__ == "__main__":
    main()
