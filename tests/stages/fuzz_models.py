"""Hostile model folders: `fuzz_models.py FOLDER config|header ROUNDS` mutates a good one and prints what came of it."""

from __future__ import annotations

import json
import random
import resource
import shutil
import struct
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from stages.importing import inspect
from stages.models.hf import load_model
from stages.store.errors import UserError

WILD: list[Any] = [
    None, True, -1, 0, 1, 2.5, 1e308, -1e308, 10**9, 2**63, 10**400, "", "\x1b[2J", "x" * 10_000, [], [[]], {}, "NaN",
    {"rope_type": "yarn"}, ["sliding_attention"] * 5, [1] * 1_000, {"a": {"b": {"c": 1}}}, "../../etc/passwd",
]  # fmt: skip


def mutate_json(draw: random.Random, path: Path) -> None:
    """Change, drop or add keys, or break the text."""
    raw = json.loads(path.read_text())
    for _ in range(draw.randint(1, 3)):
        key = draw.choice([*raw, "rope_scaling", "rope_theta", "head_dim", "sliding_window", "layer_types", "auto_map"])
        if draw.random() < 0.25:
            raw.pop(key, None)
        else:
            raw[key] = draw.choice(WILD)
        rope = raw.get("rope_parameters")
        if isinstance(rope, dict) and rope and draw.random() < 0.3:
            rope[draw.choice(list(rope))] = draw.choice(WILD)
    path.write_text(json.dumps(raw))
    if draw.random() < 0.2:
        break_bytes(draw, path)


def break_bytes(draw: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(draw.randint(1, 8)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    path.write_bytes(data[: draw.randrange(len(data))] if draw.random() < 0.3 else data)


def mutate_header(draw: random.Random, path: Path) -> None:
    """Change the JSON at the head of a safetensors file, or its length."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    name = draw.choice(list(header))
    entry = header[name]
    choice = draw.randrange(6)
    if choice == 0:
        header[draw.choice(["../x", "\x1b[0m", "a" * 5_000, "model.norm.weight "])] = header.pop(name)
    elif choice == 1:
        entry["shape"] = draw.choice([[0], [-1], [2**62, 4], [1] * 100, "x", []])
    elif choice == 2:
        entry["dtype"] = draw.choice(["I64", "F8_E4M3", "BOOL", "Q4", 3, "F64", "U8"])
    elif choice == 3:
        entry["data_offsets"] = draw.choice([[0, 0], [2**63, 2**63 + 4], [8, 0], [0, 10**15], None])
    elif choice == 4:
        header.pop(name)
    text = json.dumps(header).encode()
    length = len(text) if choice != 5 else draw.choice([0, 1, 2**40, 2**63, 10**8, len(text) - 3])
    path.write_bytes(struct.pack("<Q", length) + text + body)


def mutate(draw: random.Random, folder: Path, what: str) -> None:
    """One file of the folder: `config` by its keys, `header` by the head of its tensors; now and then by its bytes."""
    name, by_sense = {"config": ("config.json", mutate_json), "header": ("model.safetensors", mutate_header)}[what]
    (break_bytes if draw.random() < 0.15 else by_sense)(draw, folder / name)


def main(source: Path, what: str, rounds: int) -> dict[str, Any]:
    inspect(source)
    load_model(source)
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused, tracebacks = 0, []
    for seed in range(rounds):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "m"
            shutil.copytree(source, folder)
            mutate(random.Random(seed), folder, what)
            try:
                inspect(folder)
                load_model(folder)
            except UserError as error:
                refused += 1
                if "\n" in str(error) or len(str(error)) > 2_000:
                    tracebacks.append(f"{seed}: not one line: {str(error)[:200]!r}")
            except BaseException:  # noqa: BLE001 - what the fuzzing is for
                tracebacks.append(f"{seed}: {traceback.format_exc(limit=-3)}")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024
    return {"refused": refused, "tracebacks": tracebacks, "megabytes": grown}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
