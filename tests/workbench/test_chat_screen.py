"""Chat in the app, with a process that says the prompt back, and once with a real model."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from stages.store.chat import Done
from stages.store.endpoints import Endpoint, add_endpoint
from stages.store.errors import UserError
from stages.store.rundir import RunDir
from stages.store.specs.chat import Chat
from stages.store.workspace import Workspace
from tests.tiny_model import write_tiny_checkpoint
from tests.workbench.conftest import SIZES, add_checkpoint, add_run, screen_text, settled, wait_for
from workbench.app import WorkbenchApp
from workbench.screens.chat import ChatScreen
from workbench.screens.checkpoints import CheckpointScreen, checkpoint_choices
from workbench.settings import Settings
from workbench.talking import chat_client
from workbench.widgets.prompt import Prompt
from workbench.widgets.transcript import Transcript

FAKE = Path(__file__).parent / "fake_chat.py"

MakeApp = Callable[..., WorkbenchApp]


@pytest.fixture
def run(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run with two checkpoints, and chat processes that need no model."""
    run = add_run(workspace, "pretrain", "tiny")
    run.path.rename(run.path.with_name("20260101T000000Z-tiny-0000"))
    run = RunDir(run.path.with_name("20260101T000000Z-tiny-0000"))
    add_checkpoint(run, 50)
    add_checkpoint(run, 100)
    monkeypatch.setattr(
        chat_client, "_command", lambda folder, device, idle: [sys.executable, "-S", str(FAKE), str(folder)]
    )
    return run


async def open_chat(pilot: Pilot[Any], checkpoint: str = "tiny@100") -> ChatScreen:
    """The chat screen with a checkpoint loaded."""
    pilot.app.open_chat(checkpoint)
    await wait_for(pilot, lambda: isinstance(pilot.app.screen, ChatScreen) and "continues your text" in model(pilot))
    assert isinstance(pilot.app.screen, ChatScreen)
    return pilot.app.screen


def model(pilot: Pilot[Any]) -> str:
    """The line that says which model is loaded."""
    return str(pilot.app.screen.query_one("#model").render())


def transcript(pilot: Pilot[Any]) -> str:
    return pilot.app.screen.query_one(Transcript).plain


async def ask(pilot: Pilot[Any], text: str, wanted: str = "tokens/s") -> None:
    """Put text into the prompt, send it, and wait for `wanted` in what the transcript gains."""
    before = len(transcript(pilot))
    prompt = pilot.app.screen.query_one(Prompt)
    prompt.focus()
    prompt.insert(text)
    await pilot.press("enter")
    await wait_for(pilot, lambda: wanted in transcript(pilot)[before:])
    if wanted == "tokens/s":
        await settled(pilot)  # the figures are written before the answer has quite ended


@pytest.fixture
def chat_run(run: RunDir) -> RunDir:
    """The same run, whose checkpoints have a chat template."""
    for folder in run.checkpoints.iterdir():
        (folder / "chat_template.jinja").write_text("")
    return run


async def test_a_chat_model_is_sent_the_conversation_so_far(make_app: MakeApp, chat_run: RunDir) -> None:
    async with make_app(Settings(chat=Chat(system="be brief"))).run_test(size=(80, 24)) as pilot:
        pilot.app.open_chat("tiny@100")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ChatScreen) and "answers you" in model(pilot))
        await ask(pilot, "hi")
        assert transcript(pilot).startswith("you\nhi\nassistant\nsystem: be brief | user: hi\n")
        await ask(pilot, "more")
        told = "system: be brief | user: hi | assistant: system: be brief | user: hi | user: more"
        assert f"you\nmore\nassistant\n{told}\n" in transcript(pilot)
        await pilot.press("escape", "m")
        assert transcript(pilot).count("you\n") == 2  # nothing to go on from: its answers end by themselves
        await pilot.press("x", "i")
        await ask(pilot, "new")
        assert "system: be brief | user: new\n" in transcript(pilot)


async def test_a_checkpoint_deleted_while_it_is_loaded_gives_way_to_the_next(
    make_app: MakeApp, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = chat_client._command

    def pruned(folder: Path, device: str, idle: float) -> list[str]:
        if folder.name.endswith("100"):
            add_checkpoint(run, 150)
            shutil.rmtree(folder)
        return plain(folder, device, idle)

    monkeypatch.setattr(chat_client, "_command", pruned)
    async with make_app().run_test(size=(80, 24)) as pilot:
        await open_chat(pilot, "tiny")
        assert "tiny@150" in screen_text(pilot.app)


async def test_a_conversation_survives_a_change_of_checkpoint(make_app: MakeApp, chat_run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        pilot.app.open_chat("tiny@100")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ChatScreen) and "answers you" in model(pilot))
        await ask(pilot, "hi")
        pilot.app.screen.load("tiny@50")
        await wait_for(pilot, lambda: "tiny@50 is loaded" in transcript(pilot))
        await ask(pilot, "and")
        assert "user: hi | assistant: user: hi | user: and" in transcript(pilot)


async def test_a_prompt_is_continued_right_where_it_ends(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await open_chat(pilot)
        await pilot.press(*"hi")
        await pilot.press("ctrl+o", "y", "enter")
        await wait_for(pilot, lambda: "tokens/s" in transcript(pilot))
        assert transcript(pilot) == "hi\nyhi\ny\n4 tokens · 4 tokens/s · end of text · seed 7"
        assert pilot.app.screen.query_one(Prompt).text == ""


async def test_enter_acts_after_the_letters_before_it_and_before_those_after(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await open_chat(pilot)
        for key in ["a", "b", "enter", "c", "d"]:
            pilot.app.post_message(_key(key))
        await wait_for(pilot, lambda: "tokens/s" in transcript(pilot))
        assert transcript(pilot).startswith("abab\n")
        await wait_for(pilot, lambda: pilot.app.screen.query_one(Prompt).text == "cd")


async def test_escape_ends_the_answer_and_then_leaves_the_input(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await open_chat(pilot)
        await ask(pilot, "on and on", "on and on and")
        await pilot.press("escape")
        await wait_for(pilot, lambda: "cancelled" in transcript(pilot))
        assert isinstance(pilot.app.focused, Prompt)
        await pilot.press("escape")
        assert isinstance(pilot.app.focused, Transcript)
        await pilot.press("i")
        assert isinstance(pilot.app.focused, Prompt)


async def test_a_second_question_waits_for_the_first_and_keeps_its_text(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await open_chat(pilot)
        await ask(pilot, "on and on", "on and on and")
        await pilot.press("n", "o", "w", "enter")
        await pilot.pause()
        assert pilot.app.screen.query_one(Prompt).text == "now"
        await pilot.press("escape")
        await wait_for(pilot, lambda: "cancelled" in transcript(pilot))


async def test_a_dead_process_says_so_and_r_starts_it_again(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await open_chat(pilot)
        await ask(pilot, "die", "ended with exit code 3: out of luck")
        assert "No model is loaded" in model(pilot)
        await pilot.press("escape", "r")
        await wait_for(pilot, lambda: "continues your text" in model(pilot))
        await ask(pilot, "again")


async def test_a_process_that_dies_unasked_is_noticed(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_chat(pilot)
        assert screen._client._process is not None
        screen._client._process.kill()
        await wait_for(pilot, lambda: "was ended by signal 9" in transcript(pilot))


async def test_a_question_after_the_process_left_loads_the_model_again(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await open_chat(pilot)
        await ask(pilot, "idle", "put away")
        await ask(pilot, "back")
        assert "backback" in transcript(pilot)


async def test_a_refusal_is_shown_and_the_chat_goes_on(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await open_chat(pilot)
        await ask(pilot, "refuse", "No. Ask otherwise.")
        await ask(pilot, "fine")
        assert "continues your text" in model(pilot)


async def test_a_damaged_checkpoint_says_what_is_wrong(make_app: MakeApp, run: RunDir) -> None:
    (run.checkpoints / "step-100" / "refuse").touch()
    async with make_app().run_test(size=(80, 24)) as pilot:
        pilot.app.open_chat("tiny@100")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ChatScreen) and "damaged" in transcript(pilot))
        assert "No model is loaded" in model(pilot)


async def test_an_unknown_checkpoint_is_one_sentence(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        pilot.app.open_chat("tinny")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ChatScreen) and "no run" in transcript(pilot))
        assert "'tiny'" in transcript(pilot)


async def test_another_checkpoint_keeps_the_text(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await open_chat(pilot)
        await ask(pilot, "hello")
        pilot.app.screen.query_one(Prompt).insert("half a thought")
        await pilot.press("escape", "o")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, CheckpointScreen))
        await settled(pilot)
        await pilot.press("j", "enter")
        await wait_for(
            pilot, lambda: isinstance(pilot.app.screen, ChatScreen) and "tiny@50 is loaded" in transcript(pilot)
        )
        assert transcript(pilot).startswith("hellohello")
        assert pilot.app.screen.query_one(Prompt).text == "half a thought"


async def test_chat_without_a_checkpoint_asks_for_one(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await pilot.press("C")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, CheckpointScreen))
        await settled(pilot)
        await pilot.press("enter")
        await wait_for(
            pilot, lambda: isinstance(pilot.app.screen, ChatScreen) and "continues your text" in model(pilot)
        )


async def test_a_checkpoint_chosen_elsewhere_answers_the_question(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await pilot.press("C")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, CheckpointScreen))
        await settled(pilot)
        await open_chat(pilot, "tiny@50")


async def test_an_empty_workspace_says_what_to_do(make_app: MakeApp) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await pilot.press("C")
        await wait_for(pilot, lambda: "There is no checkpoint yet" in screen_text(pilot.app))


async def test_an_empty_workspace_leads_home(make_app: MakeApp) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await pilot.press("C")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, CheckpointScreen))
        await pilot.press("H")
        await wait_for(pilot, lambda: pilot.app.current_mode == "home")


async def test_letters_are_text_once_a_checkpoint_is_chosen(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await pilot.press("C")
        await wait_for(pilot, lambda: "tiny@100" in screen_text(pilot.app))
        await pilot.press("enter")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, ChatScreen))
        await pilot.press("H", "o")
        assert pilot.app.screen.query_one(Prompt).text == "Ho"


async def test_sampling_is_set_by_keys_and_by_the_form(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_chat(pilot)
        await pilot.press("escape", "minus")
        assert screen.sampling.temperature == pytest.approx(0.7)
        await pilot.press("s")
        await settled(pilot)
        await pilot.press("end", "5", "enter")
        await settled(pilot)
        assert screen.sampling.temperature == pytest.approx(0.75)
        assert "temperature 0.75" in screen_text(pilot.app)


async def test_a_wrong_setting_stays_in_the_form(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_chat(pilot)
        await pilot.press("escape", "s")
        await settled(pilot)
        await pilot.press("end", "x", "enter")
        await settled(pilot)
        assert "expected a number" in " ".join(screen_text(pilot.app).replace("│", " ").split())
        await pilot.press("escape")
        assert screen.sampling == Chat()


async def test_an_answer_is_copied_and_the_toast_says_where_to(make_app: MakeApp, run: RunDir, home: Path) -> None:
    async with make_app().run_test(size=(80, 24), notifications=True) as pilot:
        await open_chat(pilot)
        await ask(pilot, "é\x1b[31m")
        await pilot.press("escape", "y")
        await settled(pilot)
        assert pilot.app.clipboard == "é\x1b[31m"
        assert (home / "state" / "workbench" / "copied.txt").read_text() == "é\x1b[31m"
        await wait_for(pilot, lambda: "OSC 52" in screen_text(pilot.app))


async def test_more_goes_on_and_clear_forgets(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await open_chat(pilot)
        await ask(pilot, "ab")
        await pilot.press("escape", "m")
        await wait_for(pilot, lambda: "… abababab\n" in transcript(pilot))
        await settled(pilot)
        await pilot.press("x")
        assert transcript(pilot) == ""


async def test_a_long_answer_costs_no_more_at_its_end(make_app: MakeApp, run: RunDir) -> None:
    """Appending to a transcript of 20,000 words takes as long as appending to an empty one."""
    async with make_app().run_test(size=(80, 24)) as pilot:
        await open_chat(pilot)
        shown = pilot.app.screen.query_one(Transcript)

        def seconds() -> float:
            best = 1e9
            for _ in range(5):
                start = time.perf_counter()
                for number in range(50):
                    shown.write(f" word{number}", "answer")
                best = min(best, time.perf_counter() - start)
            return best

        first = seconds()
        await ask(pilot, "long 20000")
        assert "word19999" in transcript(pilot)
        assert seconds() < 8 * first + 0.01


async def test_the_transcript_stays_where_the_reader_is(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        await open_chat(pilot)
        shown = pilot.app.screen.query_one(Transcript)
        shown.write("line\n" * 100, "answer")
        await pilot.pause()
        assert shown.is_vertical_scroll_end
        shown.scroll_to(y=10, animate=False)
        await pilot.pause()
        shown.write("line\n" * 10, "answer")
        await pilot.pause()
        assert shown.scroll_offset.y == 10


async def test_resizing_wraps_again(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await open_chat(pilot)
        await ask(pilot, "word " * 30)
        await pilot.resize_terminal(60, 20)
        await pilot.pause()
        shown = pilot.app.screen.query_one(Transcript)
        assert all(sum(len(text) for text, _ in line) <= 56 for line in shown._flow.lines)
        await pilot.resize_terminal(40, 12)
        await pilot.resize_terminal(300, 100)
        await pilot.pause()


async def test_the_process_ends_with_the_app(make_app: MakeApp, run: RunDir) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        screen = await open_chat(pilot)
        process = screen._client._process
    assert process is not None and process.returncode is not None


def test_choices_are_newest_first(workspace: Workspace, run: RunDir) -> None:
    assert [choice.name for choice in checkpoint_choices(workspace)] == ["tiny@100", "tiny@50"]


async def test_a_model_at_an_endpoint_can_be_chosen_where_no_weights_are_needed(
    make_app: MakeApp, workspace: Workspace, run: RunDir
) -> None:
    add_endpoint(workspace, "theirs", Endpoint(url="http://127.0.0.1:8080/v1", model="m"))
    assert "theirs" not in [choice.name for choice in checkpoint_choices(workspace)]
    async with make_app().run_test() as pilot:
        await pilot.press("C", "o")
        await wait_for(pilot, lambda: "theirs" in screen_text(pilot.app))
        assert "at 127.0.0.1:8080" in screen_text(pilot.app)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_snapshot_of_a_conversation(
    size: tuple[int, int],
    make_app: MakeApp,
    run: RunDir,
    snapshot: Callable[[Pilot[Any], str], Awaitable[None]],
) -> None:
    async with make_app().run_test(size=size) as pilot:
        await open_chat(pilot)
        await ask(pilot, "Once upon a time, in a town by the sea, a baker rose early. ")
        await ask(pilot, "漢字 and é")
        await snapshot(pilot, f"chat-{size[0]}x{size[1]}")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_snapshot_of_the_questions(
    size: tuple[int, int],
    make_app: MakeApp,
    run: RunDir,
    snapshot: Callable[[Pilot[Any], str], Awaitable[None]],
) -> None:
    async with make_app().run_test(size=size) as pilot:
        await open_chat(pilot)
        await pilot.press("escape", "o")
        await wait_for(pilot, lambda: isinstance(pilot.app.screen, CheckpointScreen))
        await snapshot(pilot, f"chat-checkpoints-{size[0]}x{size[1]}")
        await pilot.press("escape", "s")
        await snapshot(pilot, f"chat-sampling-{size[0]}x{size[1]}")


def test_one_completion_for_the_command_line(tmp_path: Path) -> None:
    """With a real model in a real process."""
    folder = write_tiny_checkpoint(tmp_path / "step-1", step=1)
    outcomes: list[Done] = []
    sampling = Chat(seed=1, max_new_tokens=12)
    first = "".join(chat_client.complete_once(folder, "Once", sampling, device="cpu", on_done=outcomes.append))
    assert first and outcomes[0].seed == 1
    with pytest.raises(UserError, match="no folder"):
        next(chat_client.complete_once(tmp_path / "nowhere", "Once", sampling, device="cpu"))


def _key(key: str) -> Any:
    from textual.events import Key

    return Key(key, "\r" if key == "enter" else key)
