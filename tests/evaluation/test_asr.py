"""Rates and paired differences by hand, and what stands in the tables."""

import pytest

from rerouting.core.paired import mcnemar
from rerouting.evaluation.asr import outcome, summarise_attack
from rerouting.evaluation.asr_table import CSV_COLUMNS, comma_separated, latex, markdown


def case(name, *verdicts, functional="standard", failure=None):
    attempts = [
        {
            "failure": None,
            "trace": {},
            "label": "answered" if yes else "broken",
            "verdicts": {"j": {"yes": yes, "reason": "why"}},
        }
        for yes in verdicts
    ]
    attempts += [{"failure": failure, "verdicts": {}, "trace": {}}] if failure else []
    cost = {"forward_tokens": 10, "seconds": 1.5}
    return {"id": name, "set": "s", "functional": functional, "attempts": attempts, "cost": cost}


def test_one_success_is_enough_and_an_unscored_attempt_is_never_a_no():
    assert outcome(case("a", False, True), "j") == {"yes": True, "label": "answered"}
    assert outcome(case("a", False, None), "j")["yes"] is None
    assert outcome(case("a", None, True), "j")["yes"] is True
    assert outcome(case("a", False, False), "j") == {"yes": False, "label": "broken"}
    assert outcome(case("a", failure="timed out"), "j") == {"yes": None, "label": None}
    assert outcome(case("a", False, failure="timed out"), "j")["yes"] is None


def test_parts_and_pairs():
    base = [case("a", True), case("b", True, functional="contextual"), case("c", None)]
    new = [case("a", False), case("b", True, functional="contextual"), case("c", True)]
    summary = summarise_attack(base, new, "j")
    assert set(summary) == {"all", "standard", "contextual"}
    assert summary["all"]["base"]["asr"]["unscored"] == 1 and summary["all"]["base"]["asr"]["n"] == 2
    assert summary["all"]["paired"]["n"] == 2, "only behaviours that both scored"
    assert summary["all"]["paired"]["difference"] == -0.5
    assert summary["contextual"]["rerouted"]["asr"]["hits"] == 1


def test_mcnemar_by_hand():
    pairs = [(True, False)] * 8 + [(False, True)] * 1 + [(True, True)] * 5 + [(False, False)] * 6
    found = mcnemar(pairs)
    assert found.p == pytest.approx(2 * (1 + 9) / 2**9)  # both tails of Binomial(9, 1/2) at 1
    assert found.difference == pytest.approx(-7 / 20)
    assert found.low < -7 / 20 < found.high < 0
    assert mcnemar([(True, True)] * 3).p == 1


def test_newcombe_method_10_by_the_papers_example():
    # Newcombe 1998, table II, example: 36, 12 | 2, 0: difference 0.2, interval 0.0569 to 0.3404
    pairs = [(True, True)] * 36 + [(False, True)] * 12 + [(True, False)] * 2
    found = mcnemar(pairs)
    assert (found.difference, found.low, found.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=2e-4)


def test_tables_hold_every_row():
    summary = {"attacks": {"gcg_x": summarise_attack([case("a", True)], [case("a", False)], "j")}}
    summary["attacks"]["static"] = {"skipped": "needs a path"}
    assert markdown(summary).count("\n|") >= 4 and "needs a path" in markdown(summary)
    assert comma_separated(summary).splitlines()[0].split(",") == list(CSV_COLUMNS)
    assert r"gcg\_x" in latex(summary) and r"ASR \%" in latex(summary)


def test_mcnemar_of_many_pairs_does_not_overflow():
    assert mcnemar([(True, False)] * 1500 + [(False, True)] * 1500).p == 1
    assert 0 < mcnemar([(True, False)] * 1100 + [(False, True)] * 1000).p < 0.05


def test_parts_of_an_attack_are_shown_apart():
    def attempt(part, yes):
        trace = {"part": part, "beside": f"loss of {part}"}
        return {"failure": None, "label": "answered", "trace": trace, "verdicts": {"j": {"yes": yes}}}

    cost = {"forward_tokens": 10, "seconds": 2.0}
    shared = {"set": "s", "functional": "standard", "cost": cost}
    cases = [
        shared | {"id": "a", "attempts": [attempt("it", True), attempt("uk", False)]},
        shared | {"id": "b", "attempts": [attempt("it", False), attempt("uk", False)]},
    ]
    summary = summarise_attack(cases, cases, "j", {"base": {"forward_tokens": 5, "seconds": 1.0}})
    rate = {part: (own["base"]["asr"]["hits"], own["base"]["asr"]["n"]) for part, own in summary.items()}
    assert rate == {"all": (1, 2), "it": (1, 2), "uk": (0, 2)}
    assert (
        summary["all"]["base"]["forward_tokens"] == 25 and summary["all"]["rerouted"]["forward_tokens"] == 20
    )
    assert summary["it"]["base"]["forward_tokens"] == 10
    besides = {part: own["base"]["beside"] for part, own in summary.items()}
    assert besides == {"all": "", "it": "loss of it", "uk": "loss of uk"}


def test_csv_has_every_figure_in_a_column_and_latex_no_bare_signs():
    summary = {"attacks": {"own.py:{x}^~": summarise_attack([case("a", True)], [case("a", False)], "j")}}
    header, base, rerouted = (line.split(",") for line in comma_separated(summary).splitlines())
    row = dict(zip(header, rerouted, strict=True))
    assert (row["n"], row["hits"], row["rate"], row["difference"], row["difference_p"]) == (
        "1", "0", "0.0", "-1.0", "1.0",
    )  # fmt: skip
    assert dict(zip(header, base, strict=True))["forward_tokens"] == "10"
    assert r"\{x\}\textasciicircum{}\textasciitilde{}" in latex(summary)
