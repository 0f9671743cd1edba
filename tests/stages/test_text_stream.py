"""Text as it comes, token by token: no half character, and nothing of a stop string."""

from __future__ import annotations

import pytest

from stages.asking.text_stream import TextStream


class Bytes:
    """A tokenizer whose ids are bytes."""

    def decode(self, ids: list[int], /) -> str:
        return bytes(ids).decode("utf-8", "replace")


TEXTS = [
    "plain text, and then some more of it to pass the window",
    "naïve café ☕ 😀👩‍👩‍👧 日本語",
    "😀" * 30,
    "",
    "\ufffd a \ufffd",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_a_whole_character_at_a_time(text: str) -> None:
    stream = TextStream(Bytes())
    parts = [stream.feed(byte) for byte in text.encode()]
    shown = "".join(parts)
    assert text.startswith(shown)
    assert shown + stream.finish() == text
    if "\ufffd" not in text:
        assert shown == text and not any("\ufffd" in part for part in parts)


def test_broken_bytes_come_out_in_the_end() -> None:
    stream = TextStream(Bytes())
    data = b"ok \xff\xfe\xff\xff\xff\xff\xff fine \xf0\x9f"
    assert "".join(stream.feed(byte) for byte in data) + stream.finish() == data.decode("utf-8", "replace")


def test_the_cost_of_a_token_does_not_grow_with_the_text() -> None:
    class Counting(Bytes):
        most = 0

        def decode(self, ids: list[int], /) -> str:
            self.most = max(self.most, len(ids))
            return super().decode(ids)

    data = b"ok" + b"\xff" * 1_000 + "née".encode() * 200 + b"\xf0\x9f" * 300 + b"done"
    counting = Counting()
    stream = TextStream(counting)
    assert "".join(stream.feed(byte) for byte in data) + stream.finish() == data.decode("utf-8", "replace")
    assert counting.most < 100


def test_a_stop_string_is_never_shown_even_in_part() -> None:
    for text, stops, expected in [
        ("Hello\nUser: hi", ["\nUser:"], "Hello"),
        ("Hello\nUsual: hi", ["\nUser:"], "Hello\nUsual: hi"),
        ("aabaac", ["aac"], "aab"),
        ("one two", ["two", "ne"], "o"),
        ("ends with \nUs", ["\nUser:"], "ends with \nUs"),
        ("né😀stop", ["😀"], "né"),
    ]:
        stream = TextStream(Bytes(), stops)
        shown = ""
        for byte in text.encode():
            shown += stream.feed(byte)
            assert expected.startswith(shown)
        assert shown + stream.finish() == expected
        assert stream.stopped == (expected != text)
