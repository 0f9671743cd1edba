"""Keys that come faster than they are worked off: each waits until what the key before it does is done.

Textual hands a key at once to what has the focus, while the key before it may still be on its way to opening a dialog
or a place: over a slow line, which brings keys in bunches, or on a busy machine, a text typed into a dialog would lose
its beginning to the screen below. Here a message follows each key along the same way, from widget to widget up to the
app; as all of them work off what they are sent in order, the key is done with when the message arrives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from textual.events import Key
from textual.message import Message

if TYPE_CHECKING:
    from textual.app import App
    from textual.message_pump import MessagePump
    from textual.timer import Timer

ROUNDS = 2
"""Messages that follow a key, one by one: what the key sent, as a text submitted, is done with by the second."""
PATIENCE = 0.5
"""Seconds after which the next key goes on all the same: what had the focus may be gone, and the message too."""
LOOK = 0.01
"""Seconds between looks whether a new screen is there."""


class Followed(Message, bubble=True):
    """What was sent before this has been worked off."""

    def __init__(self, number: int, left: int) -> None:
        super().__init__()
        self.number, self.left = number, left


class KeysInTurn:
    """Hands an app's keys on, one at a time and in order."""

    def __init__(self, app: App[None], hand_on: Callable[[Key], Awaitable[None]]) -> None:
        self._app, self._hand_on = app, hand_on
        self._waiting: deque[Key] = deque()
        self._number = 0
        self._busy = False
        self._timer: Timer | None = None

    @property
    def busy(self) -> bool:
        """Whether a key is being worked off."""
        return self._busy

    async def take(self, key: Key) -> None:
        """Hand the key on now, or when those before it are done with."""
        self._waiting.append(key)
        if not self._busy:
            await self._go_on()

    async def followed(self, message: Followed) -> None:
        """The message has arrived: another round, or the next key."""
        if message.number == self._number and self._busy and self._is_open():
            if message.left:
                self._follow(self._app.focused or self._app.screen, message.left - 1)
            else:
                await self._done()

    def _is_open(self) -> bool:
        """Whether there is a screen: no longer while the app closes."""
        return bool(self._app.screen_stack)

    async def _go_on(self) -> None:
        if not self._waiting or not self._is_open():
            return
        self._busy = True
        self._number += 1
        self._timer = self._app.set_timer(PATIENCE, self._done)
        target = self._app.focused or self._app.screen
        await self._hand_on(self._waiting.popleft())
        self._follow(target, ROUNDS - 1)

    def _follow(self, target: MessagePump, left: int) -> None:
        if not (target.is_attached and target.post_message(Followed(self._number, left))):
            self._app.post_message(Followed(self._number, left))

    async def _done(self) -> None:
        """The key is done with, but the screen that it opened may not be there yet."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        if self._waiting and self._is_open() and not self._app.screen.is_mounted:
            self._timer = self._app.set_timer(LOOK, self._done)
            return
        self._busy = False
        await self._go_on()
