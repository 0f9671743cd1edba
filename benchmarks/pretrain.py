"""Pre-training speed against plain PyTorch loops over transformers' GPT-2, interleaved in one process.

    python -m benchmarks.pretrain [--text FILE] [--steps 2000]

nanoGPT's CPU recipe: bytes, 4 layers, 4 heads, width 128, context 64, batch 12. Every contender sees the same batches
and the same schedule; they take turns of 20 steps, so that a busy machine slows them alike. Speeds are the best turn's.
Afterwards ours is taken apart: the same steps without the flat optimiser, and in fp32, to show what gives what.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stages.data.blocks import Blocks
from stages.loop import cosine_lr
from stages.models.decoder import new_decoder
from stages.optim import AdamW
from stages.store.presets import ModelConfig

SHAPE = ModelConfig(layers=4, heads=4, width=128, context=64, vocab_size=260)
BATCH, TURN, PEAK, WARMUP = 12, 20, 1e-3, 100

Step = Callable[[Tensor, Tensor, float], float]
"""(inputs, targets, learning rate) -> loss"""


def ours(dtype: torch.dtype, *, flat: bool = True) -> tuple[Step, Callable[[Tensor, Tensor], Tensor]]:
    """Our decoder with our optimiser, or (`flat=False`) with torch's fused AdamW in the dtype of the arithmetic."""
    model = new_decoder(SHAPE, seed=0)
    if not flat:
        return _plain_loop(model.to(dtype), lambda x, y: model(x, y))
    optimizer = AdamW(model, betas=(0.9, 0.99), weight_decay=0.1, compute_dtype=dtype)

    def step(x: Tensor, y: Tensor, lr: float) -> float:
        loss = model(x, y)
        loss.backward()
        optimizer.gather(first=True)
        optimizer.clip(1.0)
        optimizer.step(lr)
        return loss.item()

    return step, lambda x, y: model(x, y)


def transformers_loop(dtype: torch.dtype, *, autocast: bool = False) -> tuple[Step, Callable[[Tensor, Tensor], Tensor]]:
    """The loop people write: GPT2LMHeadModel, cross-entropy, clip_grad_norm_, torch's fused AdamW."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=SHAPE.vocab_size,
        n_positions=SHAPE.context,
        n_embd=SHAPE.width,
        n_layer=SHAPE.layers,
        n_head=SHAPE.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
    )
    model = GPT2LMHeadModel(config).to(dtype)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(x).logits
        return F.cross_entropy(logits.float().flatten(0, 1), y.flatten())

    return _plain_loop(model, loss_of)


def _plain_loop(
    model: torch.nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Step, Callable[[Tensor, Tensor], Tensor]]:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)

    def step(x: Tensor, y: Tensor, lr: float) -> float:
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = loss_of(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step, loss_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="a text to train on (default: generated)")
    parser.add_argument("--steps", type=int, default=2_000)
    arguments = parser.parse_args()
    text = arguments.text.read_bytes() if arguments.text else generated_text()
    cut = int(len(text) * 0.9)
    train, held_out = (np.frombuffer(part, dtype=np.uint8) for part in (text[:cut], text[cut:]))
    contenders = {
        "transformers fp32": transformers_loop(torch.float32),
        "transformers bf16": transformers_loop(torch.bfloat16),
        "transformers bf16 autocast": transformers_loop(torch.float32, autocast=True),
        "ours fp32": ours(torch.float32),
        "ours bf16": ours(torch.bfloat16),
        "ours bf16, torch's AdamW": ours(torch.bfloat16, flat=False),
    }
    blocks = Blocks(train, SHAPE.context, seed=0)
    best = dict.fromkeys(contenders, 0.0)
    for start in range(0, arguments.steps, TURN):
        batches = [_split(blocks.batch(BATCH * n, BATCH)) for n in range(start, min(start + TURN, arguments.steps))]
        for name, (step, _) in contenders.items():
            began = time.perf_counter()
            for n, (x, y) in enumerate(batches, start):
                lr = cosine_lr(n, peak=PEAK, floor=PEAK / 10, warmup=WARMUP, total=arguments.steps)
                step(x, y, lr)
            rate = len(batches) * BATCH * SHAPE.context / (time.perf_counter() - began)
            best[name] = max(best[name], rate)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.steps} steps of {BATCH} x 64 tokens"
    )
    print(f"{'':<28} tokens/s   x fp32 loop   x bf16 loop   validation loss")
    fp32, bf16 = best["transformers fp32"], max(v for k, v in best.items() if k.startswith("transformers bf16"))
    for name, (_, loss_of) in contenders.items():
        loss = validation_loss(loss_of, Blocks(held_out, SHAPE.context, seed=0))
        print(f"{name:<28} {best[name]:8,.0f} {best[name] / fp32:11.2f} {best[name] / bf16:13.2f} {loss:15.4f}")


@torch.no_grad()
def validation_loss(loss_of: Callable[[Tensor, Tensor], Tensor], blocks: Blocks) -> float:
    """Nats a byte over all blocks."""
    total = 0.0
    for start in range(0, len(blocks), 64):
        count = min(64, len(blocks) - start)
        total += float(loss_of(*_split(blocks.in_order(start, count)))) * count
    return total / len(blocks)


def _split(blocks: np.ndarray) -> tuple[Tensor, Tensor]:
    tokens = torch.from_numpy(blocks)
    return tokens[:, :-1], tokens[:, 1:]


def generated_text() -> bytes:
    """A megabyte of the starter world."""
    from stages.data.world import pretraining_documents

    def texts() -> Iterator[str]:
        for record in pretraining_documents():
            yield record["text"]

    return "\n\n".join(texts()).encode()


if __name__ == "__main__":
    main()
