"""What can be set for building a dataset."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from stages.store.specs.base import about


class Build(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Build a dataset from files and folders: read, clean, drop duplicates, split."""

    sources: Annotated[
        list[str],
        about(
            "Files, folders, globs (text, code, JSONL, JSON, CSV, TSV, Parquet; .gz too), starter:NAME, or the id of a "
            "dataset in the local Hugging Face cache.",
            group="sources",
        ),
    ]
    kind: Annotated[
        Literal["auto", "text", "chat", "preference", "prompts", "labelled"],
        about("What a record is; auto: as the sources are found to be.", group="sources"),
    ] = "auto"
    mapping: Annotated[
        list[Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z]\w*=.+$")]],
        about("Our names for fields of the sources, where they are not recognised: prompt=question.", group="sources"),
    ] = []
    format: Annotated[
        Literal["auto", "text", "jsonl", "json", "csv", "tsv", "parquet", "arrow"],
        about("How the files are read; auto: as their names say.", group="sources"),
    ] = "auto"
    replace: Annotated[
        bool, about("Replace the dataset of this name, once the new one is complete.", group="sources")
    ] = False

    label_sets: Annotated[
        list[str], about("Label sets that the records were frozen from, for the lineage.", group="sources")
    ] = []

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
    near_duplicates: Annotated[
        bool, about("Drop records that are nearly like an earlier one, by MinHash.", group="cleaning")
    ] = False
    near_duplicate_threshold: Annotated[
        float, about("Similarity from which on two are near duplicates.", gt=0.0, lt=1.0, group="cleaning")
    ] = 0.8
    near_duplicate_ngram: Annotated[
        int,
        about(
            "What is compared: runs of so many; 5 suits short texts.", unit="characters", ge=1, le=100, group="cleaning"
        ),
    ] = 9
    near_duplicate_limit: Annotated[
        int,
        about("After so many records, no more near duplicates are looked for.", unit="records", ge=1, group="cleaning"),
    ] = 2_000_000
    mask_urls: Annotated[bool, about("Put <url> in place of web addresses.", group="cleaning")] = False
    mask_emails: Annotated[bool, about("Put <email> in place of e-mail addresses.", group="cleaning")] = False
    repair_mojibake: Annotated[
        bool, about("Repair UTF-8 that was once read as Windows-1252: â€™ for ’.", group="cleaning")
    ] = False
    max_line: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        about("Records with a longer line are dropped; empty: no limit.", unit="characters", group="cleaning"),
    ] = None
    drop_empty_answers: Annotated[
        bool, about("Drop records in which an answer or a completion is empty.", group="cleaning")
    ] = False
    drop_bad_roles: Annotated[
        bool, about("Drop conversations without an answer, or whose turns do not alternate.", group="cleaning")
    ] = False
    drop_ties: Annotated[
        bool, about("Drop rankings that prefer nothing: all ranks tied, or all completions equal.", group="cleaning")
    ] = False
    unique_prompts: Annotated[
        bool, about("Drop records whose prompt has come before, so that none is in two parts.", group="cleaning")
    ] = False
    max_same_answer: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None,
        about("Keep at most so many records with one and the same answer.", unit="records", group="cleaning"),
    ] = None
    decontaminate: Annotated[
        list[str], about("Drop records that share n-grams with these datasets or starter sources.", group="cleaning")
    ] = []
    decontaminate_ngram: Annotated[
        int, about("Length of these n-grams.", unit="words", ge=2, le=100, group="cleaning")
    ] = 13

    quality: Annotated[
        bool, about("Drop poor documents by the rules of Gopher and C4 below; made for prose.", group="quality")
    ] = False
    max_repetition: Annotated[
        Annotated[float, msgspec.Meta(gt=0.0)] | None,
        about("Repeated lines, paragraphs and n-grams, as a multiple of Gopher's limits.", group="quality"),
    ] = 1.0
    min_words: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None, about("Fewest words; Gopher: 50.", unit="words", group="quality")
    ] = None
    min_mean_word: Annotated[
        Annotated[float, msgspec.Meta(ge=0.0)] | None,
        about("Shortest mean word.", unit="characters", group="quality"),
    ] = 3.0
    max_mean_word: Annotated[
        Annotated[float, msgspec.Meta(gt=0.0)] | None,
        about("Longest mean word.", unit="characters", group="quality"),
    ] = 10.0
    max_symbols: Annotated[
        Annotated[float, msgspec.Meta(ge=0.0)] | None,
        about("Most hashes and ellipses for each word.", group="quality"),
    ] = 0.1
    min_alphabetic: Annotated[
        Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None,
        about("Smallest share of words that have a letter.", group="quality"),
    ] = 0.8
    max_bullet_lines: Annotated[
        Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None,
        about("Largest share of lines that start with a bullet.", group="quality"),
    ] = 0.9
    max_ellipsis_lines: Annotated[
        Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None,
        about("Largest share of lines that end in an ellipsis.", group="quality"),
    ] = 0.3
    drop_placeholders: Annotated[bool, about("Drop documents with “lorem ipsum”.", group="quality")] = True

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
