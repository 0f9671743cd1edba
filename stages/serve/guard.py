"""The door of the endpoint: who may come in, and with how much."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.responses import Response

from stages.store.errors import UserError

MAX_BODY = 8 * 2**20
"""Bytes of a request's body."""
OPEN = ("/health",)
"""Paths that need no token."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class TooLarge(Exception):
    """The body goes on beyond MAX_BODY."""


class Refused(UserError):
    """A request that is refused, with its HTTP status and the code by which clients know it."""

    def __init__(self, status: int, code: str, title: str, hint: str = "", param: str | None = None) -> None:
        super().__init__(title, hint)
        self.status, self.code, self.param = status, code, param

    def response(self) -> Response:
        """The error as OpenAI's clients expect it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        body = {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return Response(msgspec.json.encode(body), self.status, headers, "application/json")


class Guard:
    """ASGI middleware: refuses a foreign Host header, a missing token and an oversize body, before anything is read.

    A web page that someone has open can make its browser send requests to this machine, under a name that resolves here
    (DNS rebinding); its Host header gives it away. No CORS header is ever sent.
    """

    def __init__(self, app: App, *, token: str, host: str) -> None:
        self._app, self._token, self._host = app, token, host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check(scope["path"], headers)
        except Refused as refused:
            await refused.response()(scope, receive, send)
            return
        await self._app(scope, _counted(receive), send)

    def _check(self, path: str, headers: dict[str, str]) -> None:
        if not self._is_ours(headers.get("host", "")):
            raise Refused(403, "foreign_host", "The Host header names another machine.", "Use the address printed.")
        if path not in OPEN:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token.encode()):
                raise Refused(401, "invalid_api_key", "The token is missing or wrong.", "It is printed at the start.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            raise Refused(413, "too_large", f"A request may have at most {MAX_BODY // 2**20} MB.")

    def _is_ours(self, header: str) -> bool:
        """Whether a Host header names this machine: as it is bound, as localhost, or by an address."""
        try:
            name = urlsplit(f"//{header}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", self._host):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        bound_everywhere = self._host in ("0.0.0.0", "::")
        return address.is_loopback or bound_everywhere


def _counted(receive: Receive) -> Receive:
    """Receives a body of at most MAX_BODY bytes, whatever its headers say."""
    seen = 0

    async def counted() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY:
            raise TooLarge
        return message

    return counted
