"""Imports run downward only, folders on one level never import each other, and files stay small."""

import ast
from pathlib import Path

import rerouting

PACKAGE = Path(rerouting.__file__).parent
LEVELS = [
    {"cli"},
    {"web"},
    {"pipeline"},
    {"training", "evaluation", "report"},
    {"losses", "attacks", "judges", "measures", "probes"},
    {"targets", "agents"},
    {"models", "data"},
    {"pictures"},
    {"core"},
]
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}


def imports(file: Path) -> set[str]:
    """Folders of this package that a file imports, at its top or inside of functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file}: relative import"
        found |= {name.split(".")[1] for name in names if name.startswith("rerouting.")}
    return found


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_imports_run_downward():
    seen = 0
    for file in files():
        own = file.relative_to(PACKAGE).parts[0]
        if own.endswith(".py"):
            continue
        for other in imports(file) - {own}:
            seen += 1
            assert LEVEL[own] < LEVEL[other], f"{file.relative_to(PACKAGE)} imports {other}"
    assert seen > 50


def test_files_are_small():
    lengths = {file.relative_to(PACKAGE): len(file.read_text().splitlines()) for file in files()}
    assert len(lengths) > 60
    assert {file: length for file, length in lengths.items() if length > 320} == {}
    assert not list(PACKAGE.rglob("utils.py"))


def test_help_needs_no_torch():
    import subprocess
    import sys

    for verb in (
        "train",
        "data",
        "quickstart",
        "attack",
        "evaluate",
        "select",
        "layers",
        "generate",
        "chat",
        "merge",
        "reproduce",
        "card",
        "push",
        "plan",
        "recipes",
        "env",
        "report",
    ):
        code = f"import sys; from rerouting.cli.main import main; main(['{verb}', '--help'])"
        code += "\nassert 'torch' not in sys.modules, 'torch was imported'"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "--help" in done.stdout
