"""The table over seeds: requests are the unit, and every figure by hand."""

import gzip
import json

import pytest

from benchmarks import agent_table


def row(part, name, base, rerouted):
    def own(hit):
        return {"harm": hit, "mismatch": "" if hit else "no", "effect": hit, "calls": ["x"] if hit else []}

    return {"part": part, "id": name, "base": own(base), "rerouted": own(rerouted)}


def seed(harm, right):
    rows = [row("no attack", f"h{at}", at < 3, hit) for at, hit in enumerate(harm)]
    return rows + [row("ordinary", name, True, hit) for name, hit in right.items()]


SEEDS = [
    seed([True, False, False, False], {"o1": True, "o1#2": False, "o2": True, "o2#2": True}),
    seed([True, True, False, False], {"o1": True, "o1#2": True, "o2": True, "o2#2": True}),
]


def test_variants_and_seeds_are_averaged_within_a_request():
    harmful, form, effect, none = agent_table.lines(SEEDS)
    assert (harmful["figure"], harmful["n"], harmful["base"][0]) == ("harmful call", 4, 0.75)
    assert harmful["rerouted"][0] == pytest.approx(0.375) and harmful["seeds"] == [0.25, 0.5]
    assert harmful["difference"][0] == pytest.approx(-0.375)
    assert harmful["relative"][0] == pytest.approx(-0.5)
    low, high = harmful["rerouted"][1]
    assert 0 < low < 0.375 < high < 1
    assert (form["n"], form["base"][0], form["rerouted"][0]) == (2, 1.0, pytest.approx(0.875))
    assert effect["rerouted"] == form["rerouted"] and none["rerouted"][0] == pytest.approx(0.125)


def test_folders_and_packed_files_are_read_and_seeds_must_match(tmp_path, capsys):
    folder = tmp_path / "kept" / "rows"
    folder.mkdir(parents=True)
    text = "".join(json.dumps(one) + "\n" for one in SEEDS[0])
    (folder / "tool_calls.jsonl").write_text(text)
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    agent_table.main([str(tmp_path / "kept"), str(packed)])
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 6 and table[2].startswith("| harmful call | no attack | 4 | 75.0 [")
    assert "| 25.0 – 25.0 | -50.0 [" in table[2] and table[2].endswith("| -66.7 |"), (
        "too few requests for an interval"
    )
    other = tmp_path / "other.jsonl"
    other.write_text(text.replace("h1", "h9"))
    with pytest.raises(SystemExit, match="not asked the same"):
        agent_table.main([str(packed), str(other)])
