"""Who may look at the page: checks and headers around every answer. Pure ASGI.

A page on loopback is open to this machine's users, as the run folders' permissions say; another
site's script cannot read it, since its Host is checked (DNS rebinding) and nothing allows other
origins. Elsewhere a token is asked for, once by URL, then by a cookie.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "Guarding"]

_COOKIE = "flmq-token"
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Guarding:
    """What is asked of a request."""

    hosts: Collection[str] | None
    """Names, without a port, by which the page may be asked for; None: any."""
    token: str | None = None
    """None: none is needed."""
    secure: bool = False
    """Whether it is served over TLS, so that the cookie need never travel otherwise."""


class Guard:
    """Around an app: refuses what may not look, and adds headers to what is answered."""

    def __init__(self, app: ASGIApp, guarding: Guarding) -> None:
        """Let those through to ``app`` that ``guarding`` allows."""
        self._app = app
        self._guarding = guarding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-cache")
            await send(message)

        answer = self._refusal(Request(scope))
        await (answer or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that does not go further; None if it does."""
        if request.method not in ("GET", "HEAD"):
            return _refused(405, "this page only shows: ask by GET", allow="GET, HEAD")
        hosts = self._guarding.hosts
        if hosts is not None and _host(request) not in hosts:
            return _refused(403, f"ask for this page by one of its own names: {', '.join(hosts)}")
        token = self._guarding.token
        if token is None or _is(token, request.cookies.get(_COOKIE, "")):
            return None
        if _is(token, request.headers.get("authorization", "").removeprefix("Bearer ")):
            return None
        if _is(token, request.query_params.get("token", "")):
            return self._admitted(request, token)
        told = "this page needs its token: open the URL that `flmq ui` printed, with ?token=..."
        return _refused(401, told)

    def _admitted(self, request: Request, token: str) -> Response:
        """Return the way to the same page without the token, which a cookie has from then on."""
        pairs = parse_qsl(request.url.query, keep_blank_values=True)
        rest = urlencode([(name, value) for name, value in pairs if name != "token"])
        # Never to a "//host", which would be another site.
        where = "/" + quote(request.url.path.lstrip("/"))
        answer = RedirectResponse(f"{where}?{rest}" if rest else where, status_code=303)
        answer.set_cookie(
            _COOKIE, token, httponly=True, samesite="strict", secure=self._guarding.secure
        )
        return answer


def _refused(status: int, told: str, **headers: Any) -> Response:
    return JSONResponse({"error": told}, status, headers)


def _is(token: str, given: str) -> bool:
    return hmac.compare_digest(token.encode(), given.encode(errors="replace"))


def _host(request: Request) -> str:
    host = request.headers.get("host", "")
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
