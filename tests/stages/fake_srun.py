"""Stands in for srun: records its arguments, and starts as many ranks as `--ntasks` says, with Slurm's variables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    record, options = Path(arguments[0]), arguments[1:]
    command = options[next(n for n, word in enumerate(options) if not word.startswith("--")) :]
    tasks = next(word.partition("=")[2] for word in options if word.startswith("--ntasks="))
    record.write_text(json.dumps(options))
    ranks = [
        subprocess.Popen(
            command, env={**os.environ, "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n), "SLURM_NTASKS": tasks}
        )
        for n in range(int(tasks))
    ]
    return max(abs(rank.wait()) for rank in ranks)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
