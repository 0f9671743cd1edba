"""What a chat looks up before it asks a model."""

from __future__ import annotations

from typing import Annotated

import msgspec

from stages.store.specs.base import about


class Retrieval(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Passages of a folder or a dataset that are given to the model with each question in chat."""

    source: Annotated[
        Annotated[str, msgspec.Meta(min_length=1)] | None,
        about("A folder, a file or a dataset to answer from; empty: none."),
    ] = None
    passages: Annotated[int, about("Passages that are given with a question, at most.", ge=1, le=50)] = 3
    frame: Annotated[
        Annotated[str, msgspec.Meta(pattern=r"\{passages\}[\s\S]*\{question\}|\{question\}[\s\S]*\{passages\}")] | None,
        about(
            r"How they are put together: text with {passages} and {question}, \n for a new line. Passages are parted "
            "by blank lines, by spaces in a frame of one line; empty: the passages, a blank line, the question."
        ),
    ] = None
