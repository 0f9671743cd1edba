"""How long a run will take, before it is started: by how fast this machine has trained, as far as that is known.

A run that makes a new model takes its operations at the rate of the run whose model is nearest in size.
Instruction tuning goes as the last tuning went here, tokens for tokens and parameters for parameters; before the first
one it is told from pre-training, at the speed of that down to two fifths of it: tuning also answers fixed prompts, and
keeps the conversations of a row apart (0.48 of the speed in a life of the demo on two cores).
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from stages.store.checkpoints import list_checkpoints
from stages.store.errors import UserError
from stages.store.rundir import RunDir, list_runs
from stages.store.workspace import Workspace
from workbench.models.model_cards import long
from workbench.models.rates import Rate, nearest_rate, rates_of_runs, remembered, this_machine
from workbench.models.tuning import parameters_in
from workbench.plots.figures import last_figures

SLOWER = 2.5
"""Times that tuning may take what pre-training takes for as many tokens."""
OPERATIONS = 6
"""Floating-point operations a parameter and token: Kaplan et al., Scaling Laws (arXiv 2001.08361), section 2.1."""


class Speeds(NamedTuple):
    """What is known of this machine."""

    training: list[Rate]
    """Of runs that made a model, else what was timed once."""
    tuning: Rate | None
    """Of the newest finished instruction tuning, all that stands around its steps included."""


def speeds(workspace: Workspace) -> Speeds:
    """Read them off the workspace's runs. Reads files: not for the app's own thread."""
    machine = this_machine()
    timed = remembered(machine)
    training = rates_of_runs(workspace, machine) or ([timed] if timed else [])
    tunings = (_tuning(run, gpu=machine.gpu) for run in list_runs(workspace))
    return Speeds(training, next((rate for rate in tunings if rate is not None), None))


def training_time(known: Speeds, flops: float, parameters: int) -> str:
    """How long a run that makes a new model takes: `about 4 minutes`; "" where nothing tells."""
    rate = nearest_rate(known.training, parameters)
    return _about(flops / rate.flops) if rate else ""


def tuning_time(known: Speeds, tokens: float, parameters: int) -> str:
    """How long instruction tuning on so many tokens takes: `4.0 minutes to 10 minutes`; "" where nothing tells."""
    if not parameters:
        return ""
    if known.tuning is not None:
        return _about(_seconds(known.tuning, tokens, parameters))
    rate = nearest_rate(known.training, parameters)
    if rate is None:
        return ""
    least = _seconds(rate, tokens, parameters)
    return f"{long(least)} to {long(SLOWER * least)}"


def _about(seconds: float) -> str:
    return f"about {long(seconds)}"


def _seconds(rate: Rate, tokens: float, parameters: int) -> float:
    if rate.tokens_per_s:
        return tokens * parameters / (rate.tokens_per_s * rate.parameters)
    return OPERATIONS * tokens * parameters / rate.flops


def _tuning(run: RunDir, *, gpu: bool) -> Rate | None:
    """How fast a tuning went from its start to its end; None for another run, or one that tells nothing."""
    try:
        spec, state = run.spec(), run.state()
    except UserError:
        return None
    here = state.host == socket.gethostname() and state.device and (state.device != "cpu") == gpu
    if spec.stage != "sft" or state.status != "finished" or not here or not (state.started and state.ended):
        return None
    tokens, kept = last_figures(run).get("tokens", 0.0), list_checkpoints(run)
    parameters = parameters_in(kept[-1].path) if kept else 0
    seconds = state.ended - state.started
    if not tokens or not parameters or seconds <= 0:
        return None
    speed = tokens / seconds
    return Rate(OPERATIONS * speed * parameters, parameters, f"the run {spec.name}", speed)
