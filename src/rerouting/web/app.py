"""The server's side of the chat: the page, and answers as a stream of JSON lines.

The page keeps the conversation and sends it along with each message, so several tabs do not mix and nothing is kept
here. One answer is written at a time; when the client goes away, writing stops.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Generator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from rerouting.core.config import from_mapping
from rerouting.core.errors import UserError
from rerouting.pipeline.chat_style import Style
from rerouting.pipeline.conversation import Conversation, Event, Exchange, Pair, Piece
from rerouting.pipeline.trip import away
from rerouting.web.guard import Guard

PAGE = Path(__file__).parent / "page"
MOST_BYTES, MOST_TOKENS = 2**20, 8192
PATIENCE = 10.0
"""Seconds that a message waits for the answer before it to stop."""

_log = logging.getLogger("rerouting.web")


@dataclass
class Asked:
    """A message and the conversation before it, as the page sends them."""

    message: str
    """The user's turn."""
    prefill: str = ""
    """What both answers are made to begin with."""
    system: str = ""
    """System prompt, empty for the template's own."""
    exchanges: list[Exchange] = field(default_factory=list)
    """The turns so far."""
    max_new_tokens: int | None = None
    """Length at which an answer is cut; null for the server's."""
    temperature: float | None = None
    """0 is greedy; null for the server's."""
    seed: int = 0
    """Of the sampling, added to the server's."""

    def style(self, usual: Style) -> Style:
        """How the answers are to be written.

        Args:
            usual: the server's.

        Raises:
            UserError: no answer can be made so.
        """
        style = replace(
            usual,
            max_new_tokens=usual.max_new_tokens if self.max_new_tokens is None else self.max_new_tokens,
            temperature=usual.temperature if self.temperature is None else self.temperature,
            seed=usual.seed + self.seed,
        )
        style.check()
        if any(exchange.images for exchange in self.exchanges):
            raise UserError("the page takes no pictures", "use `rerouting chat` in the terminal")
        if style.max_new_tokens > MOST_TOKENS:
            raise UserError(f"max_new_tokens is {style.max_new_tokens}", f"give at most {MOST_TOKENS}")
        return style


class Service:
    """Answers one page at a time from one pair of models."""

    def __init__(self, pair: Pair, style: Style) -> None:
        """Begin idle.

        Args:
            pair: the models.
            style: how they answer, where the page does not say.
        """
        self._pair, self._style, self._turn = pair, style, asyncio.Lock()

    async def about(self, request: Request) -> Response:
        """What the page shows of the run, and its defaults."""
        return JSONResponse(
            {
                "run": self._pair.name,
                "layers": self._pair.layers,
                "context": self._pair.context,
                "trip_below": self._style.trip_below,
                "max_new_tokens": self._style.max_new_tokens,
                "temperature": self._style.temperature,
            }
        )

    async def answer(self, request: Request) -> Response:
        """Both answers, a JSON line an event; 400, 409 or 413 with problem and fix."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _problem(415, UserError("the message is not JSON", "send application/json"))
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                return _problem(413, UserError("the conversation is over 1 MiB", "start a new one (reset)"))
        try:
            asked = _parsed(bytes(body))
        except UserError as error:
            return _problem(400, error)
        try:
            await asyncio.wait_for(self._turn.acquire(), PATIENCE)
        except TimeoutError:
            busy = UserError("another answer is being written", "wait for it, or stop it")
            return _problem(409, busy)
        try:
            events = await run_in_threadpool(self._ask, asked)
        except UserError as error:
            self._turn.release()
            return _problem(400, error)
        except BaseException:
            self._turn.release()
            raise
        return _Answer(events, self._turn)

    def _ask(self, asked: Asked) -> Generator[Event, None, None]:
        style = asked.style(self._style)
        return Conversation(self._pair, style, asked.system, asked.exchanges).ask(
            asked.message, asked.prefill
        )


class _Answer(StreamingResponse):
    """A stream that ends the writing when it is over, however it came to its end."""

    def __init__(self, events: Generator[Event, None, None], turn: asyncio.Lock) -> None:
        super().__init__(_lines(events), media_type="application/x-ndjson")
        self._events, self._turn = events, turn

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        except ClientDisconnect:
            _log.debug("the client went away")
        finally:
            self._events.close()
            self._turn.release()


def app_of(pair: Pair, style: Style, host: str = "127.0.0.1") -> Starlette:
    """The application.

    Args:
        pair: the models.
        style: how they answer, where the page does not say.
        host: address or name that it will listen on.
    """
    service = Service(pair, style)
    return Starlette(
        routes=[
            Route("/about", service.about),
            Route("/answer", service.answer, methods=["POST"]),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        middleware=[Middleware(Guard, host=host)],
    )


async def _lines(events: Generator[Event, None, None]) -> AsyncIterator[str]:
    while True:
        try:
            event = await run_in_threadpool(next, events, None)
        except Exception as error:  # the page must hear of it: the status line is long gone
            _log.exception("an answer failed")
            yield _line({"kind": "error", "problem": f"the answer failed: {type(error).__name__}", "fix": ""})
            return
        if event is None:
            return
        yield _line(as_json(event))


def as_json(event: Event) -> dict[str, Any]:
    """An event as the page reads it: its fields, its `kind`, and for a token how far `away` its states are."""
    plain = {"kind": type(event).__name__.lower(), **asdict(event)}
    return plain | {"away": round(away(event.cosine), 3)} if isinstance(event, Piece) else plain


def _line(event: dict[str, Any]) -> str:
    return json.dumps(event, allow_nan=False) + "\n"


def _parsed(body: bytes) -> Asked:
    try:
        mapping = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError("the message is not JSON", "send what the page sends") from error
    if not isinstance(mapping, dict):
        raise UserError("the message is no JSON object", "send what the page sends")
    asked = from_mapping(Asked, mapping, "message")
    if not asked.message.strip():
        raise UserError("the message is empty", "write something")
    return asked


def _problem(status: int, error: UserError) -> Response:
    return JSONResponse({"problem": error.problem, "fix": error.fix}, status_code=status)
