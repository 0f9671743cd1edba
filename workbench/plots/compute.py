"""How much compute a token of a run's training takes, where arithmetic tells it exactly."""

from __future__ import annotations

from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.shape import shape_of_run
from stages.store.sizes import flops_per_token
from stages.store.workspace import Workspace

UNKNOWN = "compute is known only of runs that pre-train a decoder"


def flops_of_run(run: RunDir) -> int | None:
    """Floating-point operations to train on one token, by `flops_per_token`; None where its count would not be true.

    It is true of a new decoder: all its tokens go forward and backward through all its weights, in blocks as long as
    its context. An encoder gives logits for the masked places alone, an encoder-decoder writes less than it reads, a
    recurrent decoder attends beyond its context, and in tuning there are padding, adapters, references and rollouts.
    Reads files.
    """
    try:
        shape = shape_of_run(Workspace(run.path.parent.parent), run.spec())
    except (UserError, OSError, ValueError):
        return None  # its tokenizer is gone, or another version wrote it
    return flops_per_token(shape) if shape is not None and shape.kind == "decoder" else None
