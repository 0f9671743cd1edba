"""What can be set for importing a model."""

from __future__ import annotations

from typing import Annotated

import msgspec

from stages.store.specs.base import about


class Importing(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Take in a model of the Hugging Face format: weights, tokenizer and chat template."""

    source: Annotated[
        str, about("Model folder, or the id (org/name) of a model in the local Hugging Face cache.", min_length=1)
    ]
    replace: Annotated[bool, about("Replace the model of this name, once the new one is complete.")] = False
