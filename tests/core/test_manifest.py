"""What a run records about itself."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from rerouting.core.allocator import keep_freed_memory
from rerouting.core.manifest import CLEAR_REFS, Stages, environment, source_revision, write_manifest


def test_environment_names_versions_and_hardware() -> None:
    found = environment()
    assert found["cores"] >= 1 and found["memory_gib"] > 0 and found["processor"]
    assert {"rerouting", "torch", "transformers", "peft"} <= set(found["packages"])
    json.dumps(found)


def test_source_revision(tmp_path: Path) -> None:
    assert source_revision(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert source_revision(tmp_path) is None
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    clean = source_revision(tmp_path)
    assert clean is not None and len(clean["revision"]) == 40 and clean["changed"] is False
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "new.py").touch()
    assert source_revision(tmp_path) == {**clean, "changed": True}


def test_stages_measure_add_up_and_survive_errors(tmp_path: Path) -> None:
    stages = Stages()
    with stages.stage("train"):
        time.sleep(0.02)
    with pytest.raises(ZeroDivisionError), stages.stage("evaluate"):
        _ = 1 / 0
    write_manifest(tmp_path / "m.json", stages=stages.as_dict(), folder=tmp_path)
    saved = json.loads((tmp_path / "m.json").read_text())
    resumed = Stages(saved["stages"])
    before = resumed.as_dict()["train"]["seconds"]
    assert before >= 0.02 and "evaluate" in resumed.as_dict()
    with resumed.stage("train"):
        time.sleep(0.02)
    assert resumed.as_dict()["train"]["seconds"] >= before + 0.02
    assert stages.as_dict()["train"]["seconds"] == before


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="needs Linux")
@pytest.mark.parametrize("kept", [False, True])
def test_peak_memory_is_the_stages_own(kept: bool) -> None:
    """Also where freed memory is kept (from then on in this process)."""
    if kept:
        keep_freed_memory()
    stages = Stages()
    with stages.stage("big"):
        blocks = [bytearray(10 * 2**20) for _ in range(20)]
        for block in blocks:
            block[::4096] = b"x" * len(block[::4096])
        del block, blocks
    with stages.stage("small"):
        pass
    peaks = stages.as_dict()
    assert peaks["big"]["peak_memory_mib"] - peaks["small"]["peak_memory_mib"] > 150
