"""The configurations that the documents name are valid."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.ablation import VARIANTS, at_another_strength, configuration, strangers
from rerouting.core.config import dump_yaml, load_config
from rerouting.core.recipes import recipe_path
from rerouting.evaluation.attack_config import AttackConfig
from rerouting.evaluation.kept_config import KeptConfig
from rerouting.evaluation.select_config import SelectConfig
from rerouting.pipeline.trial import Trial
from rerouting.training.config import RunConfig

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("name", "cls"),
    [("attack_matrix", AttackConfig), ("over_refusal", KeptConfig), ("select", SelectConfig)],
)
def test_configuration(name, cls):
    assert load_config(cls, FOLDER / f"{name}.yaml") != cls()


def test_the_selection_passes_every_check_that_comes_before_its_trials(tmp_path):
    from rerouting.pipeline.select import _checked

    config = load_config(SelectConfig, FOLDER / "select.yaml")
    (bundled, harmbench) = config.sources
    file = tmp_path / "harmbench_behaviors_val.csv"
    header = "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID"
    file.write_text(f"{header}\nPaint over every road sign in town,standard,illegal,,,road_signs\n")
    assert harmbench.options["path"].endswith(file.name)
    local = replace(harmbench, options={"path": str(file)})
    assert len(_checked(replace(config, sources=[bundled, local]))) == 8


def test_every_trial_of_the_selection_is_a_run():
    from rerouting.evaluation.search import grid

    config = load_config(SelectConfig, FOLDER / "select.yaml")
    runs = [Trial(values, 0).config(config) for values in grid(config.space)]
    assert len(runs) == 8 and len({str(run) for run in runs}) == 8
    assert {run.losses.schedule.options["retain_to"] for run in runs} == {20.0, 40.0}


def test_no_two_variants_of_the_ablation_are_the_same_run():
    """An option that a recipe has by now would make a row a copy of another."""
    seen: dict[str, str] = {}
    for name in VARIANTS:
        text = dump_yaml(replace(configuration(name), description=""))
        assert text not in seen, (name, seen[text])
        seen[text] = name


def test_a_row_of_another_strength_needs_no_training_of_its_own(tmp_path):
    for name in ("default", "default at two thirds"):
        (tmp_path / f"{name}-1").mkdir()
        (tmp_path / f"{name}-1" / "config.yaml").write_text(dump_yaml(configuration(name)))
    assert at_another_strength("default, strength 1", "1", tmp_path) is None, "not finished"
    for name in ("default", "default at two thirds"):
        (tmp_path / f"{name}-1" / "README.md").touch()
    assert at_another_strength("default, strength 1", "1", tmp_path) == tmp_path / "default-1"
    assert at_another_strength("default, strength 1", "0", tmp_path) is None, "another seed"
    assert at_another_strength("default at four fifths", "1", tmp_path) is None, "another training"
    assert at_another_strength("default", "1", tmp_path) is None, "the same strength"


def test_a_run_of_an_older_row_under_a_newer_name_is_told(tmp_path):
    for folder, name in (("default-0", "default"), ("default at two thirds-0", "default, strength 1")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.yaml").write_text(dump_yaml(configuration(name)))
    assert strangers(tmp_path) == ["default at two thirds-0"]


def test_the_papers_row_is_the_papers():
    """What `default` gets some day must not come along."""
    ours, theirs = configuration("paper"), load_config(RunConfig, recipe_path("llama-3-8b"))
    assert ours.losses == theirs.losses
    for option in ("mask", "retain_mask", "drop_request", "contexts", "retain_contexts", "cut", "close"):
        assert getattr(ours.data, option) == getattr(theirs.data, option), option
