"""Jobs run side by side, after one another where they must, and once."""

from pathlib import Path

import pytest
import yaml

from benchmarks.batch import HERE, Batch, listed

JOBS = {
    "late": {"run": 'cat "$JOBS/early/made" > "$BACK/found"', "after": "early"},
    "early": {"run": 'echo ours > "$JOB/made"; echo "$DATA" >> "$BACK/times"', "limit": 20},
    "stuck": {"run": "sleep 60", "limit": 0.5},
    "never": {"run": "touch $BACK/run", "after": "stuck"},
}


@pytest.fixture
def file(tmp_path):
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(JOBS, sort_keys=False))
    return tmp_path / "jobs.yaml"


def test_what_fails_leaves_out_those_after_it_and_nothing_else(file, tmp_path, capsys):
    assert not Batch(listed(file, ".*"), tmp_path / "out", tmp_path).finish(2)
    back = tmp_path / "out" / "back"
    assert (back / "late" / "found").read_text() == "ours\n"
    assert not (back / "never" / "run").exists()
    told = capsys.readouterr().err
    assert "failed (124)" in told and "left out never" in told


def test_what_is_done_is_not_run_again(file, tmp_path):
    for _ in range(2):
        assert Batch(listed(file, "late"), tmp_path / "out", tmp_path).finish(1)
    assert len((tmp_path / "out" / "back" / "early" / "times").read_text().splitlines()) == 1


def test_a_job_brings_those_that_it_needs(file):
    assert [job.name for job in listed(file, "late")] == ["late", "early"]
    assert [job.name for job in listed(file, "stuck|early")] == ["early", "stuck"]


def test_the_projects_own_jobs_are_there_and_wait_for_jobs_that_are():
    jobs = {job.name: job for job in listed(HERE / "batch.yaml", ".*")}
    for job in jobs.values():
        assert not job.after or job.after in jobs, job.name
        for word in job.run.split():
            assert not word.endswith((".sh", ".py")) or Path(HERE.parent, word).exists(), word
