"""Talk to a run's base and rerouted model side by side, in the terminal or in a browser, and see the breaker trip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rerouting.core.config import add_config_arguments, config_from
from rerouting.core.errors import UserError


@dataclass
class ChatConfig:
    """How the models answer, and where the page is."""

    max_new_tokens: int = 256
    """Length at which an answer is cut."""
    temperature: float = 0.0
    """Of the sampling; 0 takes the likeliest token."""
    seed: int = 0
    """Of the sampling of the first answer; every further one draws anew."""
    trip_below: float = 0.95
    """Cosine between base and rerouted hidden states under which a token counts as rerouted; no calibrated detector."""
    host: str = "127.0.0.1"
    """With --web: address to listen on. The default is this machine alone; there is no password."""
    port: int = 8137
    """With --web: port to listen on; 0 for any that is free."""


def add_arguments(parser: ArgumentParser) -> None:
    """The run, where to talk, and all fields of ChatConfig."""
    parser.add_argument(
        "run", nargs="?", default="runs/quickstart", help="Run directory, as left by train or quickstart."
    )
    parser.add_argument(
        "--web", action="store_true", help="A page for the browser instead (pip install 'rerouting[ui]')."
    )
    add_config_arguments(parser, ChatConfig)


def run(args: Namespace) -> int:
    """Load both models and talk until the user has enough."""
    config = config_from(args, ChatConfig)
    _check(config)
    if args.web:
        from rerouting.web.server import require_extra

        require_extra()

    from rerouting.pipeline.conversation import Conversation, Style, open_pair

    print(f"loading base and rerouted model of {args.run} …", flush=True)
    pair = open_pair(Path(args.run))
    style = Style(config.max_new_tokens, config.temperature, config.seed, config.trip_below)
    if args.web:
        from rerouting.web.server import serve

        serve(pair, style, config.host, config.port, lambda line: print(line, flush=True))
        return 0

    from rerouting.cli._chat_terminal import talk

    return talk(Conversation(pair, style))


def _check(config: ChatConfig) -> None:
    """Refuse what no answer can be made with.

    Raises:
        UserError: says which option.
    """
    if config.max_new_tokens < 1:
        raise UserError(f"--max_new_tokens is {config.max_new_tokens}", "give at least 1")
    if not (math.isfinite(config.temperature) and config.temperature >= 0):
        raise UserError(f"--temperature is {config.temperature}", "give 0 (greedy) or more")
    if not -1 <= config.trip_below <= 1:
        raise UserError(f"--trip_below is {config.trip_below}", "give a cosine, from -1 to 1")
    if not 0 <= config.port <= 65535:
        raise UserError(f"--port is {config.port}", "give a port from 0 (any) to 65535")
