"""The tutorial's commands: all are understood by the command line; as a slow test all are run, in order."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rerouting.cli.main import verbs
from rerouting.core.config import Parser, from_mapping, load_config
from rerouting.core.recipes import recipe_path
from rerouting.training.config import RunConfig

TUTORIAL = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TUTORIAL, flags=re.DOTALL)


def lines():
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def words(line):
    """The arguments of the one `rerouting` in a line, which may stand behind a pipe."""
    parts = [part for part in line.split(" | ") if part.split()[0] == "rerouting"]
    assert len(parts) == 1, line
    return shlex.split(parts[0], comments=True)[1:]


def test_the_tutorial_goes_the_whole_way():
    assert [words(line)[0] for line in lines()] == [
        *("train", "generate", "attack", "evaluate", "card", "report", "chat", "reproduce"),
    ]
    assert all("runs/tutorial" in line for line in lines())


@pytest.mark.parametrize("line", lines())
def test_every_command_and_option_exists(line, tmp_path, monkeypatch):
    verb, *options = words(line)
    assert verb in verbs()
    (tmp_path / "tutorial.yaml").write_text(blocks("yaml")[0])
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"rerouting.cli.{verb.replace('-', '_')}")
    parser = Parser(prog=f"rerouting {verb}")
    module.add_arguments(parser)
    assert parser.parse_args(options)


def test_the_configuration_is_valid_and_smaller_than_the_quickstart():
    assert len(blocks("yaml")) == 1
    own = from_mapping(RunConfig, yaml.safe_load(blocks("yaml")[0]), "tutorial")
    whole = load_config(RunConfig, recipe_path("quickstart"))
    assert own.training.steps < whole.training.steps
    for name in ("circuit_breaker", "retain"):
        for mine, its in zip(getattr(own.data, name), getattr(whole.data, name), strict=True):
            assert (
                mine.options["limit"] < its.options["limit"] and mine.options["kind"] == its.options["kind"]
            )
            assert (mine.on_policy, mine.prefixed) == (its.on_policy, its.prefixed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command_runs(tmp_path):
    """As a reader would: the file is saved, and the blocks are pasted one after the other."""
    (tmp_path / "tutorial.yaml").write_text(blocks("yaml")[0])
    program = tmp_path / "bin" / "rerouting"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rerouting "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "REROUTING_CACHE": str(tmp_path / "cache"),
    }
    said = {}
    for line in lines():
        verb = words(line)[0]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        said[verb] = done.stdout
        print(line, done.stdout, sep="\n")
    run = tmp_path / "runs" / "tutorial"
    card = (run / "adapter" / "README.md").read_text()
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card
    assert "budget quick" in card and "| facts |" in card
    assert "bit-equal" in said["reproduce"] and "not bit-equal" not in said["reproduce"]
    assert "Paris" in said["generate"] and "bees" in said["chat"]
    assert "<html" in (run / "report.html").read_text()[:200]
