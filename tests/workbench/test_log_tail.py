"""The tail of a log: what came last is what is seen, of a line that never ends too, and only that is laid out anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from textual.app import App, ComposeResult

from workbench.widgets import log_tail
from workbench.widgets.log_tail import LINES, LONGEST, LogTail


class Tail(App[None]):
    def compose(self) -> ComposeResult:
        yield LogTail()


@pytest.fixture
def laid_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The lines that were wrapped."""
    wrapped: list[str] = []
    rows = LogTail._rows
    monkeypatch.setattr(log_tail.LogTail, "_rows", lambda log, line: [wrapped.append(line), rows(log, line)][1])
    yield wrapped


async def test_of_a_line_that_never_ends_the_last_is_shown_and_kept(laid_out: list[str]) -> None:
    app = Tail()
    async with app.run_test(size=(80, 24)):
        log = app.query_one(LogTail)
        log.add("before\n")
        for number in range(100):
            log.add(f"step-{number} " * 50)
        assert log.lines[0] == "before" and log.lines[-1].endswith("step-99 ")
        assert sum(map(len, log.lines)) <= LONGEST + len("before") and len(log._kept[-1]) == LONGEST
        assert log.is_vertical_scroll_end
        log.add("done\nand on")
        assert log.lines[-2].endswith("step-99 done") and log.lines[-1] == "and on"


async def test_a_line_that_grows_is_laid_out_alone(laid_out: list[str]) -> None:
    app = Tail()
    async with app.run_test(size=(80, 24)):
        log = app.query_one(LogTail)
        log.add("".join(f"line {number}\n" for number in range(LINES)) + "grow")
        laid_out.clear()
        log.add("s and ")
        log.add("grows\n")
        assert laid_out == ["grows and ", "grows and grows", ""]
        assert list(log.lines)[-2:] == ["grows and grows", ""]
        shown = list(log.lines)
        log._wrap()
        assert list(log.lines)[-9:] == shown[-9:], "as if all had come at once"


async def test_whoever_has_scrolled_up_stays_there_while_a_line_grows() -> None:
    app = Tail()
    async with app.run_test(size=(80, 24)) as pilot:
        log = app.query_one(LogTail)
        log.add("".join(f"line {number}\n" for number in range(200)) + "grow")
        log.scroll_to(y=50, animate=False, immediate=True)
        await pilot.pause()
        for _ in range(50):
            log.add("s and grows")
        await pilot.pause()
        assert log.scroll_y == 50
