"""The figures of the docs on real models, made side by side on one GPU: many small runs, in order of urgency.

    python benchmarks/batch.py --out runs/batch --data ../shared/data            (all of benchmarks/batch.yaml)
    python benchmarks/batch.py --out runs/batch --data … --only 'agents/.*' --parallel 4

A 135M model leaves most of a GPU idle, so a dozen runs share it. A job is a line of shell in batch.yaml with a limit
in seconds and, where it needs another's work, that job's name. It works in $JOB, finds others' work in $JOBS/NAME and
public data in $DATA, and copies what is worth keeping (tables, summaries, some answers) to $BACK. Jobs that are done
are not run again; a job that fails leaves out those after it and nothing else. SMALL=1 makes them tiny, to try.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Job:
    """What is run: a line of shell in the repository's root, after another job if need be, for so many seconds."""

    name: str
    run: str
    limit: float = 200.0
    after: str = ""


def listed(file: Path, only: str) -> list[Job]:
    """The jobs of a file whose names match, and those that they need, in the file's order."""
    jobs = {name: Job(name, **given) for name, given in yaml.safe_load(file.read_text()).items()}
    wanted: set[str] = set()
    for name in jobs:
        while re.fullmatch(only, name) or name in wanted:
            wanted.add(name)
            if not (name := jobs[name].after):
                break
            wanted.add(name)
    return [job for job in jobs.values() if job.name in wanted]


class Batch:
    """Runs jobs, so many at a time."""

    def __init__(self, jobs: list[Job], out: Path, data: Path) -> None:
        self.jobs, self.out, self.data = jobs, out.resolve(), data.resolve()
        self.ended: dict[str, int] = {job.name: 0 for job in jobs if self._place("done", job).exists()}
        self.running: dict[str, tuple[Job, Any, float]] = {}
        self.began = time.monotonic()

    def _place(self, kind: str, job: Job) -> Path:
        return self.out / kind / job.name

    def finish(self, parallel: int) -> bool:
        """Run all that can run; whether everything succeeded."""
        try:
            while waiting := [job for job in self.jobs if job.name not in self.ended]:
                self._look()
                for job in waiting:
                    if self.ended.get(job.after, 0) != 0:
                        self._end(job, -1, 0.0)
                    elif self._can_start(job, parallel):
                        self._start(job)
                time.sleep(0.2)
        finally:
            for _, process, _ in self.running.values():
                os.killpg(process.pid, signal.SIGKILL)
        return not any(self.ended.values())

    def _can_start(self, job: Job, parallel: int) -> bool:
        ready = not job.after or job.after in self.ended
        return ready and job.name not in self.running and len(self.running) < parallel

    def _start(self, job: Job) -> None:
        work, back = self._place("jobs", job), self._place("back", job)
        for folder in (work, back):
            folder.mkdir(parents=True, exist_ok=True)
        paths = [str(HERE.parent / "src"), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        given = os.environ | {
            "JOB": str(work),
            "JOBS": str(self.out / "jobs"),
            "BACK": str(back),
            "DATA": str(self.data),
            "PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        with (back / "log.txt").open("w") as log:
            process = subprocess.Popen(
                ["bash", "-c", job.run],
                cwd=HERE.parent,
                env=given,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running[job.name] = (job, process, time.monotonic())
        self._say(f"start {job.name}")

    def _look(self) -> None:
        for job, process, began in list(self.running.values()):
            code, spent = process.poll(), time.monotonic() - began
            if code is None and spent > job.limit:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code = 124
            if code is not None:
                del self.running[job.name]
                self._end(job, code, spent)

    def _end(self, job: Job, code: int, spent: float) -> None:
        self.ended[job.name] = code
        if code == 0:
            mark = self._place("done", job)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        told = "left out" if code < 0 else "done" if code == 0 else f"failed ({code}): see {self._place('back', job)}"
        self._say(f"{told} {job.name}, {spent:.0f} s")

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self.began:6.1f} s  {text}\n")


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=Path, default=HERE / "batch.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs/batch"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="public data as published")
    parser.add_argument("--only", default=".*", help="jobs whose whole name matches, and those that they need")
    parser.add_argument("--parallel", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    args = parser.parse_args()
    sys.exit(0 if Batch(listed(args.jobs, args.only), args.out, args.data).finish(args.parallel) else 1)


if __name__ == "__main__":
    main()
