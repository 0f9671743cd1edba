"""What can be set for building a dataset."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about


class Build(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Build a dataset from files and folders: read, clean, drop duplicates, split."""

    sources: Annotated[
        list[str], about("Files and folders (.txt, .md, source code, .jsonl), or starter:NAME.", group="sources")
    ]
    kind: Annotated[Literal["text"], about("What a record is.", group="sources")] = "text"
    text_field: Annotated[
        str, about("The field of a JSONL object that holds the text.", min_length=1, group="sources")
    ] = "text"
    replace: Annotated[
        bool, about("Replace the dataset of this name, once the new one is complete.", group="sources")
    ] = False

    normalise: Annotated[Literal["NFC", "NFKC", "none"], about("Unicode normalisation.", group="cleaning")] = "NFC"
    control_characters: Annotated[
        bool, about("Remove control characters, but not newlines and tabs.", group="cleaning")
    ] = True
    min_characters: Annotated[
        int, about("Shorter documents are dropped.", unit="characters", ge=0, group="cleaning")
    ] = 1
    max_characters: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        about("Longer documents are dropped; empty: no limit.", unit="characters", group="cleaning"),
    ] = None
    deduplicate: Annotated[bool, about("Drop exact duplicates, the first is kept.", group="cleaning")] = True

    split: Annotated[
        str,
        about(
            "Validation part: `documents:0.1` chooses documents by hash, `tail:0.1` takes the end, `none`.",
            pattern=r"^(documents:0?\.\d+|tail:0?\.\d+|none)$",
            group="split",
        ),
    ] = "documents:0.1"
    cut: Annotated[
        int,
        about(
            "A text file longer than this is cut at blank lines into documents; 0 or a tail split: above 4 million.",
            unit="characters",
            ge=0,
            group="split",
        ),
    ] = 8_192
    seed: Annotated[int, about("Seed of the split.", ge=0, le=2**31 - 1, group="split")] = 0
