"""Where the breaker trips: examples token by token."""

from __future__ import annotations

from collections.abc import Sequence

from rerouting.core.kinds import is_harmless_kind
from rerouting.report.node import DamagedError, Node
from rerouting.report.parts import Group, HeatMap, Limits, Note, Section, Token
from rerouting.report.reading import Run, sound
from rerouting.report.sections.states import FILE, WRITER

LEAD = (
    "Every token of an example, the darker the further its state at the given layer is from the base's, or the further "
    "the next-token distributions are apart (KL, nats). Touch or point at a token to read its figures."
)
BYTES_PER_TOKEN = 90


def section(runs: Sequence[Run], limits: Limits) -> Section:
    """One group a run."""
    share = limits.heat_maps // max(1, len(runs))
    return Section("tokens", "Token by token", LEAD, [_group(run, share) for run in runs])


def _group(run: Run, limit: int) -> Group:
    group = Group(run.name)
    try:
        given = run.json(FILE, WRITER).get("examples")
        maps, problems = sound(given.items() if given else [], _map)
    except DamagedError as damage:
        group.damaged(damage)
        return group
    if not maps and not problems:
        group.absent(f"{FILE} has no examples")
    spent = 0
    shown = []
    for one in maps:
        spent += sum(BYTES_PER_TOKEN + 5 * len(token.text.encode(errors="replace")) for token in one.tokens)
        if spent > limit:
            break
        shown.append(one)
    group.parts += shown
    if len(shown) < len(maps):
        group.parts.append(Note(f"{len(shown)} of {len(maps)} examples are shown; all are in {FILE}."))
    group.damaged(*problems)
    return group


def _map(node: Node) -> HeatMap:
    tokens = [one.text() for one in node["tokens"].items()]
    cosine, kl = (_values(node, key, len(tokens)) for key in ("cosine", "kl"))
    given = node.get("trip")
    trip = None if given is None else given.count()
    n_prompt = node["n_prompt"].count()
    kind = node.maybe_text("kind")
    layer = node.get("layer")
    words = [kind or "unknown kind", node.maybe_text("id")]
    words += [] if layer is None else [f"layer {layer.count()}"]
    words.append("did not trip" if trip is None else f"trips at token {trip - n_prompt + 1} of the answer")
    made = [
        Token(text, cosine[at], kl[at], prompt=at < n_prompt, trip=at == trip)
        for at, text in enumerate(tokens)
    ]
    return HeatMap(" · ".join(word for word in words if word), made, not is_harmless_kind(kind))


def _values(node: Node, key: str, count: int) -> list[float | None]:
    given = node.get(key)
    if given is None:
        return [None] * count
    values = given.numbers()
    if len(values) != count:
        raise given.wrong(f"{count} numbers, one a token")
    return values
