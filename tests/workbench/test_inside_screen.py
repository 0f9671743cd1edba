"""Looking inside a checkpoint in the app: a mark over coloured tokens, candidates, attention; hostile text is tame."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from textual.pilot import Pilot

from stages.store.errors import UserError
from stages.store.workspace import Workspace
from tests.workbench.conftest import CREATED, SIZES, add_checkpoint, add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.screens.inside import InsideScreen
from workbench.screens.run import RunScreen
from workbench.talking.desk_client import DeskClient
from workbench.widgets.attention_map import AttentionMap
from workbench.widgets.scored_strip import ScoredStrip
from workbench.widgets.text_field import TextField

MakeApp = Callable[..., WorkbenchApp]
Snapshot = Callable[[Pilot[None], str], Awaitable[None]]
HOSTILE = "\x1b[31mred\u202e"


def scored(text: str) -> dict[str, Any]:
    """What the desk says of a text whose words are its tokens: each word less likely than the one before."""
    words = [word if number == 0 else f" {word}" for number, word in enumerate(text.split())]
    top = [{"text": word, "probability": share} for word, share in ((" cold", 0.7), (HOSTILE, 0.2), ("\n", 0.01))]
    tokens = [
        {"text": word, "id": number, "logprob": math.log(0.95 / (1 + 3 * number)), "rank": 1 + number, "entropy": 1.5}
        | {"top": top, "score": None, "raw": None, "labels": [], "upto": None, "without": None}
        for number, word in enumerate(words)
    ]
    told = {"hides": False, "note": "", "head": "", "read_at": [], "label": "", "remark": ""}
    return {"layers": 2, "heads": 4, "tokens": tokens, "next": top, "left_out": 3} | told


def judged(text: str) -> dict[str, Any]:
    """The same of a reward model that still has its output layer: each word lowers the score."""
    found = scored(text)
    for number, token in enumerate(found["tokens"]):
        token |= {"score": 1.0 - number, "raw": 3.0 - 2 * number}
    return found | {"head": "reward", "next": [], "read_at": [len(found["tokens"]) - 1], "remark": "It holds one."}


def labelled(text: str, *, each: bool = False) -> dict[str, Any]:
    """The same of a model that labels the text at its first token, or each token, and predicts nothing."""
    found = scored(text)
    labels = [{"text": HOSTILE, "probability": 0.75}, {"text": "billing", "probability": 0.25}]
    for number, token in enumerate(found["tokens"]):
        token |= {"logprob": None, "top": [], "labels": labels if each or not number else []}
    read_at = list(range(len(found["tokens"]))) if each else [0]
    said = {"head": "tokens", "label": ""} if each else {"head": "classify", "label": HOSTILE}
    return found | said | {"next": [], "read_at": read_at, "remark": "It has none."}


def reading(text: str) -> dict[str, Any]:
    """The same of a decoder that labels the text at its last token, ever surer of it, and predicts nothing."""
    found = labelled(text)
    first, last = found["tokens"][0], found["tokens"][-1]
    first["labels"], last["labels"] = [], first["labels"]
    for number, token in enumerate(found["tokens"]):
        token["upto"] = math.log(0.75) - 2.0 * (len(found["tokens"]) - 1 - number)
    return found | {"read_at": [len(found["tokens"]) - 1]}


def masking(text: str) -> dict[str, Any]:
    """The same of an encoder: its first word speaks for the label, each that follows more against it."""
    found = labelled(f"[CLS] {text}")
    for number, token in enumerate(found["tokens"][1:]):
        token["without"] = 2.5 - 2.0 * number
    return found


def attended(text: str, layer: int, head: int) -> dict[str, Any]:
    """Each token looks at itself, the more so the higher the head."""
    tokens = ["<|endoftext|>", *text.split()]
    T, own = len(tokens), 0.2 * (head + 1)
    rows = [[own if a == b else (1 - own) / row if b < a else 0.0 for b in range(T)] for row, a in enumerate(range(T))]
    return {"tokens": tokens, "first": 1, "weights": rows, "left_out": 0}


HEADS = {"judge": judged, "labels": labelled, "words": partial(labelled, each=True)}
HEADS |= {"reading": reading, "masking": masking}
"""What the first word of a text asks for."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the desk is asked; it answers what a model might."""
    questions: list[dict[str, Any]] = []

    async def ask(self: DeskClient, verb: str, **args: Any) -> Any:
        questions.append({"verb": verb, **args})
        if "refuse" in args["text"]:
            raise UserError("The text is refused.")
        if verb == "inside.score":
            return HEADS.get(args["text"].partition(" ")[0], scored)(args["text"])
        return attended(args["text"], args["layer"], args["head"])

    monkeypatch.setattr(DeskClient, "ask", ask)
    return questions


async def open_inside(pilot: Pilot[None], app: WorkbenchApp) -> InsideScreen:
    """A trained model in Runs, then I."""
    run = add_run(app.workspace, "pretrain", "looked", created=CREATED + 90, last_checkpoint="step-2000")
    add_checkpoint(run, 2_000)
    app.open_run(run)
    await wait_for(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.run_in_view())
    await pilot.press("I")
    await wait_for(pilot, lambda: isinstance(app.screen, InsideScreen))
    await wait_for(pilot, lambda: "looks at" in screen_text(app) or "what comes next" in screen_text(app))
    await settled(pilot)
    assert isinstance(app.screen, InsideScreen)
    return app.screen


@pytest.mark.parametrize("size", SIZES)
async def test_it_looks_like_this(
    populated: Workspace, make_app: MakeApp, snapshot: Snapshot, asked: list[dict[str, Any]], size: tuple[int, int]
) -> None:
    async with (app := make_app()).run_test(size=size) as pilot:
        await open_inside(pilot, app)
        await pilot.press("escape", "h", "h")
        await snapshot(pilot, f"inside-{size[0]}x{size[1]}")
        if size[0] < 100:
            await pilot.press("v")
            await snapshot(pilot, f"inside-map-{size[0]}x{size[1]}")


async def test_the_mark_layers_and_heads_are_moved_by_keys(
    populated: Workspace, make_app: MakeApp, asked: list[dict[str, Any]]
) -> None:
    async with (app := make_app()).run_test(size=(120, 40)) as pilot:
        screen = await open_inside(pilot, app)
        await pilot.press("escape")
        assert screen.at == 6, "at the end of the text at first: what comes next"
        await pilot.press("h", "left", "g", "l")
        assert screen.at == 1
        await wait_for(pilot, lambda: "expected for ' opposite'" in screen_text(app))
        assert "2 opposite looks at: " in screen_text(app)
        await pilot.press("j", "j", "n", "p", "p")
        await wait_for(pilot, lambda: "layer 2 of 2 · head 4 of 4" in screen_text(app))
        assert asked[-1]["layer"] == 1 and asked[-1]["head"] == 3
        await pilot.press("k")
        await wait_for(pilot, lambda: "layer 1 of 2" in screen_text(app))
        await pilot.press("escape")
        await wait_for(pilot, lambda: not isinstance(app.screen, InsideScreen))


async def test_while_typing_the_bar_of_keys_says_how_to_get_to_the_attention(
    populated: Workspace, make_app: MakeApp, asked: list[dict[str, Any]]
) -> None:
    async with (app := make_app()).run_test(size=(80, 24)) as pilot:
        screen = await open_inside(pilot, app)
        assert isinstance(screen.focused, TextField)
        assert "esc Tokens and attention" in screen_text(app) and "v View" not in screen_text(app)
        await pilot.press("escape")
        await wait_for(pilot, lambda: "v View" in screen_text(app))
        assert "esc Tokens" not in screen_text(app)
        await pilot.press("v")
        await wait_for(pilot, lambda: "looks at: " in screen_text(app))
        await pilot.press("e")
        await wait_for(pilot, lambda: "esc Tokens and attention" in screen_text(app))


async def test_what_the_desk_refuses_stands_in_place_of_the_tokens(
    populated: Workspace, make_app: MakeApp, asked: list[dict[str, Any]]
) -> None:
    async with (app := make_app()).run_test(size=(120, 40)) as pilot:
        screen = await open_inside(pilot, app)
        screen.query_one(TextField).text = "refuse this"
        await wait_for(pilot, lambda: "The text is refused." in screen_text(app))
        await pilot.press("escape", "h", "j", "n")
        assert isinstance(app.screen, InsideScreen)


async def test_hostile_text_is_shown_as_text(
    populated: Workspace, make_app: MakeApp, asked: list[dict[str, Any]]
) -> None:
    async with (app := make_app()).run_test(size=(120, 40)) as pilot:
        screen = await open_inside(pilot, app)
        screen.query_one(TextField).text = f"[b]one {HOSTILE} 日本語 \x9b2J last"
        await wait_for(pilot, lambda: "日本語" in screen.query_one(ScoredStrip).plain)
        await settled(pilot)
        await pilot.press("escape", "g", "l")
        await settled(pilot)
        text = screen_text(app)
        assert "␛[31mred" in text
        assert not {char for char in text if char in "\x1b\x9b\u202e"}


async def test_a_reward_model_shows_scores_and_on_request_what_it_expected(
    populated: Workspace, make_app: MakeApp, snapshot: Snapshot, asked: list[dict[str, Any]]
) -> None:
    async with (app := make_app()).run_test(size=(120, 40)) as pilot:
        screen = await open_inside(pilot, app)
        screen.query_one(TextField).text = "judge this one please"
        await wait_for(pilot, lambda: "up to ' please'" in screen_text(app))
        await settled(pilot)
        await pilot.press("escape", "h")
        await wait_for(pilot, lambda: "score -1.00 (raw -1.00), -1.00 by it" in screen_text(app))
        text = screen_text(app)
        assert "4 tokens · score -2.00 (raw -3.00)" in text and "13.6%, -2.00 nats" in text and "It holds one." in text
        assert "score: above its mean, or below" in text
        await settled(pilot)
        await snapshot(pilot, "inside-reward-120x40")
        await pilot.press("t")
        await wait_for(pilot, lambda: "probability: pale 90 %" in screen_text(app))
        await pilot.press("t")
        await wait_for(pilot, lambda: "score: above its mean" in screen_text(app))


async def test_a_model_that_labels_shows_where_it_does_and_what_it_says(
    populated: Workspace, make_app: MakeApp, snapshot: Snapshot, asked: list[dict[str, Any]]
) -> None:
    async with (app := make_app()).run_test(size=(80, 24)) as pilot:
        screen = await open_inside(pilot, app)
        field = screen.query_one(TextField)
        field.text = "labels of this"
        await wait_for(pilot, lambda: "says at 'labels'" in screen_text(app))
        await settled(pilot)
        text = screen_text(app)
        assert "␛[31mred" in text and "75.0%" in text and "It has none." in text and "expected" not in text
        assert not {char for char in text if char in "\x1b\x9b\u202e"}
        await pilot.press("escape")
        await snapshot(pilot, "inside-labels-80x24")
        await pilot.press("l")
        await wait_for(pilot, lambda: "The label is read at 0 labels." in screen_text(app))
        assert not screen.offers("colour")
        field.text = "words of this"
        await wait_for(pilot, lambda: "3 words labelled" in screen_text(app))
        await wait_for(pilot, lambda: "label of ' of'" in screen_text(app))
        assert "the likeliest label: pale 90 %" in screen_text(app)


async def test_how_a_label_comes_about_is_coloured_token_by_token(
    populated: Workspace, make_app: MakeApp, snapshot: Snapshot, asked: list[dict[str, Any]]
) -> None:
    async with (app := make_app()).run_test(size=(80, 24)) as pilot:
        screen = await open_inside(pilot, app)
        field, strip = screen.query_one(TextField), screen.query_one(ScoredStrip)
        field.text = "reading of this"
        await wait_for(pilot, lambda: "says at ' this'" in screen_text(app))
        assert "p of the label read at each token: pale 90 %, strong under 10 %" in screen_text(app)
        await pilot.press("escape", "h")
        await wait_for(pilot, lambda: "‹U+202E›' 10.2%, -2.29 nats, +2.00 by it" in screen_text(app))
        await pilot.press("h")
        await wait_for(pilot, lambda: "‹U+202E›' 1.4%, -4.29 nats" in screen_text(app))
        await pilot.press("l")
        await settled(pilot)
        await snapshot(pilot, "inside-reading-80x24")
        field.text = "masking of this"
        await wait_for(pilot, lambda: "looked · 4 tokens" in screen_text(app))
        assert "by masking it: for the label, or against; pale 0.1, strong over 2 nats" in screen_text(app)
        await wait_for(pilot, lambda: [level for level, *_ in strip.tokens] == [0, 4, 2, -3])
        await pilot.press("g", "l")
        await wait_for(pilot, lambda: "falls by 2.50 nats" in screen_text(app))
        await pilot.press("G")
        await wait_for(pilot, lambda: "rises by 1.50 nats" in screen_text(app))
        assert not screen.offers("colour")


async def test_where_an_output_layer_is_left_the_label_is_the_second_colouring(
    populated: Workspace, make_app: MakeApp, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(text: str) -> dict[str, Any]:
        found = reading(text)
        for token, other in zip(found["tokens"], scored(text)["tokens"], strict=True):
            token |= {"logprob": other["logprob"], "top": other["top"]}
        return found

    monkeypatch.setitem(HEADS, "reading", both)
    async with (app := make_app()).run_test(size=(120, 40)) as pilot:
        screen = await open_inside(pilot, app)
        screen.query_one(TextField).text = "reading of this"
        await wait_for(pilot, lambda: "says at ' this'" in screen_text(app))
        assert "probability: pale 90 %" in screen_text(app)
        await pilot.press("escape", "t")
        await wait_for(pilot, lambda: "p of the label read at each token" in screen_text(app))


@pytest.mark.parametrize("count", [1, 30, 200])
async def test_a_matrix_of_any_size_is_drawn_around_the_marked_row(
    populated: Workspace, make_app: MakeApp, asked: list[dict[str, Any]], count: int
) -> None:
    async with (app := make_app()).run_test(size=(120, 40)) as pilot:
        screen = await open_inside(pilot, app)
        screen.query_one(TextField).text = " ".join(f"w{number}" for number in range(count))
        await wait_for(pilot, lambda: f"{count} tokens" in screen_text(app))
        await settled(pilot)
        await pilot.press("escape", "G", "h")
        await settled(pilot)
        drawn = screen.query_one(AttentionMap)
        lines = ["".join(part.text for part in drawn._line(y)) for y in range(drawn.size.height)]
        assert all(len(line) == drawn.size.width for line in lines)
        assert any(f"w{count - 1}" in line for line in lines), "the marked row is in view"
        assert "▼" in lines[0]
