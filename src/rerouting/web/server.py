"""Listen for the browser, on this machine alone unless told otherwise. Starts without the extra `ui` being there."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING

from rerouting.core.errors import UserError

if TYPE_CHECKING:
    from rerouting.pipeline.chat_style import Style
    from rerouting.pipeline.conversation import Pair


def require_extra() -> None:
    """Refuse to go on without starlette and uvicorn.

    Raises:
        UserError: one is missing.
    """
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"--web needs {' and '.join(missing)}", "pip install 'rerouting[ui]', or chat in the terminal"
        )


def serve(pair: Pair, style: Style, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C.

    Args:
        pair: the models.
        style: how they answer, where the page does not say.
        host: address or name to listen on.
        port: 0 for any that is free.
        say: called with lines for the user.

    Raises:
        UserError: the address cannot be listened on, or the extra is missing.
    """
    require_extra()
    import uvicorn

    from rerouting.web.app import app_of

    listening = listen(host, port)
    say(f"open {address(listening)} in a browser; Ctrl-C ends")
    if not _is_local(listening):
        say("anyone who reaches this machine can use both models: there is no password")
    config = uvicorn.Config(
        app_of(pair, style, host), log_level="warning", timeout_graceful_shutdown=2, server_header=False
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the address.

    Raises:
        UserError: the address is not this machine's, or the port is taken.
    """
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError(f"cannot listen on {host!r}: {error.strerror}", "try --host 127.0.0.1") from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(where)
        listening.listen()  # a browser that is quicker than uvicorn waits instead of being refused
    except OSError as error:
        listening.close()
        raise UserError(
            f"cannot listen on {host}, port {port}: {error.strerror}", "give another --port (0: any free one)"
        ) from error
    return listening


def address(listening: socket.socket) -> str:
    """What to type into the browser."""
    host, port = listening.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_local(listening: socket.socket) -> bool:
    return ip_address(listening.getsockname()[0]).is_loopback
