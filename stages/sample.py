"""Sampling: several completions of each prompt, from one checkpoint or from several in turn, to be judged.

Each completion is drawn with a seed of its own, made of the run's seed, the prompt and its number, so that what a run
writes does not depend on how far an earlier worker came: `completions.jsonl` holds a line for each, and a resumed run
goes on with those that are missing.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from stages.asking.completion import open_text_model
from stages.asking.dialogue import asking_template
from stages.data.conversations import Masker
from stages.data.records import read_records
from stages.generate import Sampling, generate
from stages.loop import set_up_torch
from stages.models.bases import base_folder
from stages.run import Run
from stages.store.chat import Turn
from stages.store.checkpoints import Checkpoint
from stages.store.completions import FILE, Line, answered_alike, read_completions, tasks_in
from stages.store.datasets import Dataset
from stages.store.endpoint_http import stream
from stages.store.endpoints import Endpoint, endpoint_in
from stages.store.errors import UserError
from stages.store.files import append_line, drop_torn_line
from stages.store.labels import Prompt
from stages.store.records import ChatRecord, Message, PreferenceRecord, PromptRecord, Record, part_of
from stages.store.specs.chat import Chat
from stages.store.specs.parents import checkpoint_roles
from stages.store.specs.sample import Sample


def run(run: Run) -> dict[str, Any]:
    """Write what is missing, checkpoint by checkpoint."""
    settings = run.settings(Sample)
    prompts = chosen(run.dataset() if run.has("dataset") else None, settings)
    path = run.dir.path / FILE
    drop_torn_line(path)
    done = {(line.prompt, line.k) for line in read_completions(run.dir)}
    device = set_up_torch(run, deterministic=False).type
    roles = checkpoint_roles(run.spec.parents)
    total = len(prompts) * settings.k
    for number, role in enumerate(roles):
        wanted = [
            (place, k)
            for place in range(len(prompts))
            for k in range(number, settings.k, len(roles))
            if (place, k) not in done
        ]
        if not wanted:
            continue
        for line in completions(run.checkpoint(role), prompts, wanted, settings, device, run.warn):
            append_line(path, msgspec.json.encode(line))
            done.add((line.prompt, line.k))
            run.progress(len(done), total, unit="completions", phase=line.checkpoint)
    if not done:
        raise UserError("No prompt fits beside a completion.", "Choose shorter ones, or lower max_new_tokens.")
    alike = sum(answered_alike(candidates) for _, candidates in tasks_in(run.dir))
    return {"prompts": len(prompts), "completions": len(done), "alike": alike}


def chosen(dataset: Dataset | None, settings: Sample) -> list[Prompt]:
    """The prompts that are meant: those of a dataset, else the typed ones. UserError when there are none."""
    every = typed(settings.prompts) if dataset is None else prompts_of(dataset)
    prompts = [prompt for prompt in every if settings.part in ("any", prompt.part)]
    if not prompts:
        where = repr(dataset.name) if dataset is not None else "What was typed"
        raise UserError(f"{where} has no prompts{'' if settings.part == 'any' else f' of part {settings.part}'}.")
    if settings.max_prompts is not None and len(prompts) > settings.max_prompts:
        kept = sorted(random.Random(settings.seed).sample(range(len(prompts)), settings.max_prompts))
        prompts = [prompts[place] for place in kept]
    return prompts


def typed(texts: Iterable[str]) -> Iterator[Prompt]:
    """What people typed, each text once, as the turn of a user."""
    for text in dict.fromkeys(texts):
        messages = [Message("user", text)]
        yield Prompt(messages=messages, part=part_of(messages), source="typed")


def prompts_of(dataset: Dataset) -> Iterator[Prompt]:
    """What the records of a dataset ask, split by split."""
    for record in chain.from_iterable(read_records(dataset, split) for split in dataset.info.records):
        if (prompt := prompt_of(record)) is not None:
            yield prompt


def prompt_of(record: Record) -> Prompt | None:
    """What a record asks; a conversation is asked up to its last answer."""
    if isinstance(record, PromptRecord | PreferenceRecord):
        messages = record.messages
    elif isinstance(record, ChatRecord):
        said = [place for place, message in enumerate(record.messages) if message.role == "assistant"]
        messages = record.messages[: said[-1]] if said else record.messages
    else:
        raise UserError("Prompts are taken from prompts, conversations and preferences.", "Choose such a dataset.")
    if not messages:
        return None
    answer = record.answer if isinstance(record, PromptRecord) else None
    part = part_of(messages, record.meta)
    return Prompt(messages=messages, part=part, answer=answer, source=record.source, meta=record.meta)


def completions(
    folder: Path,
    prompts: Sequence[Prompt],
    wanted: Sequence[tuple[int, int]],
    settings: Sample,
    device: str,
    warn: Callable[[str], object],
) -> Iterator[Line]:
    """The completions `wanted`, as (prompt, k), by one checkpoint, in order.

    Prompts that do not fit beside a completion, which takes half the context at most, are left out; `warn` is told.
    """
    if endpoint := endpoint_in(folder):
        yield from remote_completions(folder, endpoint, prompts, wanted, settings)
        return
    model = open_text_model(folder, device, precision=settings.precision)
    checkpoint = Checkpoint(folder, 0)
    name, digest = checkpoint.title(), checkpoint.digest()
    with Masker(base_folder(folder), text=asking_template(folder, settings.template)) as masker:
        try:
            end = masker.end_of_turn()
        except UserError:
            end = None
        stops = tuple({*model.end_ids, *([end] if end is not None else [])})
        longest = min(settings.max_new_tokens, max(1, model.context // 2))
        room, too_long = model.context - longest, set[int]()
        for start in range(0, len(wanted), settings.slots):
            every = [(one, masker.prompt(prompts[one[0]].messages)) for one in wanted[start : start + settings.slots]]
            too_long |= {place for (place, _), ids in every if not 0 < len(ids) <= room}
            some = [one for one, _ in every if one[0] not in too_long]
            asked = [ids for (place, _), ids in every if place not in too_long]
            samplings = [_sampling(settings, stops, longest, prompts[place], k) for place, k in some]
            found = generate(model.decoder, asked, samplings, max_slots=settings.slots)
            for (place, k), sampling, ids in zip(some, samplings, found, strict=True):
                ended = "end" if ids and ids[-1] in stops else "length"
                yield Line(
                    prompt=place,
                    k=k,
                    asked=prompts[place],
                    text=model.tokenizer.decode([token for token in ids if token not in stops]).strip(),
                    checkpoint=name,
                    digest=digest,
                    sampling=_told(settings, longest, sampling.seed),
                    ended=ended,
                )
        if too_long:
            why = f"for {name} they are empty, or exceed the {room:,} tokens that fit beside a completion"
            warn(f"{len(too_long):,} prompts are left out: {why}.")


def remote_completions(
    folder: Path, endpoint: Endpoint, prompts: Sequence[Prompt], wanted: Sequence[tuple[int, int]], settings: Sample
) -> Iterator[Line]:
    """The same from a model at an endpoint, as many at once as there are slots."""

    def ask(place_k: tuple[int, int]) -> Line:
        place, k = place_k
        prompt, seed = prompts[place], _seed(settings, prompts[place], k)
        turns = [Turn(message.role, message.content) for message in prompt.messages]
        asked = turns if endpoint.kind == "chat" else "\n\n".join(turn.content for turn in turns)
        sampling = Chat(
            temperature=settings.temperature,
            top_k=settings.top_k or 0,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
        )
        parts = list(stream(endpoint, asked, sampling, seed))
        return Line(
            prompt=place,
            k=k,
            asked=prompt,
            text="".join(part.text for part in parts).strip(),
            checkpoint=folder.name,
            digest=Checkpoint(folder, 0).digest(),
            sampling=_told(settings, settings.max_new_tokens, seed),
            ended="length" if any(part.finished == "length" for part in parts) else "end",
        )

    with ThreadPoolExecutor(settings.slots) as pool:
        for start in range(0, len(wanted), settings.slots):  # a group at a time, so that a stop is not kept waiting
            yield from pool.map(ask, wanted[start : start + settings.slots])


def _told(settings: Sample, longest: int, seed: int) -> dict[str, Any]:
    """How a completion was drawn, as it is kept with it."""
    return {
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
        "max_new_tokens": longest,
        "seed": seed,
    }


def _seed(settings: Sample, prompt: Prompt, k: int) -> int:
    key = msgspec.json.encode([settings.seed, prompt.messages, k])
    return int.from_bytes(hashlib.sha256(key).digest()[:4], "big") >> 1


def _sampling(settings: Sample, stops: tuple[int, ...], longest: int, prompt: Prompt, k: int) -> Sampling:
    return Sampling(
        temperature=settings.temperature,
        top_k=settings.top_k or 0,
        top_p=settings.top_p,
        seed=_seed(settings, prompt, k),
        max_new_tokens=longest,
        stop_ids=stops,
    )
