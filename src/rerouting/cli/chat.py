"""Talk to a run's base and rerouted model side by side, in the terminal or in a browser, and see the breaker trip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rerouting.core.config import add_config_arguments, config_from
from rerouting.core.errors import UserError
from rerouting.pipeline.chat_style import Style


@dataclass(frozen=True)
class ChatConfig(Style):
    """How the models answer, and where the page is."""

    host: str = "127.0.0.1"
    """With --web: address to listen on. The default is this machine alone; there is no password."""
    port: int = 8137
    """With --web: port to listen on; 0 for any that is free."""

    def check(self) -> None:
        """Refuse what no answer can be made with, or no port has.

        Raises:
            UserError: says which field.
        """
        super().check()
        if not 0 <= self.port <= 65535:
            raise UserError(f"port is {self.port}", "give a port from 0 (any) to 65535")


def add_arguments(parser: ArgumentParser) -> None:
    """The run, where to talk, and all fields of ChatConfig."""
    parser.add_argument(
        "run", nargs="?", default="runs/quickstart", help="Run directory, as left by train or quickstart."
    )
    parser.add_argument(
        "--web", action="store_true", help="A page for the browser instead (pip install 'rerouting[ui]')."
    )
    add_config_arguments(parser, ChatConfig)
    parser.usage = "%(prog)s [RUN] [options]"


def run(args: Namespace) -> int:
    """Load both models and talk until the user has enough."""
    config = config_from(args, ChatConfig)
    config.check()
    if args.web:
        from rerouting.web.server import require_extra

        require_extra()

    from rerouting.pipeline.conversation import Conversation, open_pair

    print(f"loading base and rerouted model of {args.run} …", flush=True)
    pair = open_pair(Path(args.run))
    if args.web:
        from rerouting.web.server import serve

        serve(pair, config, config.host, config.port, lambda line: print(line, flush=True))
        return 0

    from rerouting.cli._chat_terminal import talk

    return talk(Conversation(pair, config))
