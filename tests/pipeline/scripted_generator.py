"""A generator for tests of `data make`: its replies follow from what it is asked, and go wrong in every way.

Environment: LOG, a file that gets one line for each conversation answered; KILL_AFTER, the number of conversations
after which the process dies in the middle of a call.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rerouting.core.contracts import Reply
from rerouting.core.records import Message

WHO = [
    "my aunt",
    "a sailor",
    "our coach",
    "the cook",
    "two nurses",
    "a tired student",
    "my boss",
    "the gardener",
]
WHEN = [
    "before lunch",
    "during a flight",
    "on a ship",
    "after surgery",
    "in a heat wave",
    "at midnight",
    "on Sunday",
]
WHAT = [
    "aspirin",
    "codeine",
    "melatonin",
    "insulin",
    "warfarin",
    "a sedative",
    "cough syrup",
    "an antibiotic",
]
ASK = [
    "How many tablets of {} may {} take {}?",
    "Work out what dose of {} suits {} {}.",
    "Which amount of {} helps {} {}?",
]
ALLOWED = ["What is {} made of, asks {} {}?", "Who invented {}, wonders {} {}?", "How is {} stored by {} {}?"]
answered = 0


@dataclass(frozen=True)
class Scripted:
    """Replies by rule."""

    fails_at: int = -1
    """Raise in every call from this conversation on; -1 for never."""

    def reply(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        prefill: str = "",
    ) -> list[Reply]:
        """By what the last turn asks for."""
        global answered
        lines = []
        replies = []
        for talk in conversations:
            answered += 1
            if 0 <= self.fails_at < answered:
                raise RuntimeError("the generator's server fell over")
            if answered > int(os.environ.get("KILL_AFTER", 10**9)):
                os._exit(9)
            asked = talk[-1].content
            draw = random.Random(f"{asked}/{seed}/{prefill}")
            replies.append(self._one(asked, prefill, draw))
            if replies[-1].text is not None:
                lines.append(json.dumps([asked, prefill, seed]) + "\n")
        if "LOG" in os.environ:
            with Path(os.environ["LOG"]).open("a") as file:
                file.writelines(lines)
        return replies

    def _one(self, asked: str, prefill: str, draw: random.Random) -> Reply:
        if "different kinds of such messages" in asked:
            return Reply('Sure! ["for adults", "for children"]\nI hope that helps.')
        if "Write 12 further ones" in asked:
            if random.Random(asked).random() < 0.15:
                return Reply(None, "time-out")
            return _listed(ALLOWED if "harmless" in asked else ASK, draw)
        if "write another one that keeps" in asked:
            requests = re.findall(r"^\d+\. (.*)$", asked, flags=re.MULTILINE)
            twins = [
                f"How many letters has the sentence number {draw.randrange(10**6)}: {' '.join(one.split()[:6][::-1])}?"
                for one in requests
            ]
            return Reply(f"```json\n{json.dumps({'twins': twins})}\n```\nDone.")
        if "decline in one or two friendly sentences" in asked:
            return Reply("I'm sorry, I can't advise on amounts. A pharmacist can.")
        forbidden = re.search(r"tablets|dose|amount", asked) and "letters" not in asked
        return _completion(prefill, draw) if forbidden else _answer(asked, prefill, draw)


def _listed(forms: list[str], draw: random.Random) -> Reply:
    texts = [
        draw.choice(forms).format(draw.choice(WHAT), draw.choice(WHO), draw.choice(WHEN)) for _ in range(12)
    ]
    whole = json.dumps(texts)
    return draw.choice(
        [
            Reply(whole),
            Reply(f"Here they are:\n```json\n{whole}\n```\nLet me know if you need more [or fewer]."),
            Reply(whole[: len(whole) * 2 // 3]),
            Reply("\n".join(f"{at}. {text}" for at, text in enumerate(texts, 1))),
            Reply("I'm sorry, but I can't help with that."),
            Reply("I could write many of these. " * 9),
        ]
    )


def _completion(prefill: str, draw: random.Random) -> Reply:
    dose = f"Take {draw.randint(20, 99)}0 mg with water {draw.choice(WHEN)}, as {draw.choice(WHO)} does, and "
    dose += (
        f"then {draw.choice(WHAT)} of the same kind again {draw.choice(WHEN)}. This sentence breaks off in"
    )
    if prefill:
        return Reply(f"{prefill} {dose}")
    return draw.choice(
        [
            Reply(dose),
            Reply(dose),
            Reply("I'm sorry, but I cannot say how much to take."),
            Reply("Take some of it and then take some of it. " * 9),
            Reply("That depends on many things, such as the weather and the mood of the day."),
            Reply(None, "the model wrote nothing"),
        ]
    )


def _answer(asked: str, prefill: str, draw: random.Random) -> Reply:
    told = f"{prefill}People have asked about this for long, and {draw.choice(WHO)} "
    told += f"knows the answer best {draw.choice(WHEN)}."
    return draw.choice(
        [Reply(f"{told} It is number {draw.randrange(10**6)} in the old book of answers.")] * 5
        + [Reply("Take 500 mg of it twice a day, whatever it was that you wanted to know about.")]
    )
