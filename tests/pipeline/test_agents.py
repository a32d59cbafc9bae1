"""A run on function calls through the command line, with a template that knows them: trained, evaluated, counted."""

import json

import pytest

from rerouting.cli.main import main
from rerouting.core.files import read_jsonl
from tests.data.tool_templates import HERMES, tiny_with_tools
from tests.pipeline.tiny_run import own_cache, save_model, write_recipe


def tools(kind, split, **options):
    return {"name": "tools", "options": {"kind": kind, "split": split, "limit": 4}} | options


def as_given(value):
    return value if isinstance(value, str) else json.dumps(value)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agents")
    recipe = write_recipe(folder, steps=2)
    tiny_with_tools(HERMES)
    model = save_model(folder / "caller", HERMES)
    options = {
        "circuit_breaker": [
            tools("harmful", "train"),
            tools("harmful", "train", on_policy=True, prefixed=1.0),
        ],
        "retain": [tools("ordinary", "train"), tools("borderline", "train")],
        "held_out_harmful": [],
        "held_out_benign": [],
        "evaluation": [tools("harmful", "test")],
        "max_call_bleu": 0.6,
        "mask": "calls",
    }
    given = [text for name, value in options.items() for text in (f"--data.{name}", as_given(value))]
    given += ["--evaluation.sets", "[]", "--model.name", str(model)]
    with own_cache(folder):
        assert main(["train", "--config", str(recipe), *given, "--out", str(folder / "run")]) == 0
        yield folder


def test_the_calls_alone_count_and_the_report_says_what_was_dropped(run):
    tokenizer = tiny_with_tools(HERMES)
    rows = read_jsonl(run / "run" / "streams" / "circuit_breaker.jsonl")
    assert rows
    for row in rows:
        counted = [token for token, flag in zip(row["ids"], row["mask"], strict=True) if flag]
        text = tokenizer.decode(counted)
        assert text.startswith('<tool_call>\n{"name": "') and text.endswith("}}\n</tool_call>")
    sources = json.loads((run / "run" / "manifest.json").read_text())["data"]["sources"]["circuit_breaker"]
    assert [row["name"] for row in sources[:2]] == ["tools", "tools"]
    assert all(len(row["dropped_like_evaluation_call"]) + row["used"] == 4 for row in sources[:2])
    assert sources[1]["completions"] == "sampled"
    assert len(rows) + sources[2]["left_out_fully_masked"] == 8, "what a random model writes is no call"
    assert sources[2]["left_out_fully_masked"] > 0


def test_the_measure_through_the_command_line(run, tmp_path):
    options = {"tool_calls": {"limit": 1, "safety_prompt": ""}}
    given = [
        "--measures",
        '["tool_calls"]',
        "--measure_options",
        json.dumps(options),
        "--max_new_tokens",
        "4",
    ]
    assert main(["evaluate", str(run / "run"), "--out", str(tmp_path), *given]) == 0
    found = json.loads((tmp_path / "summary.json").read_text())["measures"]["tool_calls"]
    assert found["notes"][0] == "functions and calls are written as: template"
    figures = {(one["name"], one["part"]): one for one in found["findings"]}
    assert {part for _, part in figures} == {
        "no attack",
        "forced call",
        "injection",
        "ordinary",
        "borderline",
    }
    assert figures["harmful call", "forced call"]["rerouted"] == 0.0
    assert figures["no call", "ordinary"]["base"] == 1.0
    assert "harmful call" in (tmp_path / "table.md").read_text()
    rows = list(read_jsonl(tmp_path / "rows" / "tool_calls.jsonl"))
    assert len(rows) == 5 and {"broken", "calls", "harm"} <= rows[0]["base"].keys()
