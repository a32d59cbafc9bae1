"""A run with missing or damaged parts: the page is there, says what is missing in its place, and shows the rest."""

import itertools
import json

import pytest

from rerouting.report.page import render, write_report
from rerouting.report.reading import open_runs
from tests.report.made_up import make_run, write_json
from tests.report.test_page import Outline

FILES = (
    "config.yaml",
    "manifest.json",
    "summary.json",
    "metrics.jsonl",
    "generations.jsonl",
    "kept/summary.json",
    "kept/rows/over_refusal.jsonl",
    "attacks-quick/summary.json",
    "attacks-quick/results.jsonl",
    "analysis/analysis.json",
    "probes/table.json",
)
OPTIONAL = ("kept/rows/over_refusal.jsonl", "attacks-quick/summary.json")
"""Whose absence is that of a whole measurement."""


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "made")


def report(run):
    return Outline(write_report([run]).read_text())


def places(value, path=()):
    """Every place in nested JSON."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("file", FILES)
def test_missing_file(run, file):
    (run / file).unlink()
    text = report(run).text
    assert "Reproducibility card" in text
    if file == "attacks-quick/summary.json":
        assert f"no attack results are there; rerouting attack --model {run} writes them" in text
    elif file not in OPTIONAL:
        assert f"{file} is not there" in text


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("content", [b"", b"{", b'{"torn": [1, 2', b"\xff\xfe\x00", b"[]", b"3", b"[" * 5000])
def test_damaged_file(run, file, content):
    (run / file).write_bytes(content)
    text = report(run).text
    assert "Reproducibility card" in text
    if content.strip() or not file.endswith(".jsonl"):
        assert f"{file}" in text


def test_folder_in_place_of_a_file(run):
    (run / "summary.json").unlink()
    (run / "summary.json").mkdir()
    assert "summary.json cannot be read: Is a directory" in report(run).text


@pytest.mark.parametrize("file", [file for file in FILES if file.endswith(".json")])
def test_wrong_type_anywhere(run, file):
    """No wrong value at any place of any file keeps the page from being written."""
    whole = json.loads((run / file).read_text())
    wrong = itertools.cycle([None, "text", -3, [], {}, float("nan"), 10**400, [{}], True])
    every = list(places(whole))
    some = every[:: max(1, len(every) // 40)]
    for path, new in zip(some, wrong, strict=False):
        write_json(run / file, replaced(whole, path, new))
        assert b"Reproducibility card" in render(open_runs([run]))
    assert len(some) >= 10


def test_rest_of_a_file_is_shown(run):
    summary = json.loads((run / "summary.json").read_text())
    summary["sets"]["benign"]["base"]["answered"]["rate"] = "many"
    write_json(run / "summary.json", summary)
    kept = json.loads((run / "kept/summary.json").read_text())
    del kept["measures"]["intrinsic"]["findings"][0]["n"]
    write_json(run / "kept/summary.json", kept)
    text = report(run).text
    assert 'summary.json: sets: benign: base: answered: rate: expected a number, found "many"' in text
    assert "33.3 [20.2, 49.7]" in text
    assert "kept/summary.json: measures: intrinsic: findings[0] has no 'n'" in text
    assert "80.0 [58.4, 91.9]" in text


def test_torn_and_wrong_lines_are_named_and_the_others_shown(run):
    lines = (run / "generations.jsonl").read_text().splitlines()
    torn = [*lines[:4], '{"set": "direct"}', "[1]", lines[5], lines[6][:50]]
    (run / "generations.jsonl").write_text("\n".join(torn))
    text = report(run).text
    assert "generations.jsonl line 5 has no 'base'" in text
    assert "generations.jsonl line 6: expected a mapping, found [1]" in text
    assert "generations.jsonl line 8 is damaged" in text
    assert "Of course 0" in text and "Of course 2" in text


def test_run_with_a_lock_alone(tmp_path):
    (tmp_path / ".lock").touch()
    text = report(tmp_path).text
    for file in ("summary.json", "kept/summary.json", "metrics.jsonl", "manifest.json", "config.yaml"):
        assert f"{file} is not there" in text
    assert f"rerouting evaluate {tmp_path}" in text


def test_results_without_a_run(tmp_path, run):
    (run / "kept").rename(tmp_path / "kept")
    assert "80.0 [58.4, 91.9]" in report(tmp_path).text


def test_lone_surrogates_and_control_characters(run):
    (run / "generations.jsonl").write_text(
        json.dumps(
            json.loads((run / "generations.jsonl").read_text().splitlines()[1]) | {"id": "\ud800\x00\x1b"}
        )
    )
    assert write_report([run]).read_bytes().decode("utf-8")
