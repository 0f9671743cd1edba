"""Generation speed against transformers' generate: the same weights, the same prompts, greedy, in one process.

    python -m benchmarks.generate [--rounds 5] [--shapes tiny,tiny-llama,30m] [--threads 1] [--dtypes fp32,bf16]

32 prompts, all of 32 tokens or of 8 to 56, are continued by 64 tokens each; transformers gets them padded on the left,
with an attention mask. It runs with SDPA and with its plain ("eager") attention, both with its growing cache. The
contenders take turns; ours comes twice, by compiled code where it serves (it needs a C compiler) and by PyTorch's
operations. Each one's 64 steps are timed apart, the first with reading the prompts, and what counts is the
sum of every step's best round, in seconds of CPU: with one thread that is the time on a machine that does nothing else.
Models are loaded before, the code is compiled, once on a machine, and ours laid out for generation, which are told
apart. Whether the tokens agree with transformers' is told with the table.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

from kernels import native
from stages.generate import Engine, Sampling
from stages.models.compiled import SOURCE, VARIABLE
from stages.models.decoder import Decoder, new_decoder
from stages.models.hf import load_model, save_weights
from stages.models.inference import InferenceDecoder
from stages.store.presets import ModelConfig, load_preset

PROMPTS, NEW = 32, 64
OURS = ("plain", "compiled")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MEDIUM = ModelConfig(
    family="llama", layers=8, heads=8, kv_heads=4, width=512, ff_width=1792, context=256, vocab_size=4_096,
    norm_kind="rms", positions="rotary", activation="silu", gated=True, bias=False,
)  # fmt: skip
"""Llama's shape with 30 M parameters beside its embeddings."""

Run = Callable[[list[float]], list[list[int]]]
"""Continues all prompts once, and notes the CPU time when it begins and after each step."""


def contenders(folder: Path, prompts: list[list[int]], dtype: torch.dtype) -> dict[str, Run]:
    """By name, what continues all prompts once."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    model = load_model(folder, dtype)
    with _way("plain"):
        runs = {"plain": _ours(model, prompts)}
    if InferenceDecoder(model).compiled:
        runs["compiled"] = _ours(model, prompts)
    for attention in ("sdpa", "eager"):
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention).eval()
        runs[f"transformers, {attention}"] = _theirs(theirs, ids, mask)
    return runs


@contextmanager
def _way(name: str) -> Iterator[None]:
    """Engines made meanwhile generate by compiled code where it serves ("") or not ("plain")."""
    before = os.environ.get(VARIABLE, "")
    os.environ[VARIABLE] = "plain" if name == "plain" else ""
    try:
        yield
    finally:
        os.environ[VARIABLE] = before


def _ours(model: Decoder, prompts: list[list[int]]) -> Run:
    engine = Engine(model, len(prompts), max(map(len, prompts)) + NEW, logprobs=False)

    def run(times: list[float]) -> list[list[int]]:
        times.append(time.process_time())
        found: dict[int, list[int]] = {engine.add(p, Sampling(temperature=0, max_new_tokens=NEW)): [] for p in prompts}
        while tokens := engine.step():
            for token in tokens:
                found[token.slot].append(token.token)
            times.append(time.process_time())
        return list(found.values())

    return run


def _theirs(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> Run:
    def run(times: list[float]) -> list[list[int]]:
        def note(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            times.append(time.process_time())
            return scores

        times.append(time.process_time())
        with torch.inference_mode():
            found = model.generate(
                ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, use_cache=True, pad_token_id=0,
                eos_token_id=None, logits_processor=[note],
            )  # fmt: skip
        times[-1] = time.process_time()
        return found[:, ids.shape[1] :].tolist()

    return run


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(name: str, dtype: str, threads: int, rounds: int, equal: bool) -> list[str]:
    """Rows of the table: one for each way that serves."""
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
        found = {each: run([]) for each, run in runs.items()}
        layout = {each: _layout(model.to(DTYPES[dtype]), each) for each in runs if each in OURS}
        best = {each: np.full(NEW, np.inf) for each in runs}
        for _ in range(rounds):
            for each, run in runs.items():
                times: list[float] = []
                run(times)
                best[each] = np.minimum(best[each], np.diff(times))
    total = {each: float(steps.sum()) for each, steps in best.items()}
    rival = min((each for each in runs if each not in OURS), key=total.__getitem__)
    first = {each: steps[0] * 1e3 for each, steps in best.items()}
    rows = []
    for ours in layout:
        same = sum(a == b for a, b in zip(found[ours], found[rival], strict=True))
        rows.append(
            f"{name:<11} {dtype}  {threads}  {'32' if equal else '8-56':>5}  {ours:<8} "
            f"{total[ours] * 1e3:7.0f} ({first[ours]:4.0f}) ms {PROMPTS * NEW / total[ours]:9,.0f} "
            f"{total[rival] * 1e3:7.0f} ({first[rival]:4.0f}) ms {rival.split()[1]:<5} "
            f"{total[rival] / total[ours]:7.2f}     {same} of {PROMPTS}  {layout[ours] * 1e3:7.1f} ms"
        )
    return rows


def _layout(model: Decoder, way: str) -> float:
    with _way(way):
        return min(_seconds(lambda: InferenceDecoder(model)) for _ in range(3))


def _compiling() -> str:
    """What compiling costs on a machine that has not done so, in seconds of CPU."""
    with tempfile.TemporaryDirectory() as folder:
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            native.compile_to(SOURCE, Path(folder) / "code.so")
        except native.NotCompiled as why:
            return f"no compiled code: {why}"
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    return f"compiling, once on a machine: {spent:.1f} s of CPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", default="tiny,tiny-llama,30m")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--dtypes", default="fp32,bf16")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {os.cpu_count()} cores;")
    print(f"{PROMPTS} prompts x {NEW} tokens, greedy, caches on, {arguments.rounds} rounds in turns;")
    print("CPU time, every step's best round added up;")
    print("transformers: growing cache, attention mask, padding on the left, whichever of sdpa and eager is faster;")
    print(f"{_compiling()}\n")
    head = "shape       type threads prompt  ours     (first step)       tokens/s  transformers (first)    x time"
    print(f"{head}  same       layout")
    for name in arguments.shapes.split(","):
        for dtype in arguments.dtypes.split(","):
            for threads in map(int, arguments.threads.split(",")):
                for equal in (True, False):
                    print(*measure(name, dtype, threads, arguments.rounds, equal), sep="\n", flush=True)


if __name__ == "__main__":
    main()
