"""Peak memory of a model folder, in a process of its own: `peak_models.py import|load|save FOLDER` prints it as JSON.

The peak is of resident memory above what the process held before, as a share of the weights.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from pathlib import Path

import psutil

from stages.importing import import_model, inspect
from stages.models.decoder import new_decoder
from stages.models.hf import load_model, save_weights
from stages.store.presets import load_preset


class Peak:
    """The most resident memory while it watches, in bytes above the start."""

    def __enter__(self) -> Peak:
        self.process, self.done = psutil.Process(), threading.Event()
        self.start = self.most = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.done.wait(0.002):
            self.most = max(self.most, self.process.memory_info().rss)


def warm_up() -> None:
    """Load and save a small model, so that what libraries keep for good does not count as the model's."""
    with tempfile.TemporaryDirectory() as place:
        save_weights(new_decoder(load_preset("tiny-llama"), 0), Path(place))
        load_model(Path(place))


def main(verb: str, folder: Path) -> dict[str, float]:
    warm_up()
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    model = load_model(folder) if verb == "save" else None
    with tempfile.TemporaryDirectory() as place, Peak() as peak:
        if verb == "import":
            import_model(inspect(folder), Path(place), "m", lambda *_: None)
        elif model is not None:
            save_weights(model, Path(place))
        else:
            loaded = load_model(folder)
            assert sum(parameter.nbytes for parameter in loaded.parameters()) <= weights
    return {"weights": weights / 1e6, "share": (peak.most - peak.start) / weights}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
