"""Only this page may talk to the server: other sites, and names that were rebound to this machine, are refused.

A browser lets any site send a POST to localhost, and lets a name that its owner points at 127.0.0.1 count as the
site's own. The first shows in the Origin header, the second in the Host header.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Messages = Callable[..., Awaitable[Any]]


class Guard:
    """Middleware: checks Host and Origin, and adds the headers that keep the page to itself."""

    def __init__(self, app: Messages, host: str) -> None:
        """Wrap an application.

        Args:
            app: what is guarded.
            host: address or name that the server was told to listen on.
        """
        self._app, self._host = app, host

    async def __call__(self, scope: Any, receive: Messages, send: Messages) -> None:
        """Answer, or refuse with 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        problem = refusal(Headers(scope=scope), self._host)
        app = self._app if problem is None else JSONResponse({"problem": problem, "fix": ""}, status_code=403)
        await app(scope, receive, guarded)


def refusal(headers: Headers, host: str) -> str | None:
    """Why a request is refused; None if it is not.

    Args:
        headers: of the request.
        host: address or name that the server was told to listen on.
    """
    named = headers.get("host", "")
    if not _own(named, host):
        return f"this server is not called {named[:80]!r}: use its address, or start it with --host and that name"
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != named:
        return f"requests from {origin[:80]!r} are refused"
    if (
        headers.get("sec-fetch-site") in ("cross-site", "same-site")
        and headers.get("sec-fetch-mode") != "navigate"
    ):
        return "requests from other sites are refused"
    return None


def _own(named: str, host: str) -> bool:
    """Whether a Host header is an address, localhost, or the name that was asked for: nobody can rebind these."""
    name = named.rpartition(":")[0] if named.rpartition(":")[2].isdigit() else named
    name = name.removeprefix("[").removesuffix("]").lower()
    if name in ("localhost", host.lower()):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
