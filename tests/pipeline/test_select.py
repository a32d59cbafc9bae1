"""`rerouting select`: trials made once, resumed, shared between processes, guarded; one real one on a tiny model."""

import json

import pytest
import yaml

from rerouting.cli.main import main
from rerouting.core.config import load_config
from rerouting.core.errors import UserError
from rerouting.core.files import read_jsonl
from rerouting.core.rundir import hold
from rerouting.evaluation.select_config import SelectConfig
from rerouting.pipeline import select, trial
from rerouting.pipeline.select import select_run
from rerouting.training.config import RunConfig
from tests.pipeline.tiny_run import BENIGN_TEST, HARMFUL_TEST, write_chats, write_recipe


class Faked:
    """Stands for training, attacking and measuring: ASR falls with the rate, drift rises; rate 0.3 fails."""

    def __init__(self, monkeypatch):
        self.trained, self.stop_at = [], None
        monkeypatch.setattr(trial, "execute", self.execute)
        monkeypatch.setattr(trial, "attack_run", self.attack)
        monkeypatch.setattr(trial, "kept_run", self.kept)

    def execute(self, config, out):
        if len(self.trained) == self.stop_at:
            raise KeyboardInterrupt
        self.trained.append((config.training.learning_rate, config.seed, config.training.steps))
        assert config.evaluation.sets == [] and config.sampling.seed == 0
        if config.training.learning_rate == 0.3:
            raise UserError("benign loss ran away", "lower the rate")
        (out / "model").mkdir(parents=True, exist_ok=True)
        (out / "rate").write_text(str(config.training.learning_rate + config.seed / 100))

    def attack(self, config, out):
        rate = float((out.parent / "run" / "rate").read_text())
        (out / "cases").mkdir(parents=True, exist_ok=True)
        (out / "cases" / "direct-1.base-2.0.jsonl").write_text("{}\n")
        labels = {"answered": 1, "refused": 0, "broken": 1}
        return {
            "attacks": {
                "direct": {
                    "all": {
                        "base": {"asr": {"rate": 0.9}, "labels": labels},
                        "rerouted": {"asr": {"rate": 0.5 - rate}, "labels": labels},
                    }
                }
            }
        }

    def kept(self, config, out):
        rate = float((out.parent / "run" / "rate").read_text())
        finding = {"name": "nll", "part": "", "base": 1.0, "rerouted": 1 + rate, "difference": rate}
        return {
            "measures": {"intrinsic": {"findings": [finding, finding | {"name": "kl", "rerouted": rate}]}}
        }


@pytest.fixture
def recipe(tmp_path):
    file = write_recipe(tmp_path)
    content = yaml.safe_load(file.read_text())
    content["evaluation"]["sets"] = content["evaluation"]["sets"][:1]
    file.write_text(yaml.safe_dump(content))
    return file


def config(recipe, tmp_path, **more):
    given = {
        "name": "chats",
        "options": {"path": str(write_chats(tmp_path / "validation.jsonl", BENIGN_TEST))},
    }
    given["options"] |= {"prompt": "prompt", "response": "response", "target": "target"}
    values = {
        "run": str(recipe),
        "space": {"training.learning_rate": [0.1, 0.2, 0.3]},
        "attacks": ["direct"],
        "sources": [given],
        "measures": ["intrinsic"],
        "measure_options": {"intrinsic": {"sources": [given]}},
        "objective": "minimise attacks.mean.rerouted.asr",
        "constraints": ["intrinsic.nll.difference <= 0.15"],
    }
    file = tmp_path / "select.yaml"
    file.write_text(yaml.safe_dump(values | more))
    return load_config(SelectConfig, file)


def test_the_best_that_keeps_the_constraints(recipe, tmp_path, monkeypatch):
    faked = Faked(monkeypatch)
    out = tmp_path / "out"
    summary = select_run(config(recipe, tmp_path, seeds=[0, 1]), out)
    assert [(rate, seed) for rate, seed, _ in faked.trained] == [
        (0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1), (0.3, 0), (0.3, 1),
    ]  # fmt: skip
    assert summary["best"]["values"] == {"training.learning_rate": 0.1}
    assert summary["best"]["objective"] == pytest.approx(0.5 - 0.105)  # the mean over seeds
    rows = {row["values"]["training.learning_rate"]: row for row in read_jsonl(out / "trials.jsonl")}
    assert (
        rows[0.2]["reason"] == "intrinsic.nll.difference is 0.205, not <= 0.15" and not rows[0.2]["feasible"]
    )
    assert rows[0.3]["reason"].startswith("failed: benign loss ran away") and rows[0.3]["objective"] is None
    best = load_config(RunConfig, out / "best.yaml")
    assert (
        best.training.learning_rate == 0.1
        and len(best.evaluation.sets) == 1
        and "validation" in best.description
    )
    assert (out / "pareto.png").exists() and "winner's curse" in (out / "table.md").read_text()
    assert [values["training.learning_rate"] for values in summary["front"]] == [0.2, 0.1]
    assert not list(out.glob("trials/*/run/model")), "merged models are not kept unless asked for"
    assert (
        len(list(out.glob("trials/*/attacks/cases/*.base-*"))) == 4
        and len(list(out.glob("base/attacks/cases/*"))) == 1
    )


def test_a_killed_selection_goes_on_and_repeats_nothing(recipe, tmp_path, monkeypatch):
    faked = Faked(monkeypatch)
    faked.stop_at = 1
    out, chosen = tmp_path / "out", config(recipe, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        select_run(chosen, out)
    faked.stop_at = None
    first = select_run(chosen, out)
    assert [rate for rate, *_ in faked.trained] == [0.1, 0.2, 0.3]
    assert select_run(chosen, out) == first and len(faked.trained) == 3
    with pytest.raises(UserError, match="holds another selection"):
        select_run(config(recipe, tmp_path, seeds=[5]), out)


def test_halving_trains_the_better_half_anew_for_longer(recipe, tmp_path, monkeypatch):
    faked = Faked(monkeypatch)
    space = {"training.learning_rate": [0.05, 0.1, 0.2, 0.25]}
    more = {"method": "halving", "rungs": [0.5, 1.0], "keep": 0.5, "constraints": [], "space": space}
    summary = select_run(config(recipe, tmp_path, **more), tmp_path / "out")
    assert [steps for *_, steps in faked.trained] == [3] * 4 + [6] * 2
    assert {rate for rate, _, steps in faked.trained if steps == 6} == {0.2, 0.25}
    assert summary["best"]["values"] == {"training.learning_rate": 0.25} and summary["trials"] == 6


def test_a_trial_that_another_process_makes_is_waited_for(recipe, tmp_path, monkeypatch):
    faked = Faked(monkeypatch)
    chosen, out = config(recipe, tmp_path), tmp_path / "out"
    folder = out / "trials" / trial.Trial({"training.learning_rate": 0.1}, 0).name(chosen)
    folder.mkdir(parents=True)
    (out / "config.yaml").write_text("")
    monkeypatch.setattr(select, "_claim", lambda *given: None)
    lock = hold(folder, ".trial.lock")
    waited = []

    def other_process(seconds):
        waited.append(seconds)
        metrics = {
            "attacks.mean.rerouted.asr": 0.0,
            "intrinsic.nll.difference": 0.0,
            "intrinsic.kl.rerouted": 0.0,
        }
        (folder / "trial.json").write_text(json.dumps({"metrics": metrics, "seconds": 1.0}))
        lock.close()

    monkeypatch.setattr(select.time, "sleep", other_process)
    summary = select_run(chosen, out)
    assert waited == [select.POLL] and [rate for rate, *_ in faked.trained] == [0.2, 0.3]
    assert summary["best"]["values"] == {"training.learning_rate": 0.1}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"space": {"training.learning_rat": [1]}}, "learning_rat"),
        ({"space": {"training.steps": ["many"]}}, "training.steps"),
        ({"changes": {"losses.target_layer": [1]}}, "target_layer"),
        ({"constraints": ["nll less than 3"]}, "is not understood"),
        ({"objective": "small"}, "write: minimise METRIC"),
        ({"attacks": []}, "attacks or seeds are empty"),
        ({"measures": ["mine"]}, "unknown name 'mine'"),
    ],
)
def test_mistakes_are_caught_before_anything_runs(recipe, tmp_path, monkeypatch, more, said):
    faked = Faked(monkeypatch)
    with pytest.raises(UserError, match=said):
        select_run(config(recipe, tmp_path, **more), tmp_path / "out")
    assert faked.trained == [] and not (tmp_path / "out").exists()


def test_an_unknown_metric_shows_after_the_first_trial(recipe, tmp_path, monkeypatch):
    faked = Faked(monkeypatch)
    with pytest.raises(UserError, match=r"no metric 'intrinsic.nl.difference' — did you mean"):
        select_run(config(recipe, tmp_path, constraints=["intrinsic.nl.difference <= 1"]), tmp_path / "out")
    assert len(faked.trained) == 1


def test_every_trial_failing_is_an_error(recipe, tmp_path, monkeypatch):
    Faked(monkeypatch)
    with pytest.raises(UserError, match="every trial failed, the first: failed: benign loss"):
        select_run(config(recipe, tmp_path, space={"training.learning_rate": [0.3]}), tmp_path / "out")


def test_test_data_is_refused_wherever_it_comes_in(recipe, tmp_path, monkeypatch):
    faked = Faked(monkeypatch)
    columns = {"prompt": "prompt", "response": "response", "target": "target"}
    path = str(write_chats(tmp_path / "renamed.jsonl", ["mend a roof", HARMFUL_TEST[2]]))
    stolen = {"name": "chats", "options": {"path": path, **columns}}
    bundled = {"name": "bundled", "options": {"kind": "benign", "split": "test"}}
    for more, where in (
        ({"sources": [stolen]}, r"sources\[0\]: renamed-1 of chats .* evaluation set direct"),
        (
            {"measure_options": {"intrinsic": {"sources": [bundled]}}},
            r"measure_options.intrinsic.sources\[0\]",
        ),
        ({"measures": ["intrinsic", "facts"]}, "measure_options.facts.source"),
        ({"changes": {"data.retain": [stolen]}}, "data.retain: renamed-1"),
        ({"space": {"data.circuit_breaker": [[stolen]]}}, "data.circuit_breaker: renamed-1"),
    ):
        with pytest.raises(UserError, match=where):
            select_run(config(recipe, tmp_path, **more), tmp_path / "out")
    assert faked.trained == []


def test_a_measure_that_does_not_name_its_data_is_refused(recipe, tmp_path, monkeypatch):
    Faked(monkeypatch)
    own = tmp_path / "own.py"
    own.write_text("class Own:\n    def measure(self, base, rerouted, aids):\n        pass\n")
    with pytest.raises(UserError, match="does not say which data it is on"):
        select_run(config(recipe, tmp_path, measures=[f"{own}:Own"]), tmp_path / "out")


def test_a_real_selection_on_a_tiny_model(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REROUTING_CACHE", str(tmp_path / "cache"))
    more = {
        "space": {"training.learning_rate": [1e-3, 5e-3]},
        "judges": ["refusal_words"],
        "constraints": ["intrinsic.kl.rerouted <= 9"],
        "max_new_tokens": 4,
        "changes": {"training.max_benign_rise": 50.0},
    }
    config(recipe, tmp_path, **more)
    out = tmp_path / "out"
    assert main(["select", "--config", str(tmp_path / "select.yaml"), "--out", str(out)]) == 0
    assert "best: {'training.learning_rate'" in capsys.readouterr().out
    rows = read_jsonl(out / "trials.jsonl")
    assert len(rows) == 2 and all(row["metrics"]["intrinsic.kl.rerouted"] >= 0 for row in rows)
    assert main(["train", "--config", str(out / "best.yaml"), "--out", str(tmp_path / "best")]) == 0
