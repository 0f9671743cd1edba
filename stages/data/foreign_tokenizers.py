"""Tokenizer files of others: found, read, and put into the form that ours have. Nothing is opened by a library here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stages.data.vocabularies import PAD
from stages.store.errors import UserError

LARGEST = 100_000_000
"""Bytes of a file; the largest published tokenizer.json has 34 MB."""

VOCABULARIES = {"encoder.json": "vocab.bpe", "vocab.json": "merges.txt"}
"""GPT-2's vocabulary with the file of merges beside it, as OpenAI and as transformers name them."""

KINDS = {"BPE": "bpe", "WordPiece": "wordpiece", "Unigram": "unigram", "WordLevel": "wordlevel"}
ROLES = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")

ENDS = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[SEP]", "<|im_end|>")
"""Tokens that end a text wherever they are special, the first that is there; for files that do not say."""

ADD_ONE = "Leave --pad out to add one."
READABLE = "A tokenizer.json, or encoder.json with vocab.bpe (vocab.json with merges.txt), can be imported."


class Choice(msgspec.Struct, frozen=True):
    """What a person says of the tokenizer: its end-of-text and padding tokens, and the rows of its model."""

    end: str = ""
    pad: str = ""
    rows: int | None = None


class Plan(NamedTuple):
    """The files to write, and what was done to them."""

    tokenizer: dict[str, Any]
    config: dict[str, Any]
    kind: str
    roles: dict[str, str]
    notes: list[str]


def read_plan(source: Path, choice: Choice) -> Plan:
    """Read the tokenizer at `source`, a file or a folder. UserError in one sentence for what cannot be one."""
    plan, config = _find(source)
    model = _table(plan.get("model"), source, "model")
    kind = KINDS.get(str(model.get("type", "BPE")))
    if kind is None:
        raise UserError(f"{source} holds a model of the kind {str(model.get('type'))[:40]!r}, which is not known.")
    added = plan.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(t, dict) and isinstance(t.get("content"), str) for t in added):
        raise UserError(f"{source}: 'added_tokens' is not a list of tokens.")
    names = _names(model, source) | {str(token["content"]) for token in added}
    roles = {role: token for role in ROLES if (token := _token(config.get(f"{role}_token"))) in names and token}
    notes: list[str] = []
    roles["eos"] = _end(roles, names, added, choice, source, notes)
    roles["pad"] = _pad(roles, names, added, model, choice, source, notes)
    _make_special(added, set(roles.values()), model)
    plan |= {"added_tokens": added, "padding": None, "truncation": None}
    kept = {key: value for key, value in config.items() if key not in ("auto_map", "tokenizer_file", "name_or_path")}
    named = {f"{role}_token": token for role, token in roles.items()}
    kept = {"tokenizer_class": "PreTrainedTokenizerFast", **kept, **named}
    return Plan(plan, kept, kind, roles, notes)


def _find(source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """tokenizer.json and tokenizer_config.json as JSON, made up for GPT-2's files."""
    if not source.exists():
        raise UserError(f"There is no file or folder {source}.")
    if source.is_dir():
        names = ("tokenizer.json", *VOCABULARIES)
        found = next((source / name for name in names if (source / name).is_file()), None)
        if found is None:
            raise UserError(f"{source} holds no tokenizer that can be read.", READABLE)
        source = found
    for vocabulary, merges in VOCABULARIES.items():
        if source.name in (vocabulary, merges):
            return _gpt2(source.with_name(vocabulary), source.with_name(merges))
    if source.suffix != ".json":
        raise UserError(f"{source} is not a tokenizer that can be read.", READABLE)
    plan, beside = _json(source), source.with_name("tokenizer_config.json")
    if "model" not in plan:
        raise UserError(f"{source} is not a tokenizer.json: it has no 'model'.", READABLE)
    return plan, _json(beside) if beside.is_file() else {}


def _gpt2(vocabulary: Path, merges: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Byte-level BPE of GPT-2's files, as Radford et al. (2019) published them."""
    for path, other in ((vocabulary, merges), (merges, vocabulary)):
        if not path.is_file():
            raise UserError(f"{other.name} needs {path.name} beside it, in {path.parent}.", READABLE)
    ids = _json(vocabulary)
    pairs = _lines(merges)
    by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": ids, "merges": pairs}
    beside = vocabulary.with_name("tokenizer_config.json")
    config = _json(beside) if beside.is_file() else {}
    plan: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": by_bytes,
        "decoder": by_bytes,
        "model": model,
    }
    end = _token(config.get("eos_token")) or ENDS[0]
    return plan, {"bos_token": end, "eos_token": end, **config} if end in ids else config


def _lines(path: Path) -> list[list[str]]:
    try:
        lines = _bytes(path).decode().split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: {error}.") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or not all(pair):
            raise UserError(f"{path}, line {number}: expected two parts with a space between them.")
        pairs.append(pair)
    return pairs


def _end(
    roles: dict[str, str], names: set[str], added: list[dict[str, Any]], choice: Choice, source: Path, notes: list[str]
) -> str:
    special = {str(token["content"]) for token in added if token.get("special") is True}
    if choice.end:
        if choice.end not in names:
            raise UserError(f"The tokenizer in {source} has no token {choice.end!r}.", _known(special))
        return choice.end
    if "eos" in roles:
        return roles["eos"]
    for known in (roles.get("sep"), *ENDS):
        if known in special and known:
            notes.append(f"Its files name no end of text; {known} was taken.")
            return known
    raise UserError(
        f"The tokenizer in {source} names no end-of-text token.", f"Say which: --end TOKEN. {_known(special)}"
    )


def _pad(
    roles: dict[str, str],
    names: set[str],
    added: list[dict[str, Any]],
    model: dict[str, Any],
    choice: Choice,
    source: Path,
    notes: list[str],
) -> str:
    if choice.pad and choice.pad not in names:
        raise UserError(f"The tokenizer in {source} has no token {choice.pad!r}.", ADD_ONE)
    pad = choice.pad or roles.get("pad", "")
    if choice.pad and pad == roles["eos"]:
        raise UserError(f"{pad} is the end of text: as padding it would never be learnt.", ADD_ONE)
    if pad and pad != roles["eos"]:
        return pad
    why = f"It pads with its end of text, {pad}" if pad else "It has no padding token"
    if PAD in names:
        notes.append(f"{why}; its {PAD} was taken.")
        return PAD
    number = _next_id(model, added, source)
    if choice.rows is not None and number >= choice.rows:
        raise UserError(
            f"{why}, and the model of {choice.rows:,} rows has none left for one.", "Name one of its tokens as padding."
        )
    added.append(_added(PAD, number))
    notes.append(f"{why}; {PAD} was added with the id {number:,}.")
    return PAD


def _make_special(added: list[dict[str, Any]], tokens: set[str], model: dict[str, Any]) -> None:
    """Tokens with a role are special, or they could be written into a text."""
    for token in added:
        if token["content"] in tokens:
            token["special"] = True
    ids = model.get("vocab")
    for name in sorted(tokens - {token["content"] for token in added}):
        number = ids.get(name) if isinstance(ids, dict) else [entry[0] for entry in ids or []].index(name)
        added.append(_added(name, int(number or 0)))
    added.sort(key=lambda token: token["id"] if isinstance(token.get("id"), int) else -1)


def _added(name: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": name, **flags, "special": True}


def _next_id(model: dict[str, Any], added: list[dict[str, Any]], source: Path) -> int:
    vocabulary = model["vocab"]
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
    ids += [token.get("id") for token in added]
    if not all(isinstance(number, int) and 0 <= number < 2**31 for number in ids):
        raise UserError(f"{source}: an id is not a whole number from 0 on.")
    return max(ids, default=-1) + 1


def _names(model: dict[str, Any], source: Path) -> set[str]:
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        return set(vocabulary)
    if isinstance(vocabulary, list) and all(
        isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) for entry in vocabulary
    ):
        return {entry[0] for entry in vocabulary}
    raise UserError(f"{source}: 'model.vocab' is neither a table of ids nor a list of pieces with scores.")


def _known(special: set[str]) -> str:
    shown = sorted(special)[:12]
    return f"Its special tokens: {', '.join(shown)}." if shown else "It has no special token."


def _token(value: Any) -> str:
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""


def _table(value: Any, source: Path, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{source}: {key!r} is not a table.", READABLE)
    return value


def _json(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(_bytes(path), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not a JSON object: {error}.") from error


def _bytes(path: Path) -> bytes:
    size = path.stat().st_size
    if size > LARGEST:
        raise UserError(f"{path} has {size / 1e6:,.0f} MB; no tokenizer has more than {LARGEST / 1e6:.0f}.")
    return path.read_bytes()
