"""OpenFunctions' two forms of rows, and what of them is passed over."""

import json

import pytest

from rerouting.core.errors import UserError
from rerouting.core.records import Call
from rerouting.data.sources.openfunctions import Openfunctions

RIDE = {
    "name": "Uber Carpool",
    "api_name": "uber.ride",
    "description": "Find a ride.",
    "parameters": [
        {"name": "loc", "description": "where it starts"},
        {"name": "time", "enum": ["5", "10"], "description": "minutes"},
    ],
}
FLIGHT = {
    "name": "Flight Booking",
    "api_call": "flight.book",
    "description": "Book a flight.",
    "parameters": {
        "type": "dict",
        "properties": {
            "origin": {"type": "string"},
            "price": {"type": "float"},
            "via": {"type": "tuple", "items": {"type": "any"}},
        },
        "required": ["origin"],
    },
}


def write(tmp_path, rows, lines=False):
    file = tmp_path / ("train.jsonl" if lines else "test.json")
    file.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
    return str(file)


def test_training_rows(tmp_path):
    row = {"Instruction": "A ride from Oslo.", "Functions": [repr(RIDE), json.dumps(FLIGHT)]}
    rows = [
        row | {"Output": ['uber.ride(loc="Oslo", time="10")', "something else"]},
        row | {"Output": ['flight.book(origin="Oslo", price=2.5, via=["Bergen"])']},
        row | {"Output": ["uber.ride(loc=Oslo)"]},
        row | {"Output": ['taxi.call(loc="Oslo")']},
        row | {"Output": ["No function fits."]},
        row | {"Functions": ["{not a function"], "Output": ['uber.ride(loc="Oslo")']},
        row | {"Functions": [], "Output": ['uber.ride(loc="Oslo")']},
    ]
    chats = Openfunctions(path=write(tmp_path, rows, lines=True)).load()
    assert [chat.id for chat in chats] == ["openfunctions-0", "openfunctions-1"]
    assert chats[0].calls == (Call("uber.ride", {"loc": "Oslo", "time": "10"}),)
    assert chats[0].meta["call_text"] == "uber.ride Oslo 10"
    ride, flight = chats[0].tools
    assert ride.parameters["required"] == ["loc", "time"]
    assert ride.parameters["properties"]["time"] == {
        "type": "string",
        "enum": ["5", "10"],
        "description": "minutes",
    }
    kinds = {name: one.get("type") for name, one in flight.parameters["properties"].items()}
    assert (flight.name, flight.parameters["type"]) == ("flight.book", "object")
    assert kinds == {"origin": "string", "price": "number", "via": "array"}
    assert flight.parameters["properties"]["via"]["items"] == {}


def test_test_rows_and_styles(tmp_path):
    rows = [
        {"question": "Fly me from Oslo.", "function": FLIGHT, "model_answer": 'flight.book(origin="Oslo")'},
        {"question": "Twice.", "function": [FLIGHT, RIDE],
         "model_answer": '[flight.book(origin="Oslo"), flight.book(origin="Rome")]'},
        {"question": " ", "function": FLIGHT, "model_answer": 'flight.book(origin="Oslo")'},
    ]  # fmt: skip
    path = write(tmp_path, rows)
    one, two = Openfunctions(path=path, style="json").load()
    assert one.response == '{"name": "flight.book", "arguments": {"origin": "Oslo"}}'
    assert one.target == '{"name": "flight.book' and not one.tools
    assert two.response.count("\n") == 1
    assert len(Openfunctions(path=path, limit=1).load()) == 1
    with pytest.raises(UserError, match="no request can be taken"):
        Openfunctions(path=write(tmp_path, [{"prompt": "x"}])).load()
