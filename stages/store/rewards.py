"""What a reward model's checkpoint says of its scores: reward.json beside the weights."""

from __future__ import annotations

from pathlib import Path

import msgspec

from stages.store.errors import UserError

FILE = "reward.json"


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Where raw scores lie on reference samples. Differences of raw scores are log-odds, and stay what they are."""

    mean: float = 0.0
    std: float = 1.0
    samples: int = 0
    """Completions they were taken over; 0: nobody knows, and normalised scores are the raw ones."""

    def normal(self, score: float) -> float:
        """The score with mean 0 and standard deviation 1 on the reference samples."""
        return (score - self.mean) / self.std


def read_scale(folder: Path) -> Scale:
    """The scale of the reward model in a folder; that of raw scores for a folder that others wrote."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Scale)
    except FileNotFoundError:
        return Scale()
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
