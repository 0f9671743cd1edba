"""Filling blanks with T5: a text with ___ in it, and what the model would write there, of any length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stages.asking.filled import BLANK, Candidate, Filled
from stages.asking.text_to_text import Writing
from stages.data.corruption import Sentinels
from stages.data.tokenizer import TextTokenizer
from stages.models.t5 import T5
from stages.store.errors import UserError

LONGEST = 32
"""Tokens that are written into one blank at most."""


@torch.inference_mode()
def fill_spans(model: T5, tokenizer: TextTokenizer, text: str, count: int = 5) -> Filled:
    """Fill every blank of `text` with the likeliest token after the likeliest token; `count` candidates for each.

    A candidate begins with another of the likeliest tokens and goes on with the likeliest; its probability is that of
    the whole span and of its ending there. Blanks before it are filled as in the answer. Raises UserError when there is
    no blank, or more than the tokenizer has sentinels.
    """
    sentinels = Sentinels.of(tokenizer)
    parts = BLANK.split(text)
    if len(parts) == 1:
        raise UserError("There is no blank in the text.", "Write ___ where one is.")
    if len(parts) > len(sentinels.ids):
        raise UserError(f"The text has more blanks than the {len(sentinels.ids) - 1} that the model can tell apart.")
    marks = sentinels.ids.tolist()
    read: list[int] = []
    for number, part in enumerate(parts):
        read += ([marks[number - 1]] if number else []) + tokenizer.encode(part)
    read.append(sentinels.end)
    if len(read) > model.config.context:
        raise UserError(f"The text has {len(read):,} tokens, and the model sees {model.config.context:,}.")
    written, blanks, answer = [tokenizer.pad_id], [], parts[0]
    for number, part in enumerate(parts[1:]):
        written.append(marks[number])
        spans = _spans(model, read, written, tokenizer, count)
        best, _ = spans[0]
        written += best
        blanks.append([Candidate(tokenizer.decode(span).strip(), share) for span, share in spans])
        answer += _fitting(answer, tokenizer.decode(best), part) + part
    return Filled(answer, blanks)


def _spans(
    model: T5, read: Sequence[int], written: Sequence[int], tokenizer: TextTokenizer, count: int
) -> list[tuple[list[int], float]]:
    """Spans that may come next, with their probabilities; the greedy one first, the others by falling probability."""
    special = torch.tensor(sorted(tokenizer.special_ids), device=model.tokens.device)
    rows = min(count, model.config.vocab_size - len(special))
    writing = Writing(model, [read] * rows, torch.tensor([written] * rows))
    log_p_BV = writing.logits().log_softmax(-1)
    firsts_B = _without(log_p_BV[0], special).topk(rows).indices
    spans = [[token] for token in firsts_B.tolist()]
    sums = log_p_BV[0][firsts_B].tolist()
    running = set(range(rows))
    writing.append(firsts_B)
    for _ in range(LONGEST):
        log_p_BV = writing.logits().log_softmax(-1)
        next_B = log_p_BV.argmax(-1)
        for row in sorted(running):
            token = int(next_B[row])
            sums[row] += float(log_p_BV[row, token])
            if token in tokenizer.special_ids or len(spans[row]) >= LONGEST:
                running.discard(row)
            else:
                spans[row].append(token)
        if not running:
            break
        writing.append(next_B)
    shares = [float(torch.tensor(each).exp()) for each in sums]
    found = list(zip(spans, shares, strict=True))
    return [found[0], *sorted(found[1:], key=lambda pair: -pair[1])]


def _without(log_p_V: Tensor, special: Tensor) -> Tensor:
    return log_p_V.index_fill(0, special, -torch.inf)


def _fitting(before: str, span: str, after: str) -> str:
    """The span as it stands in the text: a space that the text has on either side is not there twice."""
    if before.endswith((" ", "\n")) or not before:
        span = span.lstrip(" ")
    return span.rstrip(" ") if after.startswith((" ", "\n")) else span
