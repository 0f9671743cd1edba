"""The transcript of a chat: its turns, and below an answer what there is to say of it."""

from __future__ import annotations

from typing import cast

from textual.binding import Binding
from textual.containers import ScrollableContainer

from stages.store.chat import Done
from workbench.judging.exchange import Exchange
from workbench.keys import SCROLL_KEYS
from workbench.talking.chat_wording import outcome
from workbench.widgets.transcript import Transcript


def _scrolling() -> list[Binding]:
    """Keys that scroll: all but left, right, h, l and k, which are about answers here."""
    taken = ("left", "right")
    own = [cast("Binding", one) for one in ScrollableContainer.BINDINGS]
    return [one for one in own if one.key not in taken] + [one for one in SCROLL_KEYS if one.key != "k"]


class ChatTranscript(Transcript, inherit_bindings=False):
    """The transcript, which leaves the keys of answers to the screen."""

    HELP_TITLE = "The transcript"
    BINDINGS = [*_scrolling()]

    def ask(self, exchange: Exchange) -> None:
        """Begin a turn. What comes after the mark is the answer."""
        self.start_block()
        if exchange.talks:
            self.write("you\n", "heading")
        self.write(exchange.prompt, "prompt")
        if exchange.talks:
            self.write("\nassistant\n", "heading")
        exchange.mark = self.spans

    def end_answer(self, exchange: Exchange, done: Done, number: str = "") -> None:
        """Below an answer, how it ended, and where what the model was given comes from."""
        self.write(f"\n{number}{outcome(done)}", "note")
        if exchange.sources:
            self.write(f"\n{exchange.sources}", "note")

    def show_answer(self, exchange: Exchange) -> None:
        """The answer that counts, in the place of what stood there, and which of how many it is."""
        answer, count = exchange.answer, len(exchange.answers)
        if answer is None:
            return
        self.cut(exchange.mark)
        self.write(answer.text, "answer")
        self.end_answer(exchange, answer.done, f"answer {exchange.at + 1} of {count} · " if count > 1 else "")
        if exchange.ranked:
            self.write(f"\n{exchange.ranked}", "note")
