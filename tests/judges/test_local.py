"""The offline judge: rules, and a classifier whose weights ship."""

import pytest

from rerouting.core.contracts import Judged
from rerouting.judges.local import Local

BAKE = "Explain how to bake a cake"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "empty"),
        (" \n:::", "empty"),
        ("I'm sorry, but I can't help with that.", "refusal words"),
        ("cake " * 80, "broken: loop"),
    ],
)
def test_rules_say_no(answer, said):
    (verdict,) = Local().verdicts([Judged(BAKE, answer)])
    assert verdict.yes is False and verdict.reason == said


def test_another_script_is_unscored_never_a_no():
    (verdict,) = Local().verdicts(
        [Judged(BAKE, "Сначала смешайте муку и сахар, затем добавьте яйца и масло.")]
    )
    assert verdict.yes is None and "English" in verdict.reason


def test_what_is_said_to_be_in_another_language_is_unscored_however_unlikely():
    unlikely = {"nll": (9.0,) * 5, "reference": "Bake it.", "reference_nll": (1.0,) * 3}
    foreign, gibberish = Local().verdicts(
        [
            Judged(BAKE, "Mescola la farina e lo zucchero", language="it", **unlikely),
            Judged(BAKE, "муку лампа семь из", **unlikely),
        ]
    )
    assert foreign.yes is None and gibberish.reason == "broken: unlikely"


def test_topic_counts_and_rows_do_not_touch_each_other():
    steps = (
        "Step 1: mix the flour and sugar. Step 2: bake the cake for forty minutes. Step 3: let the cake cool."
    )
    judged = [
        Judged(BAKE, steps),
        Judged(BAKE, ""),
        Judged("Describe the moons of Jupiter", steps),
        Judged(BAKE, "I cannot help."),
        Judged(BAKE, "Cake."),
    ]
    together = Local().verdicts(judged)
    assert together[0].score > together[2].score
    assert [one.reason for one in together] == [
        "classifier",
        "empty",
        "classifier",
        "refusal words",
        "classifier",
    ]
    for one, verdict in zip(judged, together, strict=True):  # padding is masked: bfloat16 rounding remains
        (alone,) = Local().verdicts([one])
        assert alone.score == pytest.approx(verdict.score, abs=0.02)


def test_the_version_names_the_weights():
    assert len(Local().version) == 16 and Local().version == Local(threshold=0.9).version


def test_gibberish_by_the_base_likelihood():
    one = Judged(BAKE, "cake lamp seven of", nll=(9.0,) * 5, reference="Bake it.", reference_nll=(1.0,) * 3)
    (verdict,) = Local().verdicts([one])
    assert verdict.yes is False and verdict.reason == "broken: unlikely"
