"""Text that would act on a terminal, on markup or on a layout if anybody let it. The same list every time.

Each payload begins with a marker of its own, `p000`, by which a test finds it on the screen. The sequences use numbers
that the app itself never sends (attribute 53, row 1337), so that a frame that holds them betrays itself.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

ESC, CSI8, OSC8BIT, DCS8, ST8 = "\x1b", "\x9b", "\x9d", "\x90", "\x9c"

SEQUENCES = [
    "[53m",
    "[5;53mloud",
    "[2J",
    "[3J",
    "[1337;1337H",
    "[1337A",
    "[?1049l",
    "[?1049h",
    "[?25l",
    "[?2004l",
    "[6n",
    "[c",
    "[>c",
    "[0c",
    "[5i",
    "[4i",
    "[!p",
    "[?1000h",
    "[?1006h",
    "[8;1337;1337t",
    "[21t",
    "[20t",
    "[1337b",
    "[1337@",
    "[1337P",
    "]0;owned\x07",
    "]2;owned" + ESC + "\\",
    "]8;;http://evil.example" + ESC + "\\click" + ESC + "]8;;" + ESC + "\\",
    "]52;c;b3duZWQ=\x07",
    "]52;c;?\x07",
    "]4;1;?\x07",
    "]10;?\x07",
    "]1337;File=inline=1:AAAA\x07",
    "]777;notify;a;b\x07",
    "P$q q" + ESC + "\\",
    "P+q544e" + ESC + "\\",
    "Pq#0;2;0;0;0#0~~" + ESC + "\\",
    "_Gf=24;AAAA" + ESC + "\\",
    "^private" + ESC + "\\",
    "Xstring" + ESC + "\\",
    "c",
    "7",
    "8",
    "D",
    "E",
    "M",
    "Z",
    "=",
    ">",
    "(0",
    "#8",
    "%G",
    "n",
    "o",
]
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
INVISIBLE = (
    "\u00ad\u034f\u115f\u1160\u17b4\u180e\u200b\u200c\u200d\u2028\u2029\u2060\u2061\u2064\u206a\u206f\u3164\ufeff\uffa0"
    "\ufff9\ufffb\U0001d173\U000e0001\U000e0041\U000e007f"
)
MARKUP = [
    "[/]",
    "[/red]",
    "[red]",
    "[red",
    "[bold]x[/bold]",
    "[@click=app.quit]x[/]",
    "[@click=app.bell()]x[/@click]",
    "[link=http://evil.example]x[/link]",
    "[$primary]x",
    "[on red]x",
    "[not bold]",
    "[[]]",
    "[",
    "]",
    "[]",
    "[/",
    "\\[/]",
    "\\[red]",
    "[#ff0000]x[/]",
    "[rgb(1,2,3)]x",
    "[reverse blink]x[/]",
    "[a=b]",
    "[@]",
    "[@click]",
    "[@click=]x",
    "[?]",
    ":smiley:",
    ":[/]:",
    "{x}",
    "{0}",
    "%s%n",
    "$(reboot)",
    "`reboot`",
    "{{ 7 * 7 }}",
    "{% for x in y %}",
    "${jndi:x}",
    "<b>x</b>",
    "<script>alert(1)</script>",
    "&lt;&#x1b;",
    "'; DROP TABLE runs; --",
    "../../etc/passwd",
    "\\x1b[53m",
]
MARKDOWN = [
    "\x08" * 9 + "http://x",
    "[a](b " * 60,
    "`" * 80,
    "#" * 40,
    "*" * 81,
    "_" * 81,
    "> " * 40,
    "- " * 40,
    "![](x)" * 20,
    "|" * 60,
    "[x]: http://evil.example\n[x]",
    "~~~\n~~~",
    "```\n",
    "<!--",
    "***a**",
    "1. " * 30,
    "\\" * 60,
    "http://" * 12,
]
SCRIPTS = [
    "漢字かな交じり文",
    "한국어 텍스트",
    "ＦＵＬＬ",
    "ไทยภาษา",
    "العربية نص",
    "עברית טקסט",
    "हिन्दी पाठ",
    "ﷺ" * 5,
    "㍿㌔",
    "Ǆ ǆ ﬁ ﬃ",
    "ß ẞ İ ı",
    "𝕳𝖊𝖑𝖑𝖔",
    "\u1100\u1161\u11a8",
    "e\u0301 = é",
    "\u0e33" * 9,
    "𒐫" * 4,
    "꧅" * 4,
    "﷽" * 3,
]
EMOJI = [
    "👩\u200d👩\u200d👧\u200d👦",
    "🏳\ufe0f\u200d🌈",
    "👍🏽",
    "🇩🇪🇫🇷🇺",
    "❤\ufe0f\u200d🔥",
    "☺\ufe0e",
    "1\ufe0f\u20e3",
    "🏴\U000e0067\U000e0062",
    "🙂" * 30,
    "👨\u200d" * 9,
]
SURROGATES = ["\ud800", "\udfff", "a\udc80b", "\udcff\udcfe", "\ud83d", "\ude42\ud83d", "\ud800" * 40, "\udc1b[53m"]
LONG = [
    "x" * 3_000,
    "word " * 600,
    "漢" * 1_500,
    "\x1b" * 1_000,
    "e" + "\u0301" * 2_000,
    "\u202e" * 500,
    "a\n" * 60,
    "\t" * 200,
]


def payloads(count: int = 520) -> list[str]:
    """`count` payloads: every kind alone, then mixtures of them."""
    return [f"p{number:03d}{body}" for number, body in zip(range(count), _bodies(), strict=False)]


def in_json(text: str) -> bool:
    """Whether JSON has a form for the text that a strict reader takes: no lone surrogates."""
    return not any(0xD800 <= ord(char) < 0xE000 for char in text)


def in_file_name(text: str) -> str:
    """The payload as the name of a file or folder may be."""
    kept = "".join(char for char in text if char not in "/\0")
    return kept.encode("utf-8", "surrogatepass")[:200].decode("utf-8", "ignore")


def _bodies() -> Iterator[str]:
    yield from (f"<{chr(code)}>" for code in [*range(0x20), *range(0x7F, 0xA0)])
    for sequence in SEQUENCES:
        yield ESC + sequence
    yield from (CSI8 + "53m", CSI8 + "2J", OSC8BIT + "0;owned" + ST8, DCS8 + "q" + ST8, "\x9e\x9f\x98", "\x84\x85\x8d")
    for char in BIDI + INVISIBLE:
        yield f"<{char}>"
    yield from MARKUP
    yield from MARKDOWN
    yield from SCRIPTS
    yield from EMOJI
    yield from SURROGATES
    yield from LONG
    yield from _mixtures()


def _mixtures() -> Iterator[str]:
    draw = random.Random(7)
    parts = [
        *(ESC + each for each in SEQUENCES),
        *MARKUP,
        *MARKDOWN[:4],
        *SCRIPTS,
        *EMOJI,
        *BIDI,
        *INVISIBLE,
        "\r\n",
        "\r",
        "\t",
    ]
    while True:
        yield "".join(draw.choice(parts)[:40] for _ in range(draw.randint(2, 6)))
