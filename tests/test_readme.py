"""The README's commands: all are understood, those that take seconds are run, the quickstart as a slow test."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rerouting.cli.main import main, verbs
from rerouting.core.config import Parser, from_mapping
from rerouting.training.config import RunConfig

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands():
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith(".venv/bin/rerouting")]


def test_there_are_commands_for_most_verbs():
    assert {command[0] for command in commands()} >= {"generate", "recipes", "train"}
    table = set(re.findall(r"^\| `([\w-]+)` \|", README, flags=re.MULTILINE))
    assert table == set(verbs()), "the table of commands is complete"


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_is_understood(command, tmp_path, monkeypatch, capsys):
    import importlib

    (tmp_path / "my.yaml").write_text(blocks("yaml")[0])
    monkeypatch.chdir(tmp_path)
    if command[0] == "recipes" or "--help" in command:
        assert main(command) == 0
        assert len(capsys.readouterr().out.splitlines()) >= 10
        return
    parser = Parser(prog="rerouting")
    module = importlib.import_module(f"rerouting.cli.{command[0]}")
    module.add_arguments(parser)
    assert parser.parse_args(command[1:])


def test_the_example_configuration_is_valid():
    config = from_mapping(RunConfig, yaml.safe_load(blocks("yaml")[0]), "README")
    assert [source.name for source in config.data.retain] == ["chats", "bundled"]


def test_the_python_example_compiles_and_imports():
    code = blocks("python")[0]
    compile(code, "README", "exec")
    exec("\n".join(line for line in code.splitlines() if line.startswith(("from", "import"))), {})


def test_files_that_the_readme_names_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_env_prints_json(capsys):
    assert main(["env"]) == 0
    assert json.loads(capsys.readouterr().out)["packages"]["torch"]


def test_help_answers_in_under_a_second():
    import time

    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "rerouting", "--help"], capture_output=True, text=True)
    assert time.perf_counter() - began < 1.0
    assert all(verb in done.stdout for verb in verbs())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_quickstart_end_to_end(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "rerouting", "quickstart", "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    sets = json.loads((tmp_path / "run" / "summary.json").read_text())["sets"]
    assert sets["prefill"]["rerouted"]["answered"]["rate"] <= 0.1
    assert sets["benign"]["coherent_where_base_is"]["rate"] >= 0.9
    assert sets["prefill"]["base"]["answered"]["rate"] >= 0.8
