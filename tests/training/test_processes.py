"""Two processes over gloo do what one does: the same losses and adapter, whole or with sharded weights."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rerouting.core.errors import UserError
from rerouting.core.files import read_jsonl
from rerouting.training import checkpoint, processes
from rerouting.training.processes import Processes
from tests.training.test_loop import examples

ROOT = Path(__file__).parents[2]


def launch(folder, count=2, **options):
    """Train in a number of processes; the adapter and the rows of the log."""
    command = ["-m", "tests.training._worker", str(folder), json.dumps(options)]
    if count > 1:
        ranks = ["--nproc_per_node", str(count), "--master_port", "0", "--rdzv_backend", "c10d"]
        ranks += ["--rdzv_endpoint", "localhost:0"]
        command = ["-m", "torch.distributed.run", *ranks, *command]
    # ACCELERATE_USE_CPU: what `accelerate launch --cpu` sets
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "adapter.pt"), read_jsonl(folder / "metrics.jsonl")


def apart(first, second):
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("alone"), 1)


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"shard": True, "recompute": True}])
def test_two_processes_train_what_one_trains(alone, tmp_path, options):
    adapter, rows = launch(tmp_path, **options)
    assert apart(adapter, alone[0]) < 2e-5
    for ours, single in zip(rows, alone[1], strict=True):
        for name in ("reroute_loss", "retain_loss", "gradient_norm", "retain_distance"):
            assert ours[name] == pytest.approx(single[name], rel=1e-4)
        assert ours["cosine"] == pytest.approx(single["cosine"], rel=1e-4)
        assert ours["padding"] == 0.0


@pytest.mark.long
@pytest.mark.parametrize("options", [pytest.param({}, marks=pytest.mark.slow), {"shard": True}])
def test_a_run_of_two_processes_goes_on_in_one_and_the_other_way_round(alone, tmp_path, options):
    launch(tmp_path / "two", **options)
    launch(tmp_path / "one", 1)
    for folder, count in ((tmp_path / "two", 1), (tmp_path / "one", 2)):
        shutil.rmtree(checkpoint.found(folder / "checkpoints")[-1])
        adapter, rows = launch(folder, count, **(options if count > 1 else {}))
        assert apart(adapter, alone[0]) < 2e-5
        assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]


@pytest.mark.long
def test_a_batch_that_does_not_divide_trains_the_same(tmp_path):
    sizes = {"batch_size": 7, "retain_batch_size": 5, "steps": 3, "retain_mean": "sequences"}
    single, rows = launch(tmp_path / "one", 1, **sizes)
    adapter, shared = launch(tmp_path / "two", **sizes)
    assert apart(adapter, single) < 2e-5
    for ours, theirs in zip(shared, rows, strict=True):
        for name in ("reroute_loss", "retain_loss", "gradient_norm", "retain_distance"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)


@pytest.mark.parametrize("count", [3, 7, 8, 11])
def test_shares_that_do_not_divide_differ_by_one(count):
    drawn = examples(count, 5, 3, 40)
    shares = [Processes(rank, 3).share(drawn) for rank in range(3)]
    assert sorted(one.chat_id for share in shares for one in share) == sorted(one.chat_id for one in drawn)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1 and min(map(len, shares)) >= 1


def test_shares_are_whole_disjoint_and_even():
    drawn = examples(12, 5, 3, 40)
    shares = [Processes(rank, 3).share(drawn) for rank in range(3)]
    assert sorted(one.chat_id for share in shares for one in share) == sorted(one.chat_id for one in drawn)
    assert {len(share) for share in shares} == {4}
    tokens = [sum(len(one.ids) for one in share) for share in shares]
    assert max(tokens) - min(tokens) < max(len(one.ids) for one in drawn)


@pytest.mark.parametrize(
    ("kind", "version2", "hint"), [("DEEPSPEED", False, "use FSDP2"), ("FSDP", False, "fsdp_version 2")]
)
def test_ways_of_sharding_that_are_not_built_say_what_to_use(monkeypatch, kind, version2, hint):
    class Launched:
        distributed_type, is_fsdp2 = f"DistributedType.{kind}", version2

    monkeypatch.setattr(processes, "Accelerator", lambda **_: Launched())
    with pytest.raises(UserError, match=hint):
        Processes.started(cpu=True)


def test_batches_that_do_not_share_out_are_refused():
    two = Processes(0, 2)
    two.check(4, False, batch_size=9)
    two.check(8, True, batch_size=9)  # 4 and 5: one pass each
    with pytest.raises(UserError, match=r"batch_size is 9.*multiple of 2"):
        two.check(4, True, batch_size=9)
    with pytest.raises(UserError, match=r"batch_size is 1, too few.*at least 2"):
        two.check(4, False, batch_size=1)
