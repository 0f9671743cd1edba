"""Best-of-n: n answers to each prompt, scored by a reward model or a function, and a dataset of what came out.

`best` keeps the answer of highest score as a conversation: fine-tuning on these is rejection sampling (Touvron et al.,
Llama 2, arXiv 2307.09288, section 3.2.3). `ranking` keeps all different answers with ranks by score, for DPO or a
reward model. Answers stand in scored.jsonl as they come; a resumed run writes those that are missing, the same ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from stages.asking.completion import TextModel, open_text_model
from stages.data.conversations import Masker, choose_template
from stages.data.edit import write_set
from stages.data.shards import SPLITS
from stages.loop import set_up_torch
from stages.models.bases import base_folder, refuse_short_sighted
from stages.policies.rollouts import Prompts, TokenizedPrompt, Writer, read_prompts, seeds_of
from stages.policies.scoring import Response, Score, open_score, refuse_unanswered
from stages.run import Run
from stages.store.building import building
from stages.store.checkpoints import Checkpoint
from stages.store.datasets import DatasetInfo, list_datasets
from stages.store.errors import UserError
from stages.store.files import append_line, drop_torn_line
from stages.store.records import ChatRecord, Message, PreferenceRecord, Record
from stages.store.specs.best_of import BestOf

FILE = "scored.jsonl"


class Scored(msgspec.Struct, frozen=True):
    """The answers to a prompt that came to their end, with their scores. `place`: of the prompt in its split."""

    split: str
    place: int
    texts: list[str]
    scores: list[float]


def run(run: Run) -> dict[str, Any]:
    """Answer and score every prompt, then write the dataset that has the run's name."""
    settings, dataset = run.settings(BestOf), run.dataset()
    device = set_up_torch(run, deterministic=False).type
    folder = run.checkpoint()
    model = open_text_model(folder, device, precision=settings.precision)
    template = choose_template(folder, settings.template)
    room = model.context - settings.max_new_tokens
    if room < 1:
        raise UserError(f"The model sees {model.context:,} tokens: none are left for prompts.", "Lower max_new_tokens.")
    with Masker(base_folder(folder), text=template) as masker:
        prompts = {split: read_prompts(dataset, split, masker, room, settings.part) for split in SPLITS}
        end = masker.end_of_turn()
    _tell_left_out(run, prompts)
    asked = {split: found.asked[: settings.max_prompts] for split, found in prompts.items()}
    if not any(asked.values()):
        raise UserError(f"{dataset.name!r} has no prompts of part {settings.part} that can be answered.")
    stops = tuple(dict.fromkeys((end, *model.end_ids)) if end is not None else model.end_ids)
    writer = Writer(model.tokenizer, stops, settings.max_new_tokens, settings.slots)
    reward = run.checkpoint("reward") if "reward" in run.spec.parents else None
    refuse_unanswered(settings, reward, (one.prompt for some in asked.values() for one in some))
    if reward is not None:
        longest = max(len(one.tokens) for some in asked.values() for one in some)
        refuse_short_sighted(reward, longest + settings.max_new_tokens, "reward model")
    score = open_score(settings, reward, folder, template, device, precision=settings.precision)
    found = answer(run, model, writer, score, asked, settings)
    return write(run, asked, found, settings, judge_of(reward, settings))


def answer(
    run: Run, model: TextModel, writer: Writer, score: Score, asked: dict[str, list[TokenizedPrompt]], settings: BestOf
) -> list[Scored]:
    """The scored answers to all prompts; only those that an earlier worker has not left are drawn."""
    path, found = run.dir.path / FILE, scored(run)
    known = {(one.split, one.place) for one in found}
    places = [(split, place) for split in SPLITS for place in range(len(asked[split]))]
    together = max(1, settings.slots // settings.n)
    for start in range(0, len(places), together):
        wanted = [one for one in enumerate(places[start : start + together], start) if one[1] not in known]
        if not wanted:
            continue
        repeated = [asked[split][place] for _, (split, place) in wanted for _ in range(settings.n)]
        seeds = [seed for number, _ in wanted for seed in seeds_of(settings.seed, number * settings.n, settings.n)]
        said = writer.write(model.decoder, repeated, seeds, settings.temperature)
        parts = zip(said.asked, said.texts, said.completions, strict=True)
        scores = score([Response(one.prompt, text, ids, [*one.tokens, *ids]) for one, text, ids in parts])
        for row, (_, (split, place)) in enumerate(wanted):
            whole = [each for each in range(row * settings.n, (row + 1) * settings.n) if said.ended[each]]
            line = Scored(split, place, [said.texts[each] for each in whole], [scores[each] for each in whole])
            append_line(path, msgspec.json.encode(line))
            found.append(line)
        run.progress(min(start + together, len(places)), len(places), unit="prompts", phase="answering")
    return sorted(found, key=lambda one: (SPLITS.index(one.split), one.place))


def scored(run: Run) -> list[Scored]:
    """What earlier workers of the run have left, a line that was torn dropped."""
    path = run.dir.path / FILE
    drop_torn_line(path)
    return [msgspec.json.decode(line, type=Scored) for line in path.read_bytes().splitlines()] if path.exists() else []


def write(
    run: Run, asked: dict[str, list[TokenizedPrompt]], found: list[Scored], settings: BestOf, judge: str
) -> dict[str, Any]:
    """Write the dataset; how many prompts it has, and how much the best answers are better than all."""
    records: dict[str, list[Record]] = {split: [] for split in SPLITS}
    least = float("-inf") if settings.min_score is None else settings.min_score
    kept = [one for one in found if one.scores and max(one.scores) >= least]
    for one in kept:
        prompt = asked[one.split][one.place]
        record = _best(prompt, one) if settings.keep == "best" else _ranking(prompt, one, judge)
        if record is not None:
            records[one.split].append(record)
    if not records["train"]:
        raise UserError("No prompt is left for training.", "Lower min_score, or draw more answers.")
    kind = "chat" if settings.keep == "best" else "preference"
    # A worker that died behind its dataset may write it again.
    own = any(one.name == run.spec.name and one.info.run == run.dir.id for one in list_datasets(run.workspace))
    with building(run.workspace.datasets, run.spec.name, "dataset", replace=own) as folder:
        info = DatasetInfo(
            name=run.spec.name,
            kind=kind,  # type: ignore[arg-type]  # one of two literals
            digest="",
            records={},
            read=len(found),
            split="as its prompts",
            settings=msgspec.to_builtins(settings),
            run=run.dir.id,
        )
        write_set(folder, info, records)
    counts = {split: len(some) for split, some in records.items()}
    print(f"{run.spec.name}, {kind}: {counts['train']:,} for training, {counts['val']:,} for validation", flush=True)
    return {
        "dataset": run.spec.name,
        "records": counts,
        "left_out": len(found) - sum(counts.values()),
        "mean_score": _mean([score for one in found for score in one.scores]),
        "mean_best": _mean([max(one.scores) for one in found if one.scores]),
    }


def judge_of(reward: Path | None, settings: BestOf) -> str:
    """Who ranked, for the records: the reward model, or the function."""
    if reward is None:
        return f"rule:{'exact' if settings.reward == 'auto' else settings.reward}"
    return f"model:{Checkpoint(reward, 0).title()}"


def _best(asked: TokenizedPrompt, one: Scored) -> ChatRecord:
    best = max(range(len(one.scores)), key=one.scores.__getitem__)
    prompt = asked.prompt
    meta = prompt.meta | {"score": one.scores[best], "best_of": len(one.scores)}
    messages = [*prompt.messages, Message("assistant", one.texts[best])]
    return ChatRecord(messages=messages, source=prompt.source, meta=meta)


def _ranking(asked: TokenizedPrompt, one: Scored, judge: str) -> PreferenceRecord | None:
    """The different answers by score; None where the scores prefer nothing."""
    scores = dict(reversed(list(zip(one.texts, one.scores, strict=True))))
    order = sorted(set(scores.values()), reverse=True)
    if len(order) < 2:
        return None
    texts = list(dict.fromkeys(one.texts))
    prompt = asked.prompt
    return PreferenceRecord(
        messages=prompt.messages,
        completions=texts,
        ranks=[order.index(scores[text]) + 1 for text in texts],
        scores=[scores[text] for text in texts],
        annotator=judge,
        source=prompt.source,
        meta=prompt.meta,
    )


def _tell_left_out(run: Run, prompts: dict[str, Prompts]) -> None:
    for split, found in prompts.items():
        if found.left_out:
            run.warn(f"{found.left_out:,} prompts of {split} are left out: {found.why}.")


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
