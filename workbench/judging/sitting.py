"""A session while a screen stays alive: its acts in a thread, one after the other, and what is to be settled in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from stages.store.labels import Shown
from stages.store.workspace import Workspace
from workbench.judging.labelling import Session

T = TypeVar("T")


class Sitting:
    """One person at a label set, or at those prompts of it that are to be settled."""

    def __init__(self, settle: Sequence[int] = ()) -> None:
        self.session: Session | None = None
        """None before it is open and after it was closed."""
        self.turn = asyncio.Lock()
        """Held from an act until what it leads to is on the screen, so that the next act is about that."""
        self.to_settle = list(settle)
        """Places where judgements disagree, the one at hand first; empty when there is other work."""
        self._settling = bool(settle)
        self._thread = ThreadPoolExecutor(1, "judge")

    async def open(self, workspace: Workspace, name: str, annotator: str) -> Shown | None:
        """Open the label set, and the prompt that comes first. UserError when it cannot be read."""
        self.session = await self.do(Session, workspace, name, annotator)
        return await self.next(self.session)

    async def close(self) -> None:
        """Close the session, after all that is still to be done. UserError when the disk does not take it."""
        session, self.session = self.session, None
        try:
            if session is not None:
                await self.do(session.close)
        finally:
            self._thread.shutdown(wait=False)

    async def do(self, act: Callable[..., T], *arguments: Any) -> T:
        """Do something with the session."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(act, *arguments))

    async def next(self, session: Session) -> Shown | None:
        """The prompt that comes next: one to settle, while there are any."""
        return await (self.do(session.settle, self.to_settle[0]) if self.to_settle else self.do(session.next))

    def pass_on(self) -> bool:
        """The prompt at hand is judged; whether more is to come, which is False once all is settled."""
        del self.to_settle[:1]
        return bool(self.to_settle) or not self._settling

    def take_back(self, place: int) -> None:
        """The prompt at a place is to be judged again."""
        if self._settling:
            self.to_settle.insert(0, place)

    def turn_to_others(self) -> None:
        """Leave what is to be settled, for the prompts of the set as they come."""
        self.to_settle, self._settling = [], False
