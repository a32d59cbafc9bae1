"""The functions and requests that ship with the package: counts, schemas, splits, calls that do what they say."""

from collections import Counter

import pytest

from rerouting.agents.arguments import argument_problem, schema_problem
from rerouting.agents.effects import HANDLERS
from rerouting.agents.matching import does_as_asked, does_harm, mismatch
from rerouting.agents.simulator import Simulator
from rerouting.agents.world import normal, scene
from rerouting.core.errors import UserError
from rerouting.data.bundled_tools import ToolRequest, bundled_tools, tool_requests
from rerouting.data.filtering import sentence_bleu

KINDS, SPLITS = ("harmful", "borderline", "ordinary"), ("train", "validation", "test")
EVERY = [one for kind in KINDS for split in SPLITS for one in tool_requests(kind, split)]


def test_there_are_functions_for_many_domains_with_sound_schemas_and_known_effects():
    specs = bundled_tools()
    assert len(specs) >= 60 and len({spec.category for spec in specs.values()}) >= 11
    for spec in specs.values():
        properties = spec.tool.parameters["properties"]
        assert schema_problem(spec.tool) == "" and spec.tool.description
        assert set(spec.effect.by) <= set(properties) and set(spec.free) <= set(properties)
        assert set(spec.effect.by) <= set(spec.tool.parameters["required"])
        assert (spec.effect.kind == "pay") == bool(spec.effect.amount)
    assert {spec.effect.kind for spec in specs.values()} == set(HANDLERS)


def test_there_are_enough_requests_of_each_kind_in_each_split():
    counts = Counter((one.kind, one.split) for one in EVERY)
    for kind in KINDS:
        assert sum(counts[kind, split] for split in SPLITS) >= 150
        assert counts[kind, "test"] >= 45 and counts[kind, "validation"] >= 20
    assert {one.call.name for one in EVERY} == set(bundled_tools())


def test_ids_and_requests_are_unique_and_nothing_is_in_two_splits():
    assert len({one.id for one in EVERY}) == len(EVERY)
    assert len({normal(one.request) for one in EVERY}) == len(EVERY)
    train = [one.request for one in EVERY if one.split == "train"]
    for asked in [one for one in EVERY if one.kind == "harmful" and one.split == "test"]:
        assert max(sentence_bleu(asked.request, other) for other in train) < 0.6, asked.request


def test_what_is_trained_on_is_not_what_is_asked_later():
    """No like wording under the same function, and no call for the same things: a call's texts may differ."""
    free = {name: spec.free for name, spec in bundled_tools().items()}
    train: dict[str, list[ToolRequest]] = {}
    for one in EVERY:
        if one.split == "train":
            train.setdefault(one.call.name, []).append(one)

    def things(one: ToolRequest) -> set[str]:
        return {
            f"{key} {value}" for key, value in one.call.arguments.items() if key not in free[one.call.name]
        }

    for asked in [one for one in EVERY if one.split != "train"]:
        for other in train.get(asked.call.name, []):
            assert sentence_bleu(asked.request, other.request) < 0.4, (asked.request, other.request)
            same = things(asked) == things(other) and len(asked.call.arguments) == len(things(asked))
            assert not same, (asked.request, other.request)


@pytest.mark.parametrize("asked", EVERY, ids=lambda asked: asked.id)
def test_the_call_fits_its_schema_is_offered_and_can_be_carried_out(asked):
    spec = bundled_tools()[asked.call.name]
    assert argument_problem(spec.tool, asked.call.arguments) == ""
    assert asked.call.name in asked.offered and len(set(asked.offered)) == len(asked.offered) >= 2
    assert set(asked.offered) <= set(bundled_tools()) and asked.category == spec.category
    assert set(asked.allowed) <= set(asked.call.arguments)
    assert mismatch([asked.call], asked) == "" and does_as_asked([asked.call], asked)
    assert does_harm([asked.call], asked)
    outcome = Simulator().run(scene(spec, asked.call), asked.call)
    assert (outcome.status, outcome.result) == ("done", asked.result)
    assert len(asked.request) <= 200, "one line"


def test_a_borderline_request_is_about_the_same_thing_as_its_harmful_twin_in_the_same_split():
    by_id = {one.id: one for one in EVERY}
    pairs = [(one, by_id[one.twin]) for one in EVERY if one.kind == "harmful"]
    for harmful, twin in pairs:
        assert (twin.kind, twin.twin, twin.split) == ("borderline", harmful.id, harmful.split)
        assert harmful.call.name == twin.call.name and harmful.offered == twin.offered
        name = bundled_tools()[twin.call.name].effect.by[0]
        assert twin.call.arguments[name] == harmful.call.arguments[name], "the thing is the same"


def test_what_the_call_acts_upon_can_be_read_in_the_request():
    """A model cannot guess it: each of the naming arguments has a word of the request."""
    lost = []
    for one in EVERY:
        for name in bundled_tools()[one.call.name].effect.by:
            values = [one.call.arguments[name], *one.allowed.get(name, [])]
            if not any(normal(str(value)) in normal(one.request) for value in values):
                lost.append((one.id, one.request, name, values))
    assert lost == []


def test_an_unknown_kind_or_split_is_refused():
    with pytest.raises(UserError, match="no kind 'benign' — there are"):
        tool_requests("benign", "test")
    with pytest.raises(UserError, match="no split 'tset' — did you mean test"):
        tool_requests("harmful", "tset")
