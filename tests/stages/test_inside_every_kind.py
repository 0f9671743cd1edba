"""Looking inside takes every kind of checkpoint: what its weights hold is told, and its attention is transformers'."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification, AutoModelForTokenClassification

import stages.models
from stages.asking import verdict
from stages.asking.expected import KEPT, LOST
from stages.asking.inside import Inside, open_inside, score
from stages.asking.inside_labels import InsideLabels
from stages.asking.inside_reward import InsideReward
from stages.asking.labeller import Labeller
from stages.desk import Job
from stages.measuring.scorer import Scorer
from stages.models.hf_config import read_json
from stages.store.architecture import Family
from stages.store.errors import UserError
from stages.store.records import Message, Task
from stages.store.rewards import Scale
from stages.store.specs import STAGES, TRAINING
from stages.store.specs.tuning import Tuning
from stages.store.workspace import Workspace
from tests.stages.inside_kinds import BY_STAGE, KINDS

TEXT = "the cat sat => on the mat => one two"
HEADED = sorted(name for name, kind in KINDS.items() if kind.head)
PUBLISHED = [name for name in HEADED if name != "gpt1 tokens"]
"""Those of which transformers has a class."""


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint of the kind that the test is parametrised with."""
    place = tmp_path / "checkpoint"
    place.mkdir()
    KINDS[request.param].write(place)
    return place


def every(names: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("folder", "name"), [(name, name) for name in names], ids=names, indirect=["folder"])


def test_no_kind_is_forgotten() -> None:
    modules = [
        importlib.import_module(f"stages.models.{each.name}") for each in pkgutil.iter_modules(stages.models.__path__)
    ]
    writers = {
        name
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name.startswith("save_") and function.__module__ == module.__name__
    }
    parts = {"save_published", "save_tensors"}
    assert writers - parts == {kind.by for kind in KINDS.values()}, "what writes a checkpoint's folder"
    assert set(BY_STAGE) == set(TRAINING) and set.union(*BY_STAGE.values()) == set(KINDS), "what trains a model"
    assert {name.split()[0] for name in KINDS} == set(get_args(Family))
    for body in ("gpt2", "bert"):
        assert {f"{body} {task}" for task in get_args(Task)} <= set(KINDS)
    adapted = {stage for stage in TRAINING if issubclass(STAGES[stage], Tuning)}
    kept = get_args(get_args(get_type_hints(Tuning, include_extras=True)["lora_keep"])[0])
    assert set(kept) == {"merged", "adapter"}
    assert all("gpt2 adapter" in BY_STAGE[stage] for stage in adapted - {"reward"}), "a reward model is kept whole"


@every(sorted(KINDS))
def test_every_kind_is_looked_into(folder: Path, name: str) -> None:
    kind, inside = KINDS[name], open_inside(folder)
    found = inside.score(TEXT, count=3)
    assert found.head == kind.head and found.tokens
    assert any(token.logprob is not None and len(token.top) == 3 for token in found.tokens) == kind.predicts
    assert found.remark == ("" if not kind.head else KEPT if kind.predicts else LOST)
    assert bool(found.read_at) == bool(kind.head)
    for layer in range(inside.layers):
        reading, weights = inside.attention(TEXT, layer)
        sums = weights.sum(-1)
        assert weights.shape == (inside.heads, len(reading.ids), len(reading.ids))
        assert all(min(abs(total - wanted) for wanted in (1, 2)) < 1e-4 for total in sums.flatten().tolist())
        assert reading.shown[reading.first :][: len(found.tokens)] == [token.text for token in found.tokens]
    with pytest.raises(UserError, match="There is no layer"):
        inside.attention(TEXT, inside.layers)
    assert open_inside(folder).score("").left_out == 0 if kind.head else True


@every([name for name in HEADED if KINDS[name].head != "reward"])
def test_labels_are_those_that_the_model_gives(folder: Path, name: str) -> None:
    task, found = KINDS[name].head, open_inside(folder).score(TEXT)
    parts = TEXT.split(" => ")
    texts = {"pair": [parts[0], " => ".join(parts[1:])], "choice": parts}.get(task, [TEXT])
    told = Labeller(folder).label(texts)
    for number, at in enumerate(found.read_at):
        labels = found.tokens[at].labels
        if task == "tokens":
            word = told["words"][number]
            assert labels[0].text == word["label"]
            assert labels[0].probability == pytest.approx(word["probability"], abs=1e-5)
        else:
            assert {one.text: pytest.approx(one.probability, abs=1e-5) for one in labels} == {
                row["label"]: row["probability"] for row in told["labels"]
            }
    assert len(found.read_at) == {"classify": 1, "choice": 2, "tokens": 10}.get(task, 1 + ("both" in name))
    assert all(not token.labels for at, token in enumerate(found.tokens) if at not in found.read_at)


@every([name for name in HEADED if KINDS[name].head == "reward"])
def test_scores_are_those_of_the_text_up_to_each_token(folder: Path, name: str) -> None:
    (folder / "reward.json").write_text('{"mean": 0.5, "std": 2.0, "samples": 9}')
    inside = open_inside(folder)
    assert isinstance(inside, InsideReward)
    with Scorer(folder) as scorer:
        found = inside.score("What is it? => A cat.")
        wanted = scorer.score([Message("user", "What is it?")], "A cat.")
        last = found.tokens[found.read_at[0]]
        assert (last.raw, last.score) == pytest.approx(wanted, abs=1e-4)
        alone = inside.score("a cat")
        start = inside.tokenizer.start_ids or [inside.tokenizer.eos_id]
        ids = [*start, *(token.id for token in alone.tokens)]
        ends = scorer.score_ids([ids[: len(start) + at + 1] for at in range(len(alone.tokens))]).tolist()
    assert [token.raw for token in alone.tokens] == pytest.approx(ends, abs=1e-4)
    scale = Scale(mean=0.5, std=2.0, samples=9)
    assert [token.score for token in alone.tokens] == pytest.approx([scale.normal(end) for end in ends], abs=1e-4)
    assert "between question and answer" in alone.note and not found.note


@every([name for name in HEADED if KINDS[name].predicts and KINDS[name].by == "save_classifier"])
def test_an_output_layer_that_was_kept_tells_what_it_expected(folder: Path, name: str) -> None:
    inside = open_inside(folder)
    assert isinstance(inside, InsideLabels)
    found, body = inside.score(TEXT, count=4), inside.model.body
    starts = [at for at, token in enumerate(found.tokens) if token.logprob is None]
    assert starts[0] == 0 and len(starts) == (2 if KINDS[name].head == "choice" or "both" in name else 1)
    for start, stop in zip(starts, [*starts[1:], len(found.tokens)], strict=True):
        ids = [token.id for token in found.tokens[start:stop]]
        logs = body(torch.tensor([ids]))[0].log_softmax(-1)  # type: ignore[arg-type]  # a Decoder's
        wanted = logs[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        assert [token.logprob for token in found.tokens[start + 1 : stop]] == pytest.approx(wanted, abs=1e-4)


SEQUENCES = [name for name in PUBLISHED if KINDS[name].head in ("classify", "pair", "choice")]
"""Those that label texts rather than words, and transformers opens."""


@every(SEQUENCES)
def test_the_label_comes_about_token_by_token_as_transformers_has_it(folder: Path, name: str) -> None:
    inside, theirs = open_inside(folder), by_transformers(folder)
    theirs.config.pad_token_id = None  # one text at a time: its last token is read, whatever it is
    found, sequences = inside.score(TEXT), _sequences(inside, inside.attention(TEXT, 0)[0].ids)
    ids = [token.id for token in found.tokens]

    def logits(start: int, stop: int, second: int, hidden: int | None = None) -> torch.Tensor:
        """Theirs of a sequence, (1, L): its token `hidden` masked."""
        row = torch.tensor([ids[start:stop]])
        if hidden is not None:
            row[0, hidden - start] = inside.tokenizer.id_of("[MASK]")
        more = {"token_type_ids": (torch.arange(stop - start) >= second).long()[None]} if "bert" in name else {}
        if name == "bert choice":
            row, more = row[None], {key: value[None] for key, value in more.items()}
        with torch.no_grad():
            told: torch.Tensor = theirs(row, **more).logits
        return told

    whole = [logits(*each) for each in sequences]

    def log_p(number: int, changed: torch.Tensor) -> float:
        parts = [changed if other == number else part for other, part in enumerate(whole)]
        choice = KINDS[name].head == "choice"
        all_L, now_L = ((torch.cat(each, 1) if choice else sum(each))[0] for each in (whole, parts))  # type: ignore[index]
        return float(now_L.log_softmax(-1)[all_L.argmax()])

    for number, (start, stop, second) in enumerate(sequences):
        given = log_p(number, whole[number])
        for at in range(start, stop):
            token = found.tokens[at]
            if "bert" not in name:
                wanted = log_p(number, logits(start, at + 1, second))
                assert token.upto == pytest.approx(wanted, abs=1e-4) and token.without is None
            elif token.text in ("[CLS]", "[SEP]"):
                assert token.without is None
            else:
                wanted = given - log_p(number, logits(start, stop, second, hidden=at))
                assert token.without == pytest.approx(wanted, abs=1e-4) and token.upto is None
    read = [found.tokens[at] for at in found.read_at]
    assert found.label == read[0].labels[0].text
    if "bert" not in name:
        assert all(token.upto == pytest.approx(read[0].upto, abs=1e-5) for token in read), "the whole text's"
    else:
        told = [abs(token.without) for token in found.tokens if token.without is not None]
        assert len(told) > 4 and max(told) > 1e-3, "a model whose label hangs on its tokens"


def test_of_a_long_text_as_many_tokens_are_masked_as_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KINDS["bert classify"].write(tmp_path)
    inside = open_inside(tmp_path)
    whole = inside.score("the cat sat on the mat")
    every = whole.tokens
    monkeypatch.setattr(verdict, "AT_ONCE", 1)
    monkeypatch.setattr(verdict, "MOST_READ", 3 * len(every))
    cut = inside.score("the cat sat on the mat")
    some = cut.tokens
    assert (whole.note, cut.note) == ("", "the first 3 tokens masked in turn")
    assert [token.without for token in some[:4]] == pytest.approx([token.without for token in every[:4]], abs=1e-5)
    assert every[4].without is not None and all(token.without is None for token in some[4:])


def test_words_are_labelled_each_by_itself(tmp_path: Path) -> None:
    for name in ("bert tokens", "llama tokens"):
        (place := tmp_path / name).mkdir()
        KINDS[name].write(place)
        found = open_inside(place).score(TEXT)
        assert all(token.upto is None and token.without is None for token in found.tokens)
        assert all(found.tokens[at].labels for at in found.read_at) and not found.label


def by_transformers(folder: Path) -> Any:
    """The model by transformers, its attention one that it can tell of."""
    named = read_json(folder / "config.json")["architectures"][0]
    opens: Any = {
        "ForMultipleChoice": AutoModelForMultipleChoice,
        "ForTokenClassification": AutoModelForTokenClassification,
    }.get("For" + named.rpartition("For")[2], AutoModelForSequenceClassification)
    return opens.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


@every(PUBLISHED)
def test_attention_and_answers_beside_transformers(folder: Path, name: str) -> None:
    theirs, inside = by_transformers(folder), open_inside(folder)
    for layer in range(inside.layers):
        reading, weights = inside.attention(TEXT, layer)
        seen = torch.zeros_like(weights)
        for start, stop, second in _sequences(inside, reading.ids):
            ids = torch.tensor([reading.ids[start:stop]])
            more = {"token_type_ids": (torch.arange(stop - start) >= second).long()[None]} if "bert" in name else {}
            if name == "bert choice":
                ids, more = ids[None], {key: value[None] for key, value in more.items()}
            with torch.no_grad():
                seen[:, start:stop, start:stop] = theirs(ids, output_attentions=True, **more).attentions[layer][0]
        torch.testing.assert_close(weights, seen, atol=1e-4, rtol=0)
    assert weights.amax() > 0.5, "a model whose attention says something"


def _sequences(inside: Any, ids: list[int]) -> list[tuple[int, int, int]]:
    """Where sequences begin and end among the tokens, and where in each the second text begins."""
    if isinstance(inside, InsideReward):
        return [(0, len(ids), len(ids))]
    found, start = [], 0
    for one in inside._write(TEXT).inputs:
        found.append((start, start + len(one.ids), one.second))
        start += len(one.ids)
    assert start == len(ids)
    return found


def test_the_value_model_beside_a_policy_is_one_that_scores(tmp_path: Path) -> None:
    KINDS["gpt2 with its critic"].write(tmp_path)
    found = open_inside(tmp_path / "value").score("a => b")
    assert found.head == "reward" and all(token.score is not None for token in found.tokens)
    assert open_inside(tmp_path).score("a").head == ""


def test_what_is_missing_is_said_rather_than_refused(tmp_path: Path) -> None:
    for task in ("pair", "choice"):
        (place := tmp_path / task).mkdir()
        KINDS[f"bert {task}"].write(place)
        found = open_inside(place).score("alone")
        assert found.note.startswith("=>") and found.tokens[found.read_at[0]].labels
    with pytest.raises(UserError, match="more than 32 options"):
        open_inside(tmp_path / "choice").score("=>".join("x" * 40))


def test_a_long_text_is_cut_and_it_is_said_by_how_much(tmp_path: Path) -> None:
    for name in ("gpt2 reward", "gpt2 classify", "gpt2 pair", "gpt2 tokens"):
        (place := tmp_path / name).mkdir()
        KINDS[name].write(place)
        words = "a" * 100 if name != "gpt2 tokens" else " ".join("a" * 50)
        found = open_inside(place).score(words)
        around = 0 if name == "gpt2 reward" else {"gpt2 classify": 2, "gpt2 pair": 3, "gpt2 tokens": 1}[name]
        shown = len(found.tokens) - around
        assert shown + found.left_out == len(words) and found.left_out > 0


def test_the_desk_tells_all_of_it_in_plain_values(tmp_path: Path) -> None:
    (place := tmp_path / "checkpoint").mkdir()
    KINDS["gpt2 classify"].write(place)
    found = score(Job(Workspace(tmp_path / "ws").ensure()), str(place), "the cat", count=2)
    assert (found["head"], found["layers"], found["next"]) == ("classify", 2, [])
    assert set(found["tokens"][found["read_at"][0]]["labels"][0]) == {"text", "probability"}
    assert [len(token["top"]) for token in found["tokens"]] == [0] + [2] * (len(found["tokens"]) - 1)
    assert isinstance(open_inside(place), InsideLabels) and not isinstance(open_inside(place), Inside)
