"""Prompts that somebody has written by a chat template already: with them a model would read the template twice."""

from __future__ import annotations

from itertools import islice

from stages.data.records import read_records
from stages.store.datasets import Dataset
from stages.store.errors import UserError
from stages.store.records import PreferenceRecord, PromptRecord

MARKS = (
    "<|im_start|>",
    "<|start_header_id|>",
    "<|user|>",
    "<start_of_turn>",
    "[INST]",
    "\n\nHuman:",
    "\n\nAssistant:",
    "### Instruction:",
)
"""What published templates write where a turn begins."""

LOOKED_AT = 200
"""Prompts of each part that are looked at."""


def refuse_formatted(dataset: Dataset) -> None:
    """Raise UserError, naming the mark, when most prompts of a dataset hold the same template's mark."""
    for split in dataset.info.records:
        prompts = [
            "\n".join(message.content for message in record.messages)
            for record in islice(read_records(dataset, split), LOOKED_AT)
            if isinstance(record, PreferenceRecord | PromptRecord)
        ]
        for mark in MARKS:
            if sum(mark in prompt for prompt in prompts) > len(prompts) / 2:
                raise UserError(
                    f"The prompts of {dataset.name!r} are formatted by another template already: they hold {mark!r}.",
                    "Build the dataset of messages, one a turn; the model's own template is put around them.",
                )
