"""config.json and generation_config.json as Hugging Face folders have them, to and from ModelConfig.

The keys are those that transformers 5.23 writes for the families' causal language models.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from stages.models import config_bert, config_gpt, config_modern, config_t5, config_xl
from stages.store.architecture import ENCODERS, ModelConfig
from stages.store.classifiers import Head, is_classifier
from stages.store.endpoints import refuse_endpoint
from stages.store.errors import UserError

TRANSFORMERS_VERSION = "5.23.0"
MAX_JSON_BYTES = 16 * 1024 * 1024

Ids = dict[str, int | list[int] | None]
"""Special tokens by role (bos, eos, pad). A model may end its text by any of several tokens."""


class Format(NamedTuple):
    """How a family is written down."""

    family: str
    architecture: str


FORMATS = {
    "gpt2": Format("gpt2", "GPT2LMHeadModel"),
    "openai-gpt": Format("gpt1", "OpenAIGPTLMHeadModel"),
    "llama": Format("llama", "LlamaForCausalLM"),
    "mistral": Format("mistral", "MistralForCausalLM"),
    "qwen2": Format("qwen2", "Qwen2ForCausalLM"),
    "qwen3": Format("qwen3", "Qwen3ForCausalLM"),
    "bert": Format("bert", "BertForMaskedLM"),
    "t5": Format("t5", "T5ForConditionalGeneration"),
    "workbench-transformer-xl": Format("transformer-xl", "TransformerXL"),
}
"""By `model_type`."""

REWARD = "ForSequenceClassification"
"""How the classes end that put labels to whole texts; with one label they are reward models."""
LABELLING = (REWARD, "ForTokenClassification", "ForMultipleChoice")
"""How all classes end that label."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError when it is missing, too large, or no JSON object."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path} is larger than a {path.name} can be.")
        value = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Is this a Hugging Face model folder?") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object.")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write it as transformers does: indented, keys in order."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")


MODULES = {"gpt2": config_gpt, "gpt1": config_gpt, "bert": config_bert, "t5": config_t5, "transformer-xl": config_xl}
"""By family, what knows its keys; config_modern for the others."""


def read_config(folder: Path) -> ModelConfig:
    """The shape of the decoder in a model folder. Raises UserError when config.json describes another kind of model."""
    config = read_any_config(folder)
    if config.kind == "encoder":
        raise UserError(
            f"{folder} holds an encoder, which fills blanks and writes no text.",
            "Choose a decoder; `workbench fill` asks an encoder.",
        )
    if config.kind == "encoder-decoder":
        raise UserError(
            f"{folder} holds an encoder-decoder (T5), and a decoder is wanted.",
            "`workbench train seq2seq` goes on from it, `workbench chat` and `workbench fill` ask it.",
        )
    if config.kind == "recurrent decoder":
        raise UserError(
            f"{folder} holds a Transformer-XL, which only pre-training and chat know.",
            "`workbench chat` has it continue a text.",
        )
    return config


def read_any_config(folder: Path) -> ModelConfig:
    """The shape that a model folder's config.json describes. Raises UserError for a model that cannot be built."""
    path = folder / "config.json"
    refuse_endpoint(folder)
    raw = read_json(path)
    refuse_foreign(raw, path)
    family = FORMATS[raw["model_type"]].family
    module = MODULES.get(family, config_modern)
    try:
        return msgspec.convert(module.fields(raw, family) | {"family": family}, ModelConfig)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path} does not describe a model that can be built: {str(error)[:300]}.") from error
    except KeyError as error:
        raise UserError(f"{path} lacks the key {error.args[0]!r}.") from error


def refuse_foreign(raw: dict[str, Any], path: Path) -> None:
    """Raise UserError for a model of unknown architecture, one that brings its own code, or quantised weights."""
    kind = raw.get("model_type")
    if raw.get("auto_map"):
        raise UserError(
            f"{path} asks to run code that comes with the model (auto_map), which is never done here.",
            "Look for the same model in the format of a published architecture.",
        )
    if raw.get("quantization_config"):
        raise UserError(
            f"{path} describes quantised weights, which cannot be used here.",
            "Take the model's original weights in bf16, fp16 or fp32.",
        )
    if not isinstance(kind, str) or kind not in FORMATS:
        raise UserError(
            f"{path} describes a model of type {str(kind)[:60]!r}, which this version does not know.",
            f"It knows {', '.join(FORMATS)}.",
        )


def config_json(config: ModelConfig, dtype: str, ids: Ids) -> dict[str, Any]:
    """What save_pretrained writes as config.json. dtype: "float32", "bfloat16"; ids: special tokens by role."""
    kind = next(kind for kind, form in FORMATS.items() if form.family == config.family)
    module = MODULES.get(config.family, config_modern)
    common = {
        "architectures": [FORMATS[kind].architecture],
        "dtype": dtype,
        "model_type": kind,
        "tie_word_embeddings": config.tied,
        "transformers_version": TRANSFORMERS_VERSION,
        "vocab_size": config.vocab_size,
    }
    special = {f"{name}_token_id": ids.get(name) for name in ("bos", "eos", "pad")}
    return common | special | module.keys(config)


def is_reward_model(folder: Path) -> bool:
    """Whether a model folder's config.json names a class that puts labels to whole texts."""
    return _named(folder).endswith(REWARD)


def head_of(folder: Path) -> Literal["", "reward", "labels"]:
    """What head the model in a folder has, by classifier.json or the class that config.json names: "" for none."""
    named = _named(folder)
    if is_classifier(folder):
        return "labels"
    if not named.endswith(LABELLING):
        return ""
    labels = read_json(folder / "config.json").get("id2label")
    return "reward" if named.endswith(REWARD) and isinstance(labels, dict) and len(labels) == 1 else "labels"


def refuse_reward_model(folder: Path) -> None:
    """Raise UserError for a folder whose model scores or labels texts, where one that writes them is wanted."""
    if not _named(folder).endswith(LABELLING):
        return
    does = "a reward model, which scores" if head_of(folder) == "reward" else "a model that labels"
    raise UserError(f"{folder} holds {does} texts and writes none.", "Choose the model that it was trained from.")


def _named(folder: Path) -> str:
    """The class that config.json names, the first of several."""
    named = read_json(folder / "config.json").get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def reward_config_json(config: ModelConfig, dtype: str, ids: Ids) -> dict[str, Any]:
    """What save_pretrained writes as config.json of the family's …ForSequenceClassification with one label."""
    said = config_json(config, dtype, ids)
    kind = next(form.architecture for form in FORMATS.values() if form.family == config.family)
    base = kind.removesuffix("LMHeadModel").removesuffix("ForCausalLM")
    return said | {"architectures": [base + REWARD], "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}


def labels_config_json(config: ModelConfig, dtype: str, ids: Ids, head: Head) -> dict[str, Any]:
    """What save_pretrained writes as config.json of the family's class that labels as `head` says."""
    said = config_json(config, dtype, ids)
    kind = next(form.architecture for form in FORMATS.values() if form.family == config.family)
    base = re.sub("(LMHeadModel|ForCausalLM|ForMaskedLM)$", "", kind)
    choice = head.task == "choice" and config.family in ENCODERS
    ending = "ForMultipleChoice" if choice else "ForTokenClassification" if head.each_token else REWARD
    labels = head.labels or ["LABEL_0"]
    return said | {
        "architectures": [base + ending],
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def generation_json(config: ModelConfig, ids: Ids) -> dict[str, Any]:
    """What save_pretrained writes as generation_config.json."""
    fixed: dict[str, Any] = {
        "_from_model_config": True,
        "output_attentions": False,
        "output_hidden_states": False,
        "transformers_version": TRANSFORMERS_VERSION,
    }
    special = {f"{name}_token_id": value for name, value in ids.items() if value is not None}
    return fixed | special | ({} if config.family == "gpt1" else {"use_cache": True})


def read_ids(folder: Path) -> Ids:
    """Special tokens by role, as generation_config.json says and, where it is silent, config.json; None for unsaid."""
    said: dict[str, Any] = read_json(folder / "config.json")
    if (folder / "generation_config.json").is_file():
        said = said | {k: v for k, v in read_json(folder / "generation_config.json").items() if v is not None}
    return {role: _ids(said.get(f"{role}_token_id")) for role in ("bos", "eos", "pad")}


def end_ids(folder: Path) -> tuple[int, ...]:
    """The tokens at which a folder's model says that its text ends."""
    ends = read_ids(folder)["eos"]
    return tuple(ends) if isinstance(ends, list) else () if ends is None else (ends,)


def _ids(value: Any) -> int | list[int] | None:
    if isinstance(value, list):
        return [each for each in value if _is_id(each)] or None
    return value if _is_id(value) else None


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
