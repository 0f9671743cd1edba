"""What the stages that fine-tune a model share: opening it, questions that it is asked as it learns, writing it.

A stage keeps its data, its loss and its loop in its own file, and holds these parts; there is no base class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import torch

import assets
from stages.data.conversations import Masker
from stages.data.templates import FILE
from stages.data.tokenizer import TextTokenizer, copy_tokenizer
from stages.generate import Sampling, generate
from stages.loop import any_algorithms
from stages.models.bases import base_folder
from stages.models.decoder import Decoder
from stages.models.hf_config import end_ids
from stages.run import Run
from stages.store.architecture import ModelConfig
from stages.store.errors import UserError
from stages.store.records import Message
from stages.store.sizes import parameter_count
from stages.store.specs.tuning import Tuning
from stages.training.adapting import Ids, open_adapted, open_whole, write_trained
from stages.training.opening import Opened, P, begin

PROBES = Path(assets.__file__).parent / "starter" / "probes.jsonl"


def open_model(
    run: Run,
    settings: Tuning,
    base: Path,
    config: ModelConfig,
    device: torch.device,
    kind: type[P],
    *,
    lr: float,
    eps: float = 1e-8,
    sharding: str | None = None,
) -> Opened[Decoder, P]:
    """The model of `base`, or of the run's last checkpoint, with all weights to train or adapters beside frozen ones.

    kind: what progress.json holds. lr: the peak learning rate of a fresh start. eps: of AdamW. sharding: what each
    process is to hold, ddp or fsdp, where more than this model decides.
    """
    begun = begin(run, settings, device, kind, lr=lr)
    begun = replace(begun, sharding=sharding) if sharding else begun.fitting(config)
    source = begun.checkpoint.path if begun.checkpoint else None
    if settings.method == "lora":
        model = open_adapted(base, source, settings, device, config)
    else:
        model = open_whole(source or base, begun.place, config)
    model.checkpointing = settings.activation_checkpointing
    return begun.optimise(model, parameters=parameter_count(config).total, eps=eps)


def room_for(asked: int | None, model_context: int) -> int:
    """Tokens in a row: as asked, else all that the model sees. UserError when it cannot see so many."""
    if asked and asked > model_context:
        raise UserError(f"The model sees {model_context:,} tokens, fewer than the context of {asked:,}.")
    return asked or model_context


class FixedPrompts:
    """Questions answered before, while and after a model learns, and the tokens that end an answer."""

    def __init__(self, base: Path, template: str, asked: Sequence[str], longest: int) -> None:
        self._tokenizer, self._longest = TextTokenizer.load(base), longest
        with Masker(base, text=template) as masker:
            self._prompts = [(prompt, masker.prompt([Message("user", prompt)])) for prompt in asked]
            ends = (masker.end_of_turn(), self._tokenizer.eos_id, *end_ids(base_folder(base)))
        self.stops = tuple(dict.fromkeys(token for token in ends if token is not None))

    def answer(self, run: Run, step: int, model: Decoder) -> None:
        """Have them answered, each token the likeliest, so that answers can be compared over time."""
        model.eval()
        room = model.config.context // 2
        sampling = Sampling(temperature=0.0, max_new_tokens=min(self._longest, room), stop_ids=self.stops)
        with any_algorithms():
            answers = generate(model, [ids[-room:] for _, ids in self._prompts], sampling)
        for (prompt, _), answer in zip(self._prompts, answers, strict=True):
            text = self._tokenizer.decode(answer)
            run.sample(step, kind="fixed", prompt=prompt, text=text, tokens=len(answer))


def fixed_prompts(asked: Sequence[str], *, probes: bool) -> list[str]:
    """The prompts that were asked for, the probe prompts, or a greeting where there would be none."""
    return [*asked, *(probe_prompts() if probes else [])] or ["Hello"]


def probe_prompts() -> list[str]:
    """The twenty prompts that show what a model makes of false beliefs, harm, sums and the rest."""
    records = [msgspec.json.decode(line) for line in PROBES.read_bytes().splitlines() if line.strip()]
    return [record["messages"][0]["content"] for record in records]


def write_chat_model(
    model: Decoder, folder: Path, base: Path, template: str, stops: Sequence[int], *, keep: str = "merged"
) -> None:
    """Write the model into a checkpoint's folder, with the tokenizer of `base`, the template and the stops."""
    tokenizer = TextTokenizer.load(base)
    write_trained(model, folder, base, Ids(list(stops), tokenizer.pad_id), keep=keep)
    copy_tokenizer(tokenizer, folder)
    (folder / FILE).write_text(template, "utf-8")
