"""Log-probabilities under a frozen reference model, computed once before training and kept beside the run.

reference/<key>.<split>   the sum of log p over each completion's own tokens, in nats: float32, little-endian
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.data.comparisons import PackedCompletions, pack
from stages.data.preference_shards import Preferences, PreferenceSet
from stages.data.shards import SPLITS, little_endian
from stages.data.tokenizer import FILE
from stages.models.bases import base_folder, refuse_short_sighted
from stages.models.decoder import Decoder
from stages.models.logprobs import token_logprobs
from stages.run import Run
from stages.store.checkpoints import Checkpoint
from stages.store.errors import UserError
from stages.store.files import disk_errors, sha256_file
from stages.training.adapting import config_of, open_whole

AT_ONCE = 16_384
"""Tokens in a forward pass without gradient, at most, where a single completion is not longer."""

FOLDER = "reference"


def reference_logprobs(
    run: Run, reference: Path, base: Path, data: PreferenceSet, device: torch.device, dtype: torch.dtype
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """log π_ref of every completion of train and of validation, (completions,) each.

    Goes on where an earlier worker was interrupted; the model is loaded only when something is missing, and freed
    again. Raises UserError when the reference has another tokenizer than `base`, or sees too little.
    """
    if sha256_file(base_folder(reference) / FILE) != sha256_file(base_folder(base) / FILE):
        raise UserError(
            f"The reference {reference} has another tokenizer than the model that it is to hold near.",
            "Leave it out: the checkpoint that training goes on from is the reference then.",
        )
    refuse_short_sighted(reference, max(split.longest for split in data.info.splits.values()), "reference")
    folder = run.dir.path / FOLDER
    with disk_errors(run.dir.path):
        folder.mkdir(exist_ok=True)
    key = _key(reference, data, dtype)
    held: list[Decoder] = []

    def model() -> Decoder:
        if not held:
            loaded = open_whole(reference, device, config_of(reference, 0.0))
            held.append(loaded.to(dtype).eval().requires_grad_(False))
        return held[0]

    found = []
    for split, preferences in zip(SPLITS, (data.train, data.val), strict=True):
        file = folder / f"{key}.{split}"
        _fill(run, file, preferences, model, device)
        found.append(np.fromfile(file, little_endian("float32")))
    return found[0], found[1]


def completion_logprobs(model: Decoder, packed: PackedCompletions, device: torch.device) -> Tensor:
    """Σ log p over each completion's own tokens, in nats: (M,) fp32, differentiable."""
    tokens, targets, documents = (torch.from_numpy(part).to(device) for part in packed)
    logprobs_N = token_logprobs(model, tokens, targets, documents)[0]
    which_N = torch.repeat_interleave(documents.diff())
    return torch.zeros(len(documents) - 1, device=device).index_add(0, which_N, logprobs_N)


def _fill(run: Run, file: Path, data: Preferences, model: Callable[[], Decoder], device: torch.device) -> None:
    """Append what is missing, a batch at a time. Batches are the same whoever computes them, and so are the bits."""
    cuts = _cuts(data.lengths)
    done = file.stat().st_size // 4 if file.exists() else 0
    kept = max(cut for cut in cuts if cut <= done)
    with disk_errors(file.parent), file.open("ab") as stream:
        stream.truncate(4 * kept)
        for start, end in pairwise(cut for cut in cuts if cut >= kept):
            run.progress(start, cuts[-1], unit="completions", phase="reading the reference")
            with torch.no_grad():
                logprobs = completion_logprobs(model(), pack(data, np.arange(start, end)), device)
            stream.write(logprobs.cpu().numpy().astype(little_endian("float32")).tobytes())
            stream.flush()


def _cuts(lengths: NDArray[np.int64]) -> list[int]:
    """Where batches of about AT_ONCE tokens begin and end."""
    cuts, tokens = [0], 0
    for number, length in enumerate(lengths.tolist()):
        if tokens and tokens + length > AT_ONCE:
            cuts.append(number)
            tokens = 0
        tokens += length
    return cuts if cuts[-1] == len(lengths) else [*cuts, len(lengths)]


def _key(reference: Path, data: PreferenceSet, dtype: torch.dtype) -> str:
    """Names what the numbers depend on: the model, the dataset in tokens, the arithmetic."""
    info = data.info
    parts = (
        Checkpoint(reference, 0).digest(),
        info.dataset_digest,
        info.tokenizer_digest,
        info.masking_digest,
        str(dtype),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
