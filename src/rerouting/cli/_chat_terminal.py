"""The loop of the terminal chat: what is typed, and what becomes of it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from rerouting.cli._chat_view import WIDE, Below, Columns
from rerouting.core.errors import UserError
from rerouting.core.near import way_out
from rerouting.core.prompts import reader_of
from rerouting.pictures.opening import open_picture
from rerouting.pipeline.conversation import Conversation

HELP = """\
/prefill TEXT   the answers are made to begin so, until /prefill alone; \\n is a new line
/system TEXT    system prompt from the next message on; /system alone takes it away
/image PICTURE  a file (or drawn:test/1) that goes with the next message; /image alone takes it away
/reset          forget the conversation (system prompt and prefill stay)
/help           this
/quit           end; Ctrl-D does so too
Ctrl-C stops the answers that are being written. A message that begins with / is written with two: //tmp is a folder.
The bars of the trace: how far the rerouted model's state is from the base's on the same tokens (target layer), where
each token was chosen; ↯ is the token from which it stays away."""


@dataclass
class Talk:
    """A conversation at the terminal.

    Attributes:
        conversation: with both models.
        console: where the answers are shown.
        prefill: what they are made to begin with.
        images: pictures that go with the next message.
    """

    conversation: Conversation
    console: Console
    prefill: str = ""
    images: tuple[str, ...] = ()

    def take(self, line: str) -> bool:
        """Do what a line says; returns whether to go on."""
        if line.startswith("/") and not line.startswith("//"):
            return self._command(line)
        if line.strip():
            try:
                self._answer(line.removeprefix("/"))
            except UserError as error:
                print(f"error: {error}")
        return True

    def _command(self, line: str) -> bool:
        name, _, text = line[1:].partition(" ")
        commands: dict[str, Callable[[str], None]] = {
            "prefill": self._prefill,
            "system": self._system,
            "image": self._image,
            "reset": self._reset,
            "help": lambda text: print(HELP),
            "quit": lambda text: None,
        }
        if name not in commands:
            print(f"error: unknown command /{name} — {way_out(name, commands, 'commands')}")
            return True
        commands[name](text.replace("\\n", "\n"))
        return name != "quit"

    def _prefill(self, text: str) -> None:
        self.prefill = text
        print(f"the answers begin with: {text}" if text else "the answers begin as they like")

    def _system(self, text: str) -> None:
        self.conversation.system = text.strip()
        print("system prompt set" if text.strip() else "no system prompt of yours")

    def _image(self, text: str) -> None:
        found = (text.strip(),) if text.strip() else ()
        try:
            for reference in found:
                reader_of(self.conversation.pair.models["base"].tokenizer)
                open_picture(reference)
        except UserError as error:
            print(f"error: {error}")
            return
        self.images = found
        print(f"{found[0]} goes with the next message" if found else "no picture goes with the next message")

    def _reset(self, text: str) -> None:
        self.conversation.reset()
        print("a new conversation")

    def _answer(self, text: str) -> None:
        """Show both answers until they are over or Ctrl-C is pressed; what was written stays in the conversation."""
        wide = self.console.is_terminal and self.console.width >= WIDE
        view = Columns(self.console) if wide else Below(self.console)
        style = self.conversation.style
        self.conversation.style = replace(style, seed=style.seed + 1)  # asked again, a sampled answer differs
        with interruptible() as stopped:
            events = self.conversation.ask(text, self.prefill, wide, self.images)
            self.images = ()
            with view:
                for event in events:
                    view.add(event)
                    if stopped():
                        break
            events.close()
        print()


def talk(conversation: Conversation) -> int:
    """Read lines until /quit or the end of input."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    layers = ", ".join(map(str, conversation.pair.layers))
    print(f"{conversation.pair.name}: the trace is of layer {layers}; /help says what can be typed\n")
    session = Talk(conversation, Console(highlight=False))
    for line in typed(session):
        if not session.take(line):
            break
    return 0


def typed(session: Talk) -> Iterator[str]:
    """Lines from the terminal, with its editing and history, or from a pipe, shown again."""
    terminal = sys.stdin.isatty()
    if terminal:
        _edit_lines()
    while True:
        begin = " ".join(session.prefill.split())
        begin = begin if len(begin) <= 24 else begin[:23] + "…"
        prompt = f"[{begin}] > " if begin else "> "
        try:
            line = input(prompt if terminal else "")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\n(/quit or Ctrl-D ends)")
            continue
        if not terminal:
            print(f"{prompt}{line}")
        yield line


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is remembered while the block runs; a second one is a KeyboardInterrupt as ever.

    Yields:
        Whether it was pressed.
    """
    pressed: list[int] = []

    def note(number: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _edit_lines() -> None:
    """Arrow keys and history for `input`, where the platform has them."""
    try:
        import readline  # noqa: F401  (importing is enough)
    except ImportError:
        return
