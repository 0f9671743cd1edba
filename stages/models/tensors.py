"""Writing tensors to safetensors files as other files are written: the umask's permissions, the system's errors."""

from __future__ import annotations

import os
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write `path`. Raises OSError with the system's error number when the disk refuses; the library only names it."""
    path.touch()
    mode = path.stat().st_mode  # what the umask gives; safetensors would leave 0600
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(mode)
