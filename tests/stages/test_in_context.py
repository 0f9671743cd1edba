"""In-context evaluation: likelihoods as transformers finds them, examples as drawn, shares kept as they come."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import torch
from transformers import AutoModelForCausalLM

from stages import in_context
from stages.asking.completion import TextModel, open_text_model
from stages.data.tasks import Item, Writer, examples_for, item_of, labels_of, read_task
from stages.in_context import answer_in, option_pieces, prompts_of, solve, with_results
from stages.run import Run
from stages.store.checkpoints import Checkpoint
from stages.store.errors import UserError
from stages.store.evaluations import FILE, Row, read_evaluation
from stages.store.records import LabelledRecord, Message, PromptRecord
from stages.store.rundir import Parent, RunSpec, create_run
from stages.store.specs.in_context import InContext
from stages.store.tasks import shipped_tasks
from stages.store.workspace import Workspace
from tests.stages.data.parts import build
from tests.tiny_model import write_tiny_checkpoint

COLOURS = ("red", "green", "blue", "deep black")


def choice(number: int, **meta: object) -> LabelledRecord:
    texts = [f"thing {number}", *COLOURS]
    return LabelledRecord(task="choice", texts=texts, label=str(number % 4), source="t", meta=dict(meta))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    return open_text_model(write_tiny_checkpoint(tmp_path_factory.mktemp("m") / "tiny", context=96, seed=5), "cpu")


def items(*records: object) -> list[Item]:
    labels = labels_of(records)  # type: ignore[arg-type]  # records of either kind
    return [item for record in records if (item := item_of(record, labels)) is not None]  # type: ignore[arg-type]


def nothing(done: int, total: int) -> None:
    """Progress that nobody watches."""


@functools.lru_cache
def opened(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)


def theirs(model: TextModel, ids: Sequence[int], read: int) -> float:
    """Σ log p of ids[read:] by transformers on the same folder."""
    with torch.no_grad():
        logs = opened(model.tokenizer.folder)(torch.tensor([list(ids[:-1])])).logits[0].log_softmax(-1)
    return sum(float(logs[place - 1, ids[place]]) for place in range(read, len(ids)))


@pytest.mark.parametrize("normalise", ["none", "bytes", "prior"])
def test_the_option_that_transformers_finds_likeliest_is_chosen(model: TextModel, normalise: str) -> None:
    pool = items(*map(choice, range(6)))
    settings = InContext(task="question", normalise=normalise, max_records=None)  # type: ignore[arg-type]
    results = solve(model, pool, pool, 1, settings, nothing)
    for result in results:
        values = []
        pieces = option_pieces(model, result.prompt)
        assert [model.tokenizer.decode(piece.ids[piece.read :]) for piece in pieces] == [f" {one}" for one in COLOURS]
        bare = [model.tokenizer.eos_id, *model.tokenizer.encode("Answer:")]
        for piece, option in zip(pieces, COLOURS, strict=True):
            value = theirs(model, piece.ids, piece.read)
            if normalise == "bytes":
                value /= len(option)
            elif normalise == "prior":
                value -= theirs(model, [*bare, *piece.ids[piece.read :]], len(bare))
            values.append(value)
        assert result.said == COLOURS[max(range(4), key=values.__getitem__)]
        assert result.right == (result.said == result.prompt.item.answer)


def test_examples_are_others_alike_and_nested() -> None:
    pool = items(*(choice(n, kind="a" if n % 3 else "b") for n in range(12)), choice(1, kind="a"))
    drawn = {k: examples_for(pool[1], pool, k, alike="kind", seed=0, number=7) for k in (0, 1, 3)}
    assert [len(some) for some in drawn.values()] == [0, 1, 3]
    assert drawn[3][-1:] == drawn[1], "more examples keep those of fewer, nearest to the question"
    assert all(one.question != pool[1].question and one.meta["kind"] == "a" for one in drawn[3])
    assert len({one.question for one in examples_for(pool[1], pool, 7, alike="kind", seed=0, number=0)}) == 7
    with pytest.raises(UserError, match="8 examples are asked for, and there are 7 with kind 'a'"):
        examples_for(pool[1], pool, 8, alike="kind", seed=0, number=0)


def test_shipped_templates_show_answers_of_examples_only() -> None:
    pair = LabelledRecord(task="pair", texts=["It rains.", "It is wet."], label="entailment", source="t")
    other = LabelledRecord(task="pair", texts=["It is dry.", "It rains."], label="contradiction", source="t")
    sums = PromptRecord(messages=[Message("user", "2 + 3?")], answer="2 and 3 make 5.\n#### 5", source="t")
    (item,) = items(sums)
    assert (item.answer, item.reasoning) == ("5", "2 and 3 make 5.")
    questions = {"pair": items(pair, other), "classify": items(pair, other), "choice": items(choice(0), choice(1))}
    for name, template in shipped_tasks().items():
        first, last = questions.get(name, [item, items(choice(0))[0]])
        prompt, bare = Writer(template).write([([first], last), ([], last)])
        assert first.answer in prompt and not prompt.endswith("\n")
        assert bare in prompt
        if name == "chain_of_thought":
            assert "step by step. 2 and 3 make 5.\nThe answer is 5.\n\nQuestion: thing 0" in prompt


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% for x in range(10**5) %}{% for y in range(10**5) %}{% endfor %}{% endfor %}", "takes longer"),
        ("{{ ''.__class__.__mro__ }}", "task template"),
        ("{{ nobody.here }}", "task template"),
        ("{% if %}", "task template cannot be read: line 1"),
    ],
)
def test_a_template_that_must_not_or_cannot_is_told_in_a_sentence(template: str, told: str) -> None:
    writer = Writer(template)
    try:
        with pytest.raises(UserError, match=told):
            writer.write([([], items(choice(0))[0])])
    finally:
        writer.close()


def test_a_template_of_no_known_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"There is no task template 'questoin'.*question"):
        read_task("questoin")


def test_examples_that_do_not_fit_the_context_are_left_out_first(model: TextModel) -> None:
    pool = items(*map(choice, range(9)))
    writer = Writer("{% for e in examples %}{{ e.question }} is {{ e.answer }}. {% endfor %}{{ item.question }} is")
    shown = [examples_for(one, pool, 6, alike="", seed=0, number=0) for one in pool[:2]]
    prompts = prompts_of(model, writer, pool[:2], shown, InContext())
    writer.close()
    for prompt in prompts:
        assert prompt.dropped > 0 and prompt.text.endswith(f"{prompt.item.question} is")
        assert len(prompt.ids) + len(" deep black") <= model.context
    results = solve(model, pool, pool, 6, InContext(task="question"), nothing)
    assert (
        "6-shot: 9 questions had room for fewer examples."
        in with_results(Row(checkpoint="c", step=0), results, 6, InContext()).note
    )


def test_what_is_written_is_cut_at_stops_and_behind_the_words_before_the_answer() -> None:
    settings = InContext(answer_after="The answer is")
    said = " 2 and 3. The answer is 4. No, wait.\nThe answer is 5.\n\nQuestion: The answer is 6."
    assert answer_in(said, settings) == "5."
    assert answer_in(" cold\nQuestion: x", InContext()) == "cold"


def test_answers_are_written_where_there_are_no_options(model: TextModel) -> None:
    asked = items(*(PromptRecord(messages=[Message("user", f"q{n}")], answer="a", source="t") for n in range(3)))
    results = solve(model, asked, asked, 1, InContext(max_new_tokens=4), nothing)
    assert [len(result.said) <= 4 for result in results] == [True] * 3
    with pytest.raises(UserError, match="no options"):
        solve(model, asked, asked, 0, InContext(scoring="likelihood"), nothing)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run on choices in two groups, over two checkpoints, with two numbers of examples."""
    workspace = Workspace(tmp_path / "ws").ensure()
    rows = [
        msgspec.json.encode(
            {"task": "choice", "texts": [f"{n} is", *order], "label": n % 3, "meta": {"family": f"f{n % 2}"}}
        )
        for n, order in enumerate(itertools.permutations(("green", "brown", "x", "y"), 3))
    ]
    (tmp_path / "choices.jsonl").write_bytes(b"\n".join(rows))
    dataset = build(workspace.datasets / "choices", tmp_path / "choices.jsonl", split="documents:0.5")
    parents = {"dataset": Parent("choices", dataset.info.digest)}
    for role, step in (("checkpoint", 18), ("checkpoint-2", 24)):
        folder = write_tiny_checkpoint(tmp_path / f"m{step}", context=192, seed=step, name="small", step=step)
        parents[role] = Parent(str(folder), Checkpoint(folder, 0).digest())
    settings = {"shots": [2, 0], "task": "choice", "device": "cpu", "split": "all"}
    spec = RunSpec(stage="in_context", name="few", settings=settings, parents=parents, threads=1)
    return Run(create_run(workspace, spec).path)


def test_a_run_keeps_each_share_and_goes_on_with_those_that_are_missing(run: Run) -> None:
    in_context.run(run)
    found = read_evaluation(run.dir)
    assert [row.checkpoint for row in found.rows] == ["small@18", "small@24"]
    for row in found.rows:
        assert set(row.shares) == {"0-shot", "2-shot", *(f"{k}-shot/f{n}" for k in (0, 2) for n in (0, 1))}
        assert row.shares["0-shot"].of == found.records == 24
        assert row.shares["2-shot/f0"].of + row.shares["2-shot/f1"].of == 24
        assert row.answers and row.answers[0].prompt.count("Question:") == 3
    kept = msgspec.structs.replace(found.rows[0], shares={"0-shot": found.rows[0].shares["0-shot"]})
    (run.dir.path / FILE).write_bytes(msgspec.json.encode(msgspec.structs.replace(found, rows=[kept])))
    in_context.run(Run(run.dir.path))
    again = read_evaluation(run.dir)
    assert [row.shares["2-shot"] for row in again.rows] == [row.shares["2-shot"] for row in found.rows]
    assert "0-shot/f0" not in again.rows[0].shares, "what was there is not measured again"
    assert again.rows[1] == found.rows[1]
