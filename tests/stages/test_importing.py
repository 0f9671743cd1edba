"""Importing models: what is taken in, what is refused, what it costs, and that the copy is a checkpoint like any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2ForSequenceClassification,
    LlamaForSequenceClassification,
    PreTrainedModel,
    Qwen2ForTokenClassification,
)

from stages.asking.completion import Completion, open_text_model
from stages.asking.fill import Filler
from stages.asking.inside import open_inside
from stages.asking.inside_labels import InsideLabels
from stages.asking.inside_reward import InsideReward
from stages.data.tokenizer import save_tokenizer, train_tokenizer
from stages.generate import Engine
from stages.importing import Progress, import_model, inspect
from stages.models.decoder import Decoder
from stages.models.encoder import Encoder
from stages.models.hf import load_model, save_weights
from stages.models.lora import LoraConfig, add_lora, lora_parameters, save_adapter
from stages.models.opening import open_decoder
from stages.store.checkpoints import resolve_checkpoint, verify
from stages.store.errors import UserError
from stages.store.hub import model_source
from stages.store.lineage import children_of_model, delete_model
from stages.store.models import find_model, list_models
from stages.store.presets import load_preset
from stages.store.rundir import Parent, RunSpec, create_run
from stages.store.specs.chat import Chat
from stages.store.workspace import Workspace, installation_root
from tests.stages.models.families import saved, tokens

VOCABULARY = 300
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer((), "byte", 0, split_digits=False)


@pytest.fixture
def source(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """A model folder as others publish it."""
    return folder_of(tmp_path / "source", tokenizer)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace").ensure()


def folder_of(folder: Path, tokenizer: Tokenizer, name: str = "llama", **changes: object) -> Path:
    size = {"vocab_size": VOCABULARY} | changes
    saved(name, folder, **size)
    save_tokenizer(tokenizer, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def quietly(phase: str, done: int, total: int) -> None:
    """Nobody watches."""


def take_in(workspace: Workspace, folder: Path, name: str = "m", progress: Progress = quietly) -> Path:
    """Import without a process of its own."""
    target = workspace.models / name
    target.mkdir()
    import_model(inspect(folder), target, name, progress)
    return target


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_copy_is_the_model_tokenizer_and_template(
    name: str, dtype: torch.dtype, tmp_path: Path, tokenizer: Tokenizer, workspace: Workspace
) -> None:
    source = folder_of(tmp_path / "source", tokenizer, name)
    theirs = AutoModelForCausalLM.from_pretrained(source, dtype=dtype).eval()
    theirs.save_pretrained(source, max_shard_size="60KB" if name == "llama" else "5GB")
    for stray in source.glob("model.safetensors") if name == "llama" else ():
        stray.unlink()
    copy = take_in(workspace, source)
    batch = tokens(2, 30, VOCABULARY)
    reopened = AutoModelForCausalLM.from_pretrained(copy, dtype=dtype).eval()
    assert torch.equal(reopened(batch).logits, theirs(batch).logits)
    ours = load_model(copy)
    assert {parameter.dtype for parameter in ours.parameters()} == {dtype}
    published = AutoTokenizer.from_pretrained(copy)
    assert published.encode("né 日本") == AutoTokenizer.from_pretrained(source).encode("né 日本")
    assert published.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "user: hi\n"
    info = find_model(workspace, "m").info
    assert info.dtype == str(dtype).removeprefix("torch.")
    assert info.parameters == sum(parameter.numel() for parameter in theirs.parameters())
    assert info.chat_template and info.source == str(source)
    verify(copy)


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertForPreTraining])
def test_bert_is_taken_in_with_its_word_pieces(
    kind: type[BertForMaskedLM | BertForPreTraining], tmp_path: Path, workspace: Workspace
) -> None:
    """As published: lower-cased WordPiece, the pooler, and norms by their first names."""
    source = tmp_path / "source"
    source.mkdir()
    words = train_tokenizer(["the cat is red . the dog is green ."] * 4, "wordpiece", 200, split_digits=False)
    save_tokenizer(words, source)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    theirs = kind(BertConfig(vocab_size=200, max_position_embeddings=24, **shape)).eval()
    theirs.save_pretrained(source)
    stored = load_file(source / "model.safetensors")
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in stored.items()}
    assert old.keys() != stored.keys()
    save_file(old, source / "model.safetensors", {"format": "pt"})
    filler = Filler(take_in(workspace, source))
    assert isinstance(filler.model, Encoder)
    ids = torch.tensor([filler.tokenizer.encode("the cat is red .")])
    ours = filler.model.logits(filler.model.hidden_states(ids))
    wanted = theirs(ids)
    with torch.no_grad():
        assert (ours - (wanted.logits if kind is BertForMaskedLM else wanted.prediction_logits)[0]).abs().max() < 1e-4
    assert find_model(workspace, "m").info.family == "bert"
    assert filler.fill("the ___ is red .").blanks
    edit(source, architectures=["BertModel"])
    with pytest.raises(UserError, match="holds a BertModel, and only BertForMaskedLM can be imported"):
        inspect(source)


HEADED: dict[str, tuple[type[PreTrainedModel], dict[str, Any]]] = {
    "GPT-2 that labels": (GPT2ForSequenceClassification, {"num_labels": 3}),
    "Llama that labels as transformers names it": (LlamaForSequenceClassification, {}),
    "Qwen2 that labels words": (Qwen2ForTokenClassification, {"num_labels": 3, "num_key_value_heads": 2}),
    "Llama that scores": (LlamaForSequenceClassification, {"num_labels": 1}),
    "BERT that labels": (BertForSequenceClassification, {"id2label": {0: "no", 1: "yes"}}),
    "BERT that labels words": (BertForTokenClassification, {"num_labels": 3}),
    "BERT that chooses": (BertForMultipleChoice, {}),
}
"""What transformers makes, with what its configuration says beside the shape."""


@pytest.mark.parametrize("name", HEADED)
def test_a_model_that_labels_or_scores_is_taken_in(name: str, tmp_path: Path, workspace: Workspace) -> None:
    (source := tmp_path / "source").mkdir()
    kind, said = HEADED[name]
    word = ["the cat is red . the dog is green ."] * 4
    type_ = ("wordpiece", 200) if "BERT" in name else ("byte", 260)
    save_tokenizer(train_tokenizer(word, *type_, split_digits=False), source)
    shape = {"vocab_size": 260, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"intermediate_size": 40, "max_position_embeddings": 24}
    if "GPT-2" in name:
        shape = {"vocab_size": 260, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24}
    theirs = kind(kind.config_class(**shape, **said, pad_token_id=0)).eval()
    theirs.save_pretrained(source)
    copy = take_in(workspace, source)
    verify(copy)
    info = find_model(workspace, "m").info
    assert info.parameters == sum(parameter.numel() for parameter in theirs.parameters())
    assert info.head == ("reward" if "scores" in name else "labels")
    inside = open_inside(copy)
    found = inside.score("the cat => is red => the dog" if "chooses" in name else "the cat is red .")
    theirs.config.pad_token_id = None  # one text at a time: its last token is read
    with torch.no_grad():
        if isinstance(inside, InsideReward):
            start = inside.tokenizer.start_ids or [inside.tokenizer.eos_id]
            wanted = theirs(torch.tensor([[*start, *(token.id for token in found.tokens)]])).logits
            assert found.tokens[-1].raw == pytest.approx(float(wanted), abs=1e-4)
            return
        assert isinstance(inside, InsideLabels)
        ids = torch.tensor([[token.id for token in found.tokens]])
        if "chooses" in name:
            other = [at for at, token in enumerate(found.tokens) if token.text == "[CLS]"][1]
            pairs = [ids[0, :other], ids[0, other:]]
            scores = []
            for row in pairs:
                second = int((row == row[-1]).nonzero()[0]) + 1  # behind the first [SEP]
                types = (torch.arange(len(row)) >= second).long()
                scores.append(theirs(row[None, None], token_type_ids=types[None, None]).logits[0, 0])
            shares = torch.stack(scores).softmax(-1)
        else:
            logits = theirs(ids).logits
            shares = logits[0, found.read_at[0]].softmax(-1) if "words" in name else logits[0].softmax(-1)
    told = found.tokens[found.read_at[0]].labels
    assert [one.probability for one in told] == pytest.approx(sorted(shares.tolist(), reverse=True), abs=1e-4)
    names = {one.text for one in told}
    assert names == ({"is red", "the dog"} if "chooses" in name else set(theirs.config.id2label.values()))
    with pytest.raises(UserError):
        load_model(copy)


def test_an_imported_model_is_a_checkpoint(source: Path, workspace: Workspace) -> None:
    take_in(workspace, source)
    found = resolve_checkpoint(workspace, "m")
    assert found.path == workspace.models / "m" and len(found.digest()) == 64
    lineage = found.lineage()
    assert lineage is not None and (lineage.name, lineage.stage) == ("m", "importing")
    model = open_text_model(found.path, "cpu")
    assert model.decoder.config.family == "llama"
    assert [each.name for each in list_models(workspace)] == ["m"]


def test_a_model_that_a_run_goes_on_from_is_kept(source: Path, workspace: Workspace) -> None:
    path = take_in(workspace, source)
    digest = find_model(workspace, "m").digest()
    spec = RunSpec(stage="pretrain", name="r", settings={}, parents={"checkpoint": Parent(str(path), digest)})
    create_run(workspace, spec)
    assert [child.name for child in children_of_model(workspace, "m")] == ["r"]
    with pytest.raises(UserError, match="run 'r'"):
        delete_model(workspace, "m")
    take_in(workspace, source, "other")
    delete_model(workspace, "other")
    assert [each.name for each in list_models(workspace)] == ["m"]


def test_a_model_of_the_local_cache_is_found_by_its_id(
    source: Path, tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    with pytest.raises(UserError, match="no model of that name"):
        model_source("org/name")
    repository = tmp_path / "cache" / "hub" / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    source.rename(repository / "snapshots" / "abc")
    (repository / "snapshots" / "older").mkdir()
    assert model_source("org/name") == repository / "snapshots" / "abc"
    assert resolve_checkpoint(workspace, "org/name").path.name == "abc"
    (repository / "refs" / "main").write_text("../../../..")
    assert model_source("org/name").parent == repository / "snapshots"


def test_an_adapter_opens_on_its_base(source: Path, workspace: Workspace, tmp_path: Path) -> None:
    base = take_in(workspace, source)
    model = load_model(base)
    add_lora(model, LoraConfig(rank=2))
    for parameter in lora_parameters(model):
        parameter.data.normal_(0, 0.2)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_adapter(model, adapter, base)
    batch = tokens(1, 9, VOCABULARY)
    assert torch.allclose(open_decoder(adapter)(batch), model(batch), atol=1e-4)
    with pytest.raises(UserError, match="is an adapter"):
        inspect(adapter)
    delete_model(workspace, "m")
    with pytest.raises(UserError, match="not there"):
        open_decoder(adapter)


def test_a_template_inside_the_tokenizers_file_is_taken_out(source: Path, workspace: Workspace) -> None:
    (source / "chat_template.jinja").unlink()
    path = source / "tokenizer_config.json"
    several = [{"name": "tools", "template": "no"}, {"name": "default", "template": TEMPLATE}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": several}))
    assert (take_in(workspace, source) / "chat_template.jinja").read_text() == TEMPLATE


def test_the_model_ends_where_its_folder_says_it_ends(source: Path, workspace: Workspace) -> None:
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    assert set(open_text_model(take_in(workspace, source), "cpu").end_ids) >= {7, 9}


def test_a_text_begins_as_the_tokenizer_begins_it(tokenizer: Tokenizer, tmp_path: Path, workspace: Workspace) -> None:
    llama = Tokenizer.from_str(tokenizer.to_str())
    llama.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 2)])
    model = open_text_model(take_in(workspace, folder_of(tmp_path / "source", llama)), "cpu")
    assert model.tokenizer.start_ids == [2]
    plain = open_text_model(take_in(workspace, folder_of(tmp_path / "plain", tokenizer), "plain"), "cpu")
    assert plain.tokenizer.start_ids == []
    settings = Chat(max_new_tokens=4)
    told = []
    for each in (model, plain):
        completion = Completion(each, Engine(each.decoder, 1), "abc", settings)
        while completion.done is None:
            completion.step()
        told.append(completion.done.prompt_tokens)
    assert told == [4, 3]


def test_a_model_without_a_row_for_padding_keeps_its_tokenizer(
    source: Path, tokenizer: Tokenizer, tmp_path: Path, workspace: Workspace
) -> None:
    full = folder_of(tmp_path / "full", tokenizer, vocab_size=260)
    raw = json.loads((full / "tokenizer.json").read_text())
    for folder in (source, full):
        for token in raw["added_tokens"]:
            token["content"] = token["content"].replace("pad", "other")
        raw["model"]["vocab"] = {name.replace("<|pad|>", "<|other|>"): n for name, n in raw["model"]["vocab"].items()}
        (folder / "tokenizer.json").write_text(json.dumps(raw))
        edit(folder, "tokenizer_config.json", pad_token=None)
    copy = take_in(workspace, full, "full")
    assert (copy / "tokenizer.json").read_text() == (full / "tokenizer.json").read_text()
    model = open_text_model(copy, "cpu")
    assert model.tokenizer.vocab_size == model.decoder.config.vocab_size == 260
    roomy = open_text_model(take_in(workspace, source, "roomy"), "cpu")
    assert roomy.tokenizer.pad_id == 260 < roomy.decoder.config.vocab_size


def edit(folder: Path, file: str = "config.json", **changes: object) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reweight(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        own = name.replace("__", ".")
        if tensor is None:
            del tensors[own]
        else:
            tensors[own] = tensor
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size - 100)


REFUSED = {
    "llama9": lambda f: edit(f, model_type="llama9"),
    "auto_map": lambda f: edit(f, auto_map={"AutoModelForCausalLM": "modeling.Evil"}),
    "quantised": lambda f: edit(f, quantization_config={"quant_method": "awq"}),
    "LlamaForQuestionAnswering": lambda f: edit(f, architectures=["LlamaForQuestionAnswering"]),
    "lack score.weight": lambda f: edit(f, architectures=["LlamaForSequenceClassification"]),
    "[]": lambda f: edit(f, architectures=[[]]),
    "pickle": lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
    "holds no model.safetensors": lambda f: (f / "model.safetensors").unlink(),
    "lack model.norm.weight": lambda f: reweight(f, model__norm__weight=None),
    "hold 'score.weight'": lambda f: reweight(f, score__weight=torch.zeros(2, 2)),
    "has shape": lambda f: edit(f, intermediate_size=48),
    "no known float type": lambda f: reweight(f, model__norm__weight=torch.zeros(32, dtype=torch.int8)),
    "weights in F64": lambda f: reweight(f, model__norm__weight=torch.zeros(32, dtype=torch.float64)),
    "cut short": cut_short,
    "tokenizer.json": lambda f: (f / "tokenizer.json").unlink(),
    "longrope": lambda f: edit(f, rope_parameters={"rope_type": "longrope", "rope_theta": 1e4}),
    "part of each head": lambda f: edit(f, partial_rotary_factor=0.5),
    "sliding_attention": lambda f: edit(f, layer_types=["sliding_attention"] * 3),
    "need factor": lambda f: edit(f, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}),
    "num_hidden_layers": lambda f: (f / "config.json").write_text('{"model_type": "llama"}'),
    "no multiple": lambda f: edit(f, num_key_value_heads=3),
}


@pytest.mark.parametrize("says", REFUSED)
def test_what_cannot_be_run_is_refused_in_a_sentence(says: str, source: Path, workspace: Workspace) -> None:
    REFUSED[says](source)
    with pytest.raises(UserError) as caught:
        inspect(source)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A model of 200 MB in three files."""
    folder = tmp_path_factory.mktemp("large")
    model = Decoder(msgspec.structs.replace(load_preset("smollm2-135m"), layers=14, vocab_size=1_000))
    for parameter in model.parameters():
        parameter.data.zero_()
    save_weights(model, folder, shard_bytes=80_000_000, eos_id=0)
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.mark.parametrize("verb", ["import", "load"])
def test_memory_stays_near_the_weights(verb: str, large: Path) -> None:
    told = json.loads(child("peak_models.py", verb, str(large)))
    assert 190 < told["weights"] < 220
    assert told["share"] <= (0.5 if verb == "import" else 1.1)


def child(script: str, *arguments: str) -> str:
    """What a script beside this file prints, in a process of its own, whose memory is its own."""
    root = installation_root()
    run = subprocess.run(
        [sys.executable, str(root / "tests" / "stages" / script), *arguments],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


def fuzz(source: Path, what: str, rounds: int) -> None:
    told = json.loads(child("fuzz_models.py", str(source), what, str(rounds)))
    assert told["tracebacks"] == []
    assert told["refused"] > rounds / 4
    assert told["megabytes"] < 500


@pytest.mark.parametrize("what", ["config", "header"])
def test_hostile_folders_bring_sentences_and_no_tracebacks(source: Path, what: str) -> None:
    fuzz(source, what, 100)


@pytest.mark.soak
@pytest.mark.parametrize("what", ["config", "header"])
def test_many_hostile_folders(source: Path, what: str) -> None:
    fuzz(source, what, 2_000)
