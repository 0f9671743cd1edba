"""What a run without a curve has done instead, in a few words: for the empty plot."""

from __future__ import annotations

from typing import Any

from stages.store.specs import TRAINING
from workbench.board.run_board import Entry

MEASURED = (*TRAINING, "evaluate", "in_context")
"""Stages whose runs have curves."""


def in_place_of_a_curve(entry: Entry) -> str:
    """What stands where the curve would: that there is none yet, or what the run made."""
    if entry.live:
        return "no curve yet" if entry.spec.stage in MEASURED else "no curve here; the log tells more"
    made = _made(entry.spec.stage, entry.state.result) if entry.status == "finished" else ""
    return made or "this run logged no curve"


def in_place_of_samples(entry: Entry) -> str:
    """What stands where samples would, of a run that has none."""
    if entry.spec.stage == "sample":
        return "What it writes is read where it is judged: who wrote what is told only then."
    if entry.live:
        when = ": the model writes some as it learns" if entry.spec.stage in TRAINING else ""
        return f"No samples yet{when}. The run goes on if you leave this page or close the app."
    if entry.status == "paused":
        return "No samples yet."
    return "This run wrote no samples."


def about_samples(entry: Entry) -> str:
    """Why the samples of a run ask what they ask: in a sentence, where a person did not choose all of it."""
    settings = entry.spec.settings
    if entry.spec.stage not in TRAINING or not settings.get("probes"):
        return ""
    asked = "What you ask and the" if settings.get("sample_prompts") else "The"
    return (
        f"{asked} twenty probe prompts, the same at every step. Some rest on a falsehood, a prejudice or an ill "
        "intent, so that you see what the model makes of it."
    )


def _made(stage: str, result: dict[str, Any]) -> str:
    match stage, result:
        case "build", {"dataset": str(name), "records": dict(records)}:
            return f"built the dataset {name}: {_count(sum(filter(_is_count, records.values())))} records"
        case "tokenizer", {"vocab_size": size, **rest}:
            each = rest.get("bytes_per_token")
            long = f", {each:.2f} bytes each" if _is_count(each) else ""
            return f"trained a tokenizer of {_count(size)} tokens{long}"
        case "importing", {"model": str(name), "parameters": parameters}:
            return f"imported the model {name}: {_count(parameters)} parameters"
        case "assess", {"records": records, "accuracy": right} if _is_count(right):
            return f"labelled {_count(records)} records, {100 * right:.1f} % rightly"
        case "sample", {"prompts": prompts, "completions": completions, **rest}:
            alike = rest.get("alike")
            same = f", {_count(alike)} of them answered alike" if _is_count(alike) and alike else ""
            return f"wrote {_count(completions)} completions to {_count(prompts)} prompts{same}"
        case "label", {"prompts": prompts, "label_set": str(name)}:
            return f"judged {_count(prompts)} prompts of {name}"
    return ""


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(value: Any) -> str:
    return f"{value:,}" if _is_count(value) else str(value)
