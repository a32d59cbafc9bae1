"""The command itself: quick help, near misses, exit statuses."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
import types

import pytest

from rerouting import __version__
from rerouting.cli import main as cli
from rerouting.cli.main import main, verbs
from rerouting.core.errors import UserError

RUN = [sys.executable, "-m", "rerouting"]


def test_help_is_quick_and_lists_every_verb() -> None:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        ran = subprocess.run([*RUN, "--help"], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - began)
    assert min(times) < 1.0
    assert all(f"  {verb}" in ran.stdout for verb in verbs()) and ran.stderr == ""


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from rerouting.cli.main import main; main(['--help'])\n"
        "heavy = {'torch', 'transformers', 'jsonargparse', 'yaml', 'rich', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"rerouting {__version__}\n"


def test_unknown_verb_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    verb = next(iter(verbs()))
    assert main([verb + "x"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and f"did you mean {verb}?" in err and "Traceback" not in err
    assert main([verb, "--no-such-option"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown option --no-such-option")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("no such thing", "take another"), 2, "error: no such thing — take another\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: disk full"),
        (RuntimeError("ours"), 1, "rerouting env"),
    ],
)
def test_exit_statuses(
    error: BaseException, status: int, said: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def run(_: object) -> int:
        raise error

    fake = types.SimpleNamespace(add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: fake)
    assert main([next(iter(verbs()))]) == status
    shown = capsys.readouterr().err
    assert said in shown and ("Traceback" in shown) == (status == 1)


def test_a_closed_pipe_is_quiet() -> None:
    ran = subprocess.run(
        f"{sys.executable} -m rerouting --help | true",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == ""


def test_list_names_components_and_prints_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "attacks"]) == 0
    assert "prefill" in capsys.readouterr().out
    assert main(["list", "attacks", "prefill"]) == 0
    shown = capsys.readouterr().out
    assert "--openings" in shown and "Zou et al. 2024" in shown and "--recipe" not in shown
    assert main(["list", "judges", "locl"]) == 2
    assert "local" in capsys.readouterr().err
