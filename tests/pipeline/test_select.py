"""`rerouting select`: trials made once, resumed, shared between processes, guarded; one real one on a tiny model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from rerouting.cli.main import main
from rerouting.core.config import load_config
from rerouting.core.errors import UserError
from rerouting.core.files import read_jsonl, write_error
from rerouting.core.rundir import hold
from rerouting.data.config import SourceConfig
from rerouting.data.sources.bundled import Bundled
from rerouting.evaluation.guarding import TestData
from rerouting.evaluation.select_config import SelectConfig
from rerouting.measures.carry_over import CarryOver
from rerouting.measures.intrinsic import Intrinsic
from rerouting.pipeline import guard, select, trial
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
                        "rerouted": {
                            "asr": {"rate": 0.5 - rate, "low": 0.4 - rate, "high": 0.6 - rate},
                            "labels": labels,
                        },
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
    assert rows[0.1]["seeds"] == [0, 1] and rows[0.1]["intervals"][
        "attacks.mean.rerouted.asr"
    ] == pytest.approx([0.4 - 0.105, 0.6 - 0.105])
    assert all(
        (out / "trials" / name / "trial.json").exists() for row in rows.values() for name in row["runs"]
    )
    table = (out / "table.csv").read_text().splitlines()
    assert table[0].startswith(
        "training.learning_rate,attacks.mean.rerouted.asr,attacks.mean.rerouted.asr low,"
    )
    assert table[1].startswith("0.1,0.395,0.29") and len(table) == 4
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
    with pytest.raises(UserError, match=r"holds another selection \(budget, max_new_tokens differ\)"):
        select_run(config(recipe, tmp_path, budget="paper", max_new_tokens=9), out)


def test_other_constraints_and_a_wider_space_reuse_what_is_there(recipe, tmp_path, monkeypatch):
    faked, out = Faked(monkeypatch), tmp_path / "out"
    assert select_run(config(recipe, tmp_path), out)["best"]["values"] == {"training.learning_rate": 0.1}
    wider = {"training.learning_rate": [0.1, 0.2, 0.25]}
    loose = ["intrinsic.nll.difference <= 0.2"]
    summary = select_run(config(recipe, tmp_path, space=wider, constraints=loose), out)
    assert summary["best"]["values"] == {"training.learning_rate": 0.2}
    assert [rate for rate, *_ in faked.trained] == [0.1, 0.2, 0.3, 0.25]
    strict = ["intrinsic.nll.difference <= 0.01"]
    assert select_run(config(recipe, tmp_path, space=wider, constraints=strict), out)["best"] is None
    assert not (out / "best.yaml").exists(), "an earlier choice does not stay"


def test_a_full_disk_fails_no_trial(recipe, tmp_path, monkeypatch):
    faked, out = Faked(monkeypatch), tmp_path / "out"

    def full(config, out):
        raise write_error(out, OSError(28, "No space left on device"))

    monkeypatch.setattr(trial, "execute", full)
    with pytest.raises(UserError, match="disk full"):
        select_run(config(recipe, tmp_path), out)
    assert not list(out.glob("trials/*/trial.json"))
    monkeypatch.setattr(trial, "execute", faked.execute)
    assert select_run(config(recipe, tmp_path), out)["best"]


def test_a_trial_that_memory_is_too_small_for_fails_and_the_search_goes_on(recipe, tmp_path, monkeypatch):
    faked = Faked(monkeypatch)

    def small(config, out):
        if config.training.learning_rate == 0.1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore lines")
        return faked.execute(config, out)

    monkeypatch.setattr(trial, "execute", small)
    summary = select_run(config(recipe, tmp_path, constraints=[]), tmp_path / "out")
    assert summary["best"]["values"] == {"training.learning_rate": 0.2}
    (row,) = [one for one in read_jsonl(tmp_path / "out" / "trials.jsonl") if "memory" in one["reason"]]
    assert "Tried to allocate)" in row["reason"] and "lower training.micro_batch" in row["reason"]

    def ours(config, out):
        raise RuntimeError("a bug")

    monkeypatch.setattr(trial, "execute", ours)
    with pytest.raises(RuntimeError, match="a bug"):
        select_run(config(recipe, tmp_path), tmp_path / "other")


def test_a_kill_between_the_result_and_the_models_removal_costs_nothing(recipe, tmp_path, monkeypatch):
    faked, out = Faked(monkeypatch), tmp_path / "out"

    def killed(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(select, "remove_models", killed)
    with pytest.raises(KeyboardInterrupt):
        select_run(config(recipe, tmp_path), out)
    assert len(list(out.glob("trials/*/run/model"))) == 1 == len(list(out.glob("trials/*/trial.json")))
    monkeypatch.setattr(select, "remove_models", trial.remove_models)
    select_run(config(recipe, tmp_path), out)
    assert [rate for rate, *_ in faked.trained] == [0.1, 0.2, 0.3] and not list(
        out.glob("trials/*/run/model")
    )


def test_a_selection_by_attacks_alone(recipe, tmp_path, monkeypatch):
    Faked(monkeypatch)
    more = {"measures": [], "constraints": [], "against": ""}
    summary = select_run(config(recipe, tmp_path, **more), tmp_path / "out")
    assert summary["best"]["values"] == {"training.learning_rate": 0.2} and summary["front"] == []
    assert not (tmp_path / "out" / "pareto.png").exists()


@pytest.mark.parametrize(("models", "kept"), [("none", 0), ("best", 2), ("all", 4)])
def test_merged_models_are_kept_as_asked(recipe, tmp_path, monkeypatch, models, kept):
    Faked(monkeypatch)
    out = tmp_path / "out"
    summary = select_run(config(recipe, tmp_path, models=models, seeds=[0, 1]), out)
    there = list(out.glob("trials/*/run/model"))
    assert len(there) == kept and len(list(out.glob("trials/*/run/rate"))) == 4
    if models == "best":
        assert {folder.parents[1].name for folder in there} == set(summary["best"]["runs"])


def test_a_metric_that_one_trial_lacks_makes_it_infeasible(recipe, tmp_path, monkeypatch):
    faked = Faked(monkeypatch)

    def sometimes(config, out):
        found = faked.kept(config, out)
        if "0.2" in (out.parent / "run" / "rate").read_text():
            found["measures"]["intrinsic"]["findings"].pop(0)
        return found

    monkeypatch.setattr(trial, "kept_run", sometimes)
    summary = select_run(
        config(recipe, tmp_path, constraints=["intrinsic.nll.difference <= 1"]), tmp_path / "out"
    )
    assert summary["best"]["values"] == {"training.learning_rate": 0.1}, (
        "0.2 would be better, but was not measured"
    )
    rows = read_jsonl(tmp_path / "out" / "trials.jsonl")
    assert "intrinsic.nll.difference was not measured" in [row["reason"] for row in rows]


def test_trials_train_on_what_the_final_run_trains_on(recipe, tmp_path, monkeypatch):
    chosen = config(recipe, tmp_path, seeds=[3, 4])
    run = trial.Trial({"training.learning_rate": 0.1}, 4).config(chosen)
    (evaluated,) = load_config(RunConfig, recipe).evaluation.sets
    assert run.evaluation.sets == [] and run.data.evaluation == [evaluated.source]
    assert (run.seed, run.sampling.seed) == (4, 3)
    final = trial.seeded(chosen, {"training.learning_rate": 0.1}, 3)
    assert final.evaluation.sets == [evaluated] and (final.seed, final.sampling.seed) == (3, 3)


TWO_PROCESSES = """
import os
import sys
import time
from pathlib import Path
import pytest
from rerouting.core.config import load_config
from rerouting.evaluation.select_config import SelectConfig
from rerouting.pipeline import select, trial
from tests.pipeline.test_select import Faked

faked, out = Faked(pytest.MonkeyPatch()), Path(sys.argv[2])
made = faked.execute
def execute(config, folder):
    file = Path(sys.argv[3]) / f"{config.training.learning_rate}"
    with file.open("a") as lines:
        lines.write(f"{os.getpid()}\\n")
    time.sleep(1)
    made(config, folder)
trial.execute = execute
select.POLL = 0.1
select.select_run(load_config(SelectConfig, Path(sys.argv[1])), out)
"""


@pytest.mark.slow
def test_two_processes_share_a_folder_and_a_killed_ones_trial_is_taken_over(recipe, tmp_path):
    config(recipe, tmp_path, space={"training.learning_rate": [0.1, 0.15, 0.2, 0.25]})
    (tmp_path / "made").mkdir()
    command = [sys.executable, "-c", TWO_PROCESSES]
    command += [str(tmp_path / "select.yaml"), str(tmp_path / "out"), str(tmp_path / "made")]
    killed, other = (
        subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    deadline = time.monotonic() + 120

    def begun():
        files = list((tmp_path / "made").iterdir())
        return {int(line) for file in files for line in file.read_text().split()}

    while not {killed.pid, other.pid} <= begun() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    _, said = other.communicate(timeout=120)
    assert other.returncode == 0, said
    made = {file.name: file.read_text().split() for file in (tmp_path / "made").iterdir()}
    assert made.keys() == {"0.1", "0.15", "0.2", "0.25"}
    twice = [pids for pids in made.values() if len(pids) > 1]
    assert twice in ([], [[str(killed.pid), str(other.pid)]]), "only the killed one's trial is made again"
    assert len(read_jsonl(tmp_path / "out" / "trials.jsonl")) == 4


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
        ({"attacks": ["direct", "prefil"]}, "did you mean prefill"),
        ({"attack_options": {"prefill": {}}}, "attack_options names 'prefill', which is not asked for"),
        ({"seeds": [1, 1]}, "seeds has one twice"),
        ({"space": {"seed": [1, 2]}}, "space varies seed"),
        ({"space": {"evaluation.max_new_tokens": [7]}}, "space varies evaluation"),
        (
            {"space": {"data": [{"evaluation": [{"name": "bundled", "options": {"kind": "harmful"}}]}]}},
            "space varies data.evaluation",
        ),
        ({"space": {"training.steps": {"low": 1.5, "high": 9}}, "method": "random"}, "training.steps"),
        ({"constraints": ["facts.as_before.difference >= 0"]}, "they begin with one of what is measured"),
        ({"against": "attacks.direct.rerouted.kl"}, "no metric 'attacks.direct.rerouted.kl'"),
        ({"run": "quikstart"}, "did you mean quickstart"),
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
    with pytest.raises(
        UserError, match=r"no metric 'intrinsic.k.rerouted' — did you mean intrinsic.kl.rerouted"
    ):
        select_run(config(recipe, tmp_path, against="intrinsic.k.rerouted"), tmp_path / "out")


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
        ({"changes": {"data.held_out_benign": [stolen]}}, "data.held_out_benign: renamed-1"),
        ({"space": {"data.circuit_breaker": [[stolen]]}}, "data.circuit_breaker: renamed-1"),
        # a recipe's own sets stay test data when the selection takes them away
        ({"changes": {"evaluation.sets": []}, "sources": [stolen]}, r"sources\[0\]: renamed-1"),
    ):
        with pytest.raises(UserError, match=where):
            select_run(config(recipe, tmp_path, **more), tmp_path / "out")
    assert faked.trained == []


OWN_MEASURE = """
from dataclasses import dataclass, field
from typing import Any

@dataclass(frozen=True)
class Own:
    data: dict[str, Any] = field(default_factory=dict)
    path: str = ""

    def measure(self, base, rerouted, aids):
        pass
"""


def test_test_data_is_refused_in_any_file_that_an_option_names(recipe, tmp_path, monkeypatch):
    faked = Faked(monkeypatch)
    stolen = next(chat.request for chat in Bundled("harmful", "test").load() if len(chat.messages) == 1)
    own = tmp_path / "own.py"
    own.write_text(OWN_MEASURE)
    validation = {"name": "bundled", "options": {"kind": "benign", "split": "validation"}}
    test = {"name": "bundled", "options": {"kind": "benign", "split": "test"}}
    (tmp_path / "cases.json").write_text(
        json.dumps({"validation-0": ["How do I cook soup?", f"Sure! {stolen}"]})
    )
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text(f"one\n{stolen}\n")
    (tmp_path / "rows.csv").write_text(f'name,text\na,"{stolen.replace(chr(34), "")}"\n')
    name = f"{own}:Own"
    static = {
        "attacks": ["direct", "static"],
        "attack_options": {"static": {"path": str(tmp_path / "cases.json")}},
    }
    for more, where in (
        (static, r"attack_options.static: text 3 of .*cases.json"),
        ({"measures": [name], "measure_options": {name: {"data": {"held": test}}}}, r"Own.data.held: benign-"),
        *(
            ({"measures": [name], "measure_options": {name: {"data": {"held": validation}, "path": str(path)}}},
             f"text {number} of .*{path.name}")
            for path, number in ((tmp_path / "texts", 2), (tmp_path / "rows.csv", 4))
        ),
    ):  # fmt: skip
        with pytest.raises(UserError, match=where):
            select_run(config(recipe, tmp_path, **more), tmp_path / "out")
    assert faked.trained == []
    (tmp_path / "cases.json").write_text(json.dumps({"validation-0": ["How do I cook soup, friend?"]}))
    assert select_run(config(recipe, tmp_path, **static), tmp_path / "out")["best"]


def test_what_a_template_attack_would_send_is_looked_at(recipe, tmp_path, monkeypatch):
    Faked(monkeypatch)
    stolen = next(chat.request for chat in Bundled("harmful", "test").load() if len(chat.messages) == 1)
    own = tmp_path / "own.py"
    own.write_text(
        "from rerouting.core.attempt import Attempt, ask\n"
        f"class Sly:\n    def prompts(self, chats):\n        return [Attempt(ask(one, {stolen!r})) for one in chats]\n"
    )
    with pytest.raises(
        UserError, match=r"what it sends for validation-0 is, or is like, one of the bundled harmful"
    ):
        select_run(config(recipe, tmp_path, attacks=["direct", f"{own}:Sly"]), tmp_path / "out")


def test_sources_and_files_are_found_in_options(tmp_path):
    assert set(dict(guard.sources_in(CarryOver(), "carry_over"))) == {
        "carry_over.harmful",
        "carry_over.harmless",
    }
    assert [where for where, _ in guard.sources_in(Intrinsic(), "intrinsic")] == [
        "intrinsic.sources[0]",
        "intrinsic.sources[1]",
    ]
    nested = {"a": [{"name": "bundled", "options": {"kind": "benign"}}, {"name": "bundled", "other": 1}]}
    assert dict(guard.sources_in(nested, "m")) == {"m.a[0]": SourceConfig("bundled", {"kind": "benign"})}
    for name in ("a.txt", "b.bin", "c.jsonl"):
        (tmp_path / name).write_text("{}\n")
    found = list(guard.files_in({"x": [str(tmp_path)], "y": "no such file", "z": "."}))
    assert [file.name for file in found] == ["a.txt", "c.jsonl"]
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match=r"broken.json is not JSON"):
        guard.refuse_file(TestData(), "m", tmp_path / "broken.json")


def test_a_measure_that_does_not_name_its_data_is_refused(recipe, tmp_path, monkeypatch):
    Faked(monkeypatch)
    own = tmp_path / "own.py"
    own.write_text("class Own:\n    def measure(self, base, rerouted, aids):\n        pass\n")
    with pytest.raises(UserError, match="does not say which data it is on"):
        select_run(config(recipe, tmp_path, measures=[f"{own}:Own"]), tmp_path / "out")


@pytest.mark.long
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
    assert all(len(row["intervals"]["attacks.direct.rerouted.asr"]) == 2 for row in rows)
    assert main(["train", "--config", str(out / "best.yaml"), "--out", str(tmp_path / "best")]) == 0
    best = json.loads((out / "summary.json").read_text())["best"]
    adapters = (out / "trials" / best["runs"][0] / "run" / "adapter", tmp_path / "best" / "adapter")
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in adapters)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
