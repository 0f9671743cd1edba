"""How a chat speaks of its model, its settings and its answers, each on one line."""

from __future__ import annotations

from stages.store.chat import REASONS, Done, Facts
from stages.store.specs.chat import Chat


def described(facts: Facts) -> str:
    """The model that is loaded."""
    kind = "base model: it continues your text" if facts.kind == "base" else "chat model: it answers you"
    if not facts.parameters:
        return f"{kind} · at {facts.device}"
    count = facts.parameters
    size = f"{count:,}" if count < 1e5 else f"{count / 1e6:.1f} M" if count < 1e9 else f"{count / 1e9:.2f} B"
    return f"{kind} · {size} parameters · context {facts.context:,} · {facts.device} {facts.precision}"


def outcome(done: Done) -> str:
    """How an answer ended, and how fast it was."""
    parts = [f"{done.tokens:,} tokens", f"{done.tokens_per_s:,.0f} tokens/s", REASONS[done.reason], f"seed {done.seed}"]
    if done.turns_cut:
        parts.append(f"the first {done.turns_cut:,} messages no longer fit")
    elif done.cut:
        parts.append(f"only the last {done.prompt_tokens:,} tokens of the text fitted")
    return " · ".join(parts)


def settings_line(settings: Chat) -> str:
    """How answers are drawn."""
    parts = [
        f"temperature {settings.temperature:g}",
        f"top-k {settings.top_k or 'all'}",
        f"top-p {settings.top_p:g}",
        f"up to {settings.max_new_tokens:,} tokens",
        "seed drawn" if settings.seed is None else f"seed {settings.seed}",
    ]
    parts += [f"stop {stop!r}" for stop in settings.stop]
    return " · ".join(parts + (["system message"] if settings.system else []))


def end_of(text: str, characters: int = 60) -> str:
    """The end of a text on one line."""
    return " ".join(text[-characters:].split())
