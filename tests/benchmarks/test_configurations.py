"""The configurations that the documents name are valid."""

from pathlib import Path

import pytest

from rerouting.core.config import load_config
from rerouting.evaluation.attack_config import AttackConfig
from rerouting.evaluation.kept_config import KeptConfig
from rerouting.evaluation.select_config import SelectConfig
from rerouting.pipeline.trial import Trial

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("name", "cls"),
    [("attack_matrix", AttackConfig), ("over_refusal", KeptConfig), ("select", SelectConfig)],
)
def test_configuration(name, cls):
    assert load_config(cls, FOLDER / f"{name}.yaml") != cls()


def test_every_trial_of_the_selection_is_a_run():
    from rerouting.evaluation.search import grid

    config = load_config(SelectConfig, FOLDER / "select.yaml")
    runs = [Trial(values, 0).config(config) for values in grid(config.space)]
    assert len(runs) == 8 and len({str(run) for run in runs}) == 8
    assert {run.losses.schedule.options["retain_to"] for run in runs} == {20.0, 40.0}
