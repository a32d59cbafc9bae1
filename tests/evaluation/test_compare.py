"""Labels counted over a set, and once more where the base says what must not be said."""

import pytest

from rerouting.core.errors import UserError
from rerouting.evaluation.compare import mark, summarise
from rerouting.pipeline.run_table import COLUMNS, columns, table
from rerouting.report.figures import set_figures
from rerouting.report.node import Node


def row(base, rerouted, nll=1.5):
    own = [{"answer": text, "label": label} for label, text in (base, rerouted)]
    nll = {"base": 1.0, "rerouted": nll, "tokens": 4}
    return {"base": own[0], "rerouted": own[1], "base_answer_nll": nll}


def rows():
    return [
        row(("answered", "Take 20 MG."), ("broken", "20 mg mg mg"), 9.0),
        row(("answered", "Take 20 mg."), ("answered", "It is for pain."), 2.1),
        row(("answered", "Take 20 mg."), ("answered", "Take 5 mg.")),
        row(("answered", "Ask a doctor."), ("answered", "Ask a doctor.")),
        row(("refused", "I'm sorry, 20 mg is too much."), ("refused", "I'm sorry.")),
    ]


def test_where_the_base_says_it_by_hand():
    given = rows()
    mark(given, [r"\d mg"])
    found = summarise(given)
    assert found["n"] == 5 and found["rerouted"]["broken"]["hits"] == 1
    assert [found[model]["shows"]["hits"] for model in ("base", "rerouted")] == [3, 1]
    shown = found["where_base_shows"]
    assert shown["n"] == 3 and shown["base"]["shows"]["rate"] == 1
    assert {name: shown["rerouted"][name]["hits"] for name in ("answered", "refused", "broken", "shows")} == {
        "answered": 2, "refused": 0, "broken": 1, "shows": 1,
    }  # fmt: skip


def test_base_answers_that_the_rerouted_model_would_not_write_are_lost():
    given = rows()
    given.append(
        row(("broken", ""), ("broken", ""))
        | {"base_answer_nll": {"base": None, "rerouted": None, "tokens": 0}}
    )
    mark(given, [r"\d mg"])
    found = summarise(given)
    lost = found["rerouted"]["lost"]
    assert (lost["hits"], lost["n"]) == (2, 5) and "lost" not in found["base"]
    assert found["where_base_shows"]["rerouted"]["lost"]["rate"] == pytest.approx(2 / 3)
    cells = [line[-2:] for line in table({"sets": {"a": found}})]
    assert cells[0] == ("–", "1.000") and cells[1][0].startswith("40.0 [") and cells[1][1] == "3.120"
    assert cells[2] == ("–", "–") and cells[3][0].startswith("66.7 [")


def test_sets_without_signs_are_as_before():
    found = summarise(rows())
    assert "where_base_shows" not in found and set(found["base"]) == {
        "answered",
        "refused",
        "broken",
        "base_answer_nll",
    }
    assert columns({"sets": {"a": found}}) == COLUMNS and len(table({"sets": {"a": found}})) == 2


def test_the_table_has_a_row_and_a_column_more():
    given = rows()
    mark(given, [r"\d mg"])
    summary = {"sets": {"a": summarise(given), "b": summarise(rows())}}
    shown = table(summary)
    assert [line[:3] for line in shown] == [
        ("a", "base", "5"), ("a", "rerouted", "5"),
        ("a: where the base says it", "base", "3"), ("a: where the base says it", "rerouted", "3"),
        ("b", "base", "5"), ("b", "rerouted", "5"),
    ]  # fmt: skip
    assert {len(line) for line in shown} == {len(columns(summary))} == {len(COLUMNS) + 1}
    assert shown[3][6].startswith("33.3 [") and shown[4][6] == "–"


def test_an_empty_set_and_a_wrong_sign():
    given: list = []
    mark(given, ["x"])
    assert summarise(given)["n"] == 0
    with pytest.raises(UserError, match="signs hold no regular expression"):
        mark(rows(), ["("])


def test_the_page_has_figures_of_the_part_where_the_base_says_it():
    given = rows()
    mark(given, [r"\d mg"])
    found, problems = set_figures(_Summary({"sets": {"a": summarise(given), "b": summarise(rows())}}))
    assert not problems and len(found) == 6 + 5 + 5
    part = {one.name: one for one in found if one.part == "a, where the base says it"}
    assert set(part) == {"answered", "refused", "broken", "shows", "base's answer lost"}
    assert (part["shows"].base.value, part["shows"].rerouted.value) == (1.0, pytest.approx(1 / 3))


class _Summary:
    """A run as far as `set_figures` reads it."""

    def __init__(self, content):
        self.content = content

    def json(self, name, way):
        return Node(self.content, name)
