"""Which of a run's processes this one is, told by who started it: torchrun, srun or mpirun. No torch in here."""

from __future__ import annotations

import os
from typing import NamedTuple

from stages.store.errors import UserError, WorkFailed

PROCESSES, ATTEMPT = "WORKBENCH_PROCESSES", "WORKBENCH_ATTEMPT"
"""Set by `stages.training.supervisor` for all processes of a run: how many they are, and a word that no other start of
the run has."""

STARTERS = (
    ("TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_RANK", "MPI_LOCALRANKID", "PMI_SIZE"),
)
"""A variable by which a starter is known, and those that hold rank, rank on this machine, and the count of ranks."""


class LostProcess(WorkFailed):
    """A process cannot go on because another one is gone."""


class Rank(NamedTuple):
    """One process of several that train together."""

    rank: int
    """0 leads: it writes the run's files."""
    size: int
    local: int
    """Its number among those of its machine."""
    attempt: str

    @property
    def leads(self) -> bool:
        return self.rank == 0


ALONE = Rank(0, 1, 0, "")


def my_rank() -> Rank:
    """This process among those of its run; `ALONE` where there is no other.

    Raises UserError when several were wanted and the starter says another number, or nothing.
    """
    wanted = os.environ.get(PROCESSES)
    if wanted is None:
        return ALONE
    for known, rank, local, count in STARTERS:
        if known in os.environ:
            found = int(os.environ.get(count, wanted))
            if found != int(wanted):
                raise UserError(
                    f"The [launch] command started {found} processes and the run wants {wanted}.",
                    "Write {gpus} where the command says how many.",
                )
            return Rank(int(os.environ[rank]), found, int(os.environ.get(local, "0")), os.environ.get(ATTEMPT, ""))
    raise UserError(
        "The [launch] command does not tell a process its rank.",
        "It is read from the variables of torchrun, srun or mpirun; with others, let the command start {torchrun}.",
    )
