"""Generation speed against transformers' generate: the same weights, the same prompts, greedy, in one process.

    python -m benchmarks.generate [--rounds 5] [--shapes tiny,tiny-llama,30m] [--threads 1,2] [--dtypes fp32,bf16]

32 prompts, all of 32 tokens or of 8 to 56, are continued by 64 tokens each; transformers gets them padded on the left,
with an attention mask. It runs with SDPA and with its plain ("eager") attention, both with its growing cache; the
contenders take turns, and each one's best round counts. Whether the tokens agree is told with the table.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from stages.generate import Sampling, generate
from stages.models.decoder import new_decoder
from stages.models.hf import load_model, save_weights
from stages.store.presets import ModelConfig, load_preset

PROMPTS, NEW = 32, 64
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MEDIUM = ModelConfig(
    family="llama", layers=8, heads=8, kv_heads=4, width=512, ff_width=1792, context=256, vocab_size=4_096,
    norm_kind="rms", positions="rotary", activation="silu", gated=True, bias=False,
)  # fmt: skip
"""Llama's shape with 30 M parameters beside its embeddings."""

Run = Callable[[], list[list[int]]]


def contenders(folder: Path, prompts: list[list[int]], dtype: torch.dtype) -> dict[str, Run]:
    """By name, what continues all prompts once."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    model = load_model(folder, dtype)
    sampling = Sampling(temperature=0, max_new_tokens=NEW)
    runs: dict[str, Run] = {"ours": lambda: generate(model, prompts, sampling, max_slots=len(prompts))}
    for attention in ("sdpa", "eager"):
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention).eval()
        runs[f"transformers, {attention}"] = _theirs(theirs, ids, mask)
    return runs


def _theirs(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> Run:
    def run() -> list[list[int]]:
        with torch.inference_mode():
            found = model.generate(
                ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, use_cache=True, pad_token_id=0,
                eos_token_id=None,
            )  # fmt: skip
        return found[:, ids.shape[1] :].tolist()

    return run


def measure(name: str, dtype: str, threads: int, rounds: int, equal: bool) -> str:
    """One row of the table."""
    torch.set_num_threads(threads)
    config = MEDIUM if name == "30m" else load_preset(name)
    generator = torch.Generator().manual_seed(0)
    lengths = [32] * PROMPTS if equal else torch.randint(8, 57, (PROMPTS,), generator=generator).tolist()
    prompts = [torch.randint(config.vocab_size, (n,), generator=generator).tolist() for n in lengths]
    with tempfile.TemporaryDirectory() as folder:
        model = new_decoder(config, 0)
        for parameter in model.parameters():  # louder than a fresh start, so that the likeliest token is no tie
            parameter.data.mul_(2.0 if parameter.ndim > 1 else 1.0)
        save_weights(model, Path(folder))
        runs = contenders(Path(folder), prompts, DTYPES[dtype])
        found = {each: run() for each, run in runs.items()}
        best = dict.fromkeys(runs, (float("inf"), float("inf")))
        for _ in range(rounds):
            for each, run in runs.items():
                wall, cpu = time.perf_counter(), time.process_time()
                run()
                took = time.perf_counter() - wall, time.process_time() - cpu
                best[each] = min(best[each][0], took[0]), min(best[each][1], took[1])
    ours, ours_cpu = best["ours"]
    rival = min((each for each in runs if each != "ours"), key=lambda each: best[each])
    same = sum(a == b for a, b in zip(found["ours"], found[rival], strict=True))
    wall, cpu = best[rival]
    return (
        f"{name:<11} {dtype}  {threads}  {'32' if equal else '8-56':>5} "
        f"{ours * 1e3:8.0f} ms {PROMPTS * NEW / ours:9,.0f} {wall * 1e3:11.0f} ms ({rival.split()[1]:<5}) "
        f"{wall / ours:7.2f} {cpu / ours_cpu:8.2f}     {same} of {PROMPTS}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", default="tiny,tiny-llama,30m")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--dtypes", default="fp32,bf16")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {os.cpu_count()} cores;")
    print(f"{PROMPTS} prompts x {NEW} tokens, greedy, caches on, {arguments.rounds} rounds in turns, the best of each;")
    print("transformers: growing cache, attention mask, padding on the left, whichever of sdpa and eager is faster\n")
    print("shape       type threads prompt   ours    tokens/s    transformers          x time x CPU time  same text")
    for name in arguments.shapes.split(","):
        for dtype in arguments.dtypes.split(","):
            for threads in map(int, arguments.threads.split(",")):
                for equal in (True, False):
                    print(measure(name, dtype, threads, arguments.rounds, equal), flush=True)


if __name__ == "__main__":
    main()
