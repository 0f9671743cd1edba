"""Text that grows is wrapped the same however it comes, and never overflows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from workbench.display import displayable
from workbench.widgets.flow import PILE, Flow

PIECES = st.lists(st.text(st.sampled_from("ab \n漢é\u0301\ufe0f🙂-"), max_size=30), max_size=12)


def shown(flow: Flow) -> list[str]:
    return ["".join(text for text, _ in line) for line in flow.lines]


def test_words_stay_whole_where_a_space_is_near() -> None:
    flow = Flow(10)
    flow.add("the quick brown fox", "")
    assert shown(flow) == ["the quick", "brown fox"]


def test_a_word_longer_than_the_line_is_cut() -> None:
    flow = Flow(4)
    flow.add("abcdefghij", "")
    assert shown(flow) == ["abcd", "efgh", "ij"]


@given(PIECES, st.integers(1, 12))
def test_pieces_wrap_like_the_whole(pieces: list[str], width: int) -> None:
    whole, grown = Flow(width), Flow(width)
    whole.add("".join(pieces), "")
    for piece in pieces:
        grown.add(piece, "")
    assert shown(grown) == shown(whole)


@given(PIECES, st.integers(2, 12))
def test_no_line_is_wider_than_the_window_and_only_breaks_are_lost(pieces: list[str], width: int) -> None:
    flow, text = Flow(width), "".join(pieces)
    flow.add(text, "")
    assert all(cell_len(line) <= width for line in shown(flow))
    assert "".join(shown(flow)).replace(" ", "") == text.replace("\n", "").replace(" ", "")


def test_styles_stay_with_their_text() -> None:
    flow = Flow(6)
    flow.add("ab cd", "x")
    flow.add(" ef gh", "y")
    assert flow.lines == [[("ab cd", "x")], [("ef gh", "y")]]


def test_a_pile_of_combining_marks_is_cut() -> None:
    flow = Flow(10)
    flow.add(displayable("e" + "\u0301" * 5_000), "")
    assert max(map(len, shown(flow))) <= PILE * 10


def test_only_lines_from_the_changed_one_on_are_new() -> None:
    flow = Flow(20)
    flow.add("word " * 1_000, "")
    before = flow.lines[:-1]
    assert flow.add("more", "") == len(before)
    assert all(new is old for new, old in zip(flow.lines, before, strict=False))
