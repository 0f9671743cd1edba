"""How many CPU threads a model that answers computes with."""

from __future__ import annotations

import torch

SMALL = 20_000_000
"""Parameters below which more than one CPU thread costs more in waiting than it gains."""
MOST = 8
"""Threads beyond which the products of a single sequence gain nothing."""


class _Given:
    """The threads that the process has from elsewhere, and what was last chosen here in their place."""

    threads = 0
    chosen = 0


def choose_threads(parameters: int, wanted: int | None = None) -> None:
    """Set the threads for a model of so many parameters: as `wanted`, else one where it is small.

    A larger model has again what the process was given, up to MOST, whatever model was loaded before it.
    """
    if (now := torch.get_num_threads()) != _Given.chosen:
        _Given.threads = now
    _Given.chosen = wanted or (1 if parameters < SMALL else min(_Given.threads, MOST))
    torch.set_num_threads(_Given.chosen)
