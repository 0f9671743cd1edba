"""A model gives the same numbers whichever attention backend serves it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.kernels.groups import ROOT
from tests.kernels.places import PLACES


@pytest.fixture(scope="module", params=PLACES)
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    interpret = "1" if request.param == "interpreter" else "0"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": interpret}
    command = [sys.executable, "-W", "ignore", "-m", "tests.kernels.model_backends"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("model", "tolerance"), [("gpt2 float32", 1e-5), ("gpt2 bfloat16", 4e-2), ("llama float32", 1e-5)]
)
def test_loss_and_gradients_agree_under_every_backend(found: dict[str, Any], model: str, tolerance: float) -> None:
    outcomes = found[model]
    for backend, outcome in outcomes.items():
        assert outcome["served"] == [backend]
        assert outcome["loss"] == pytest.approx(outcomes["reference"]["loss"], abs=tolerance / 4)
        assert outcome["distance"] <= tolerance
    assert outcomes["triton"]["distance"] > 0


def test_packed_documents_and_decoding_give_what_whole_sequences_give(found: dict[str, Any]) -> None:
    assert found["served"] == ["triton"]
    assert found["packed"] < 1e-5
    assert found["decoded"] < 1e-5
