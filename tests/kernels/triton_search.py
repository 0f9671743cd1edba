"""Hypothesis looks for calls that the Triton kernels get wrong, where its cases run (`tests.kernels.device`).

    python -m tests.kernels.triton_search EXAMPLES [SEED]

Without a seed the same calls are tried every time. What is found is shrunk to the smallest call that still goes wrong
and printed to stderr; else one JSON line says how many were tried and what `drift` makes of them.
"""

from __future__ import annotations

from tests.kernels import triton_cases  # isort: skip  # before the kernels are decorated

import json
import sys

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.kernels.outcome import Outcome, complaints, drift
from tests.kernels.triton_cases import DTYPES, ON_CARD, TILES, Case, on_a_card

EDGES = (1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127)


@st.composite
def calls(draw: st.DrawFn) -> Case:
    """Any call within the bounds of what the kernels serve, small enough for the interpreter."""
    kind = draw(st.sampled_from(("padded", "padded", "packed", "decode")))
    length = st.one_of(st.sampled_from(EDGES), st.integers(1, 100))
    G, group, B = draw(st.sampled_from((1, 2))), draw(st.sampled_from((1, 2, 3, 7))), draw(st.sampled_from((1, 2)))
    T, S = draw(length), draw(length)
    own: dict[str, object] = {}
    if kind == "packed":
        B, S = 1, T
        cuts = sorted(draw(st.lists(st.integers(0, T), max_size=4)))
        own["documents"] = (0, *cuts, draw(st.integers(cuts[-1] if cuts else 0, T)))
    elif kind == "decode":
        own["decode"] = tuple(draw(st.lists(st.integers(0, S), min_size=B, max_size=B)))
        own["splits"] = draw(st.sampled_from((None, 1, 2, 5)))
    else:
        lengths = st.tuples(*[st.integers(0, S)] * B)
        own["key_lengths"] = draw(st.one_of(st.none(), lengths))
        own["bias"] = draw(st.sampled_from((None, None, (B, 1, T, S), (1, G * group, 1, S))))
        own["layout"] = draw(st.sampled_from(("dense", "heads first", "every second column")))
    case = Case(
        draw(st.sampled_from(DTYPES)), B, G * group, G, T, S, draw(st.sampled_from((16, 17, 32, 40, 64, 72))),
        causal=draw(st.booleans()), window=draw(st.one_of(st.none(), st.integers(1, 110))),
        tiles=draw(st.sampled_from(TILES)), logits=draw(st.sampled_from((1.0, 3.0))), repeat=draw(st.booleans()),
        **own,  # type: ignore[arg-type]  # the fields that differ by kind
    )  # fmt: skip
    return on_a_card([case])[0] if ON_CARD else case


def main() -> None:
    examples, *seeds = map(int, sys.argv[1:])
    tried: list[Outcome] = []

    @settings(
        max_examples=examples, derandomize=not seeds, database=None, deadline=None, print_blob=False,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip
    @given(calls())
    def search(case: Case) -> None:
        outcome = triton_cases.run(case)
        tried.append(outcome)
        assert complaints(outcome, alone=False) == [], str(case)

    (seed(seeds[0])(search) if seeds else search)()
    print(json.dumps({"tried": len(tried), "drift": drift(tried)}))


if __name__ == "__main__":
    main()
