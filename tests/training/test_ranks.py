"""Several processes that train together, against one: real processes on this machine, joined by Gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from jettagger.training.checkpoints import BEST, LAST, load_weights
from toy_jets import write_toy_data

pytestmark = pytest.mark.slow

COMMON = (
    "training.threads=1",
    "training.precision=float32",
    "training.device=cpu",
    "training.checkpoint_seconds=null",
    "weights={event: gen_weight - 0.7}",  # a fifth of them is negative
)
MLP = (
    *COMMON,
    "model={architecture: mlp, widths: [16, 16], norm: batch, dropout: 0.2}",
    "training.epochs=6",
    "training.gradient_clip=0.3",
    "training.ema=0.5",
    "training.schedule={name: plateau, patience: 0}",
    "training.early_stopping={patience: 3, min_delta: 1.0}",
)
PARTICLES = (
    *COMMON,
    "model={architecture: particle_cnn, widths: [8, 8], context: [mean, attention], summary: [mean, max], heads: 2,"
    " dense: [8], norm: batch, input_batch_norm: true, dropout: 0.2}",
    "training.reflections={phi: [particles.deta]}",
)
EDGES = (
    *COMMON,
    "model={architecture: particle_net, neighbours: 4, edges: [[8], [8]], dense: [8], dropout: 0.2}",
    "training.epochs=1",
)
SLOTS = (
    *COMMON,
    "model={architecture: p_cnn, first: 8, stages: [[8], [8]], dense: [8], dropout: 0.2}",
    "training.epochs=1",
    "training.accumulate=2",
)
FEW = (*PARTICLES, "training.batch_size=1", "training.epochs=1", "data.selection=jet_pt > 670")
SWA = (*MLP[:6], "training.epochs=3", "training.swa={start: 0.4}", "training.l1=1.0e-3")
LOCAL = (*MLP, "training.sync_batch_norm=false")
EVERY_STEP = (*MLP, "training.checkpoint_seconds=1.0e-9")
MEMBERS = (*COMMON, "ensemble.members=3", "training.ranks=members")
FOLDS = (*COMMON, "data.folds={k: 3, by: event_number}", "training.ranks=members", "training.epochs=1")

JOBS: dict[str, dict[str, Any]] = {
    "mlp, 1": {"world": 1, "overrides": MLP, "double": True},
    "mlp, 2": {"world": 2, "overrides": MLP, "double": True},
    "mlp, 2 in float32": {"world": 2, "overrides": MLP},
    "mlp, 2 in float32 again": {"world": 2, "overrides": MLP},
    "particles, 1": {"world": 1, "overrides": PARTICLES, "double": True},
    "particles, 2": {"world": 2, "overrides": PARTICLES, "double": True},
    "edges, 1": {"world": 1, "overrides": EDGES, "double": True},
    "edges, 2": {"world": 2, "overrides": EDGES, "double": True},
    "slots, 1": {"world": 1, "overrides": SLOTS[:-1], "double": True},
    "slots, 2": {"world": 2, "overrides": SLOTS[:-1], "double": True},
    "slots in parts, 3": {
        "world": 3,
        "overrides": (*SLOTS, "training.batch_size=2", FEW[-1]),
        "double": True,
    },
    "few, 1": {"world": 1, "overrides": FEW, "double": True},
    "few, 3": {"world": 3, "overrides": FEW, "double": True},
    "swa, 1": {"world": 1, "overrides": SWA, "double": True},
    "swa, 2": {"world": 2, "overrides": SWA, "double": True},
    "statistics of each, 2": {"world": 2, "overrides": LOCAL, "double": True},
    "1 to 2, killed": {"world": 1, "overrides": EVERY_STEP, "double": True, "kill": [0, 7], "in": "1 to 2"},
    "1 to 2": {"world": 2, "overrides": EVERY_STEP, "double": True, "resume": True},
    "2 to 1, killed": {"world": 2, "overrides": EVERY_STEP, "double": True, "kill": [1, 7], "in": "2 to 1"},
    "2 to 1": {"world": 1, "overrides": EVERY_STEP, "double": True, "resume": True},
    "members, 1": {"world": 1, "overrides": MEMBERS},
    "members, 2": {"world": 2, "overrides": MEMBERS},
    "members, one killed": {"world": 2, "overrides": (*MEMBERS, "training.rank_timeout=10"), "kill": [1, 2]},
    "folds, 1": {"world": 1, "overrides": FOLDS},
    "folds, 2": {"world": 2, "overrides": FOLDS},
    "bad jet, 2": {"world": 2, "overrides": MLP, "hook": "bad jet"},
    "mistake, 2": {"world": 2, "overrides": MLP, "hook": "mistake"},
    "mistake in members, 2": {"world": 2, "overrides": MEMBERS, "hook": "mistake"},
    "signalled, 2": {"world": 2, "overrides": MLP, "hook": "signalled", "in": "asked to stop"},
    "asked to stop": {"world": 2, "overrides": MLP},
}


class Done(NamedTuple):
    """What became of the jobs."""

    folder: Path
    statuses: dict[str, list[int]]

    def run(self, name: str) -> Path:
        """The run directory of a job that ended well."""
        assert self.statuses[name] == [0] * JOBS[name]["world"], self.said(name, 0)
        return self.folder / name

    def said(self, name: str, rank: int) -> str:
        """What a rank printed."""
        return (self.folder / f"{JOBS[name].get('in', name)}.{rank}.txt").read_text()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("ranks")
    config = write_toy_data(folder, 200)
    config.write_text(config.read_text().replace("widths: [16], ", ""))  # not every architecture has them
    jobs = [
        {**job, "config": str(config), "output": str(folder / job.get("in", name))}
        for name, job in JOBS.items()
    ]
    command = [sys.executable, str(Path(__file__).with_name("ranks.py")), json.dumps(jobs)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    return Done(folder, dict(zip(JOBS, map(json.loads, result.stdout.splitlines()), strict=True)))


def metrics(run: Path, member: int = 0) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without times."""
    lines = (run / f"member_{member}" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    left_out = ("seconds", "jets_per_second", "targets")
    return [{key: x for key, x in row.items() if key not in left_out and x is not None} for row in rows]


def state(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / "member_0" / LAST, weights_only=True)["content"]["state"]
    return content


def assert_same(first: Path, second: Path, tolerance: float = 1e-9) -> None:
    """Weights, moments, statistics, mean of the weights and all figures agree to rounding."""
    one, two = state(first), state(second)
    for name, x in one["model"].items():
        torch.testing.assert_close(two["model"][name], x, rtol=tolerance, atol=tolerance)
    for name, x in (one["average"] or {}).items():
        torch.testing.assert_close(two["average"][name], x, rtol=tolerance, atol=tolerance)
    for index, moments in one["optimiser"]["state"].items():
        for name, x in moments.items():
            torch.testing.assert_close(two["optimiser"]["state"][index][name], x, rtol=1e-7, atol=tolerance)
    assert len(metrics(first)) == len(metrics(second))
    for row, other in zip(metrics(first), metrics(second), strict=True):
        assert other == pytest.approx(row, rel=tolerance, abs=tolerance)
    weights = load_weights(second / "member_0" / BEST)
    for name, x in load_weights(first / "member_0" / BEST).items():
        torch.testing.assert_close(weights[name], x, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("mlp, 1", "mlp, 2"),
        ("particles, 1", "particles, 2"),
        ("swa, 1", "swa, 2"),
        ("few, 1", "few, 3"),
        ("edges, 1", "edges, 2"),
        ("slots, 1", "slots, 2"),
        ("mlp, 1", "1 to 2"),
        ("mlp, 1", "2 to 1"),
    ],
)
def test_the_numbers_are_those_of_one_process(done: Done, first: str, second: str) -> None:
    assert_same(done.run(first), done.run(second))


def test_parts_of_uneven_shares_do_not_wait_for_each_other(done: Done) -> None:
    assert metrics(done.run("slots in parts, 3"))[0]["epoch"] == 1


def test_early_stopping_was_part_of_it(done: Done) -> None:
    result = json.loads((done.run("mlp, 2") / "member_0" / "result.json").read_text())
    assert result["stopped_early"]
    assert result["jets"] == json.loads((done.run("mlp, 1") / "member_0" / "result.json").read_text())["jets"]


def test_the_same_ranks_give_the_same_bits(done: Done) -> None:
    first, second = done.run("mlp, 2 in float32"), done.run("mlp, 2 in float32 again")
    one, two = load_weights(first / "member_0" / BEST), load_weights(second / "member_0" / BEST)
    assert all(torch.equal(x, two[name]) for name, x in one.items())
    assert metrics(first) == metrics(second)


def test_statistics_of_each_rank_are_another_training(done: Done) -> None:
    one, two = state(done.run("mlp, 1"))["model"], state(done.run("statistics of each, 2"))["model"]
    assert any(
        not torch.allclose(x, two[name], rtol=1e-3) for name, x in one.items() if x.is_floating_point()
    )


@pytest.mark.parametrize(("killed", "status"), [("1 to 2, killed", [-9]), ("2 to 1, killed", [2, -9])])
def test_after_a_kill_another_number_of_ranks_goes_on(done: Done, killed: str, status: list[int]) -> None:
    assert done.statuses[killed] == status
    said = done.said(killed, 0)
    assert "resuming after step 7 of" in said
    before, now = (1, 2) if killed.startswith("1") else (2, 1)
    assert f"the number of ranks changes from {before} to {now}: the result is the same to rounding" in said


def test_the_others_say_that_a_rank_is_lost(done: Done) -> None:
    said = done.said("2 to 1, killed", 0)
    assert "rank 0 of 2 lost contact with the others" in said
    assert "the last checkpoint is whole, --resume goes on from it" in said


def test_an_error_of_all_is_said_once(done: Done) -> None:
    assert done.statuses["bad jet, 2"] == [2, 2]
    assert "error the loss or its gradient is not finite in epoch 1, batch 3" in done.said("bad jet, 2", 0)
    assert "jet.leading: 1 value not finite or extreme, the worst nan" in done.said("bad jet, 2", 0)
    assert done.said("bad jet, 2", 1).startswith("silent the loss or its gradient is not finite")


def test_a_signal_to_one_ends_all_after_it_is_saved(done: Done) -> None:
    assert done.statuses["signalled, 2"] == [75, 75]
    for rank in range(2):
        said = done.said("signalled, 2", rank)
        assert "last.pt is there: True" in said
        assert "interrupted by SIGUSR1 after step" in said
    assert "going on with what SIGUSR1 interrupted" in done.said("asked to stop", 0)
    whole, run = done.run("mlp, 2 in float32"), done.run("asked to stop")
    one, two = load_weights(whole / "member_0" / BEST), load_weights(run / "member_0" / BEST)
    assert all(torch.equal(x, two[name]) for name, x in one.items())
    assert metrics(run) == metrics(whole)


def test_an_error_of_one_ends_the_others(done: Done) -> None:
    assert done.statuses["mistake, 2"] == [2, 2]
    assert done.said("mistake, 2", 1) == "error a file has vanished\n"
    assert "error rank 0 of 2 lost contact with the others" in done.said("mistake, 2", 0)


def test_nobody_waits_for_a_rank_that_has_ended(done: Done) -> None:
    assert done.statuses["mistake in members, 2"] == [2, 2]
    assert "error a file has vanished" in done.said("mistake in members, 2", 1)
    assert "error rank 1 of 2 ended with an error of its own" in done.said("mistake in members, 2", 0)


def test_a_killed_rank_is_not_waited_for_longer_than_its_timeout(done: Done) -> None:
    assert done.statuses["members, one killed"] == [2, -9]
    said = done.said("members, one killed", 0)
    assert "error rank 1 of 2 was silent for 10 s (training.rank_timeout): it was killed" in said
    assert "trained to the end: members 0, 2 (--merge" in said
    assert "not trained yet, or not to the end: member 1" in said


def test_members_spread_over_ranks_are_those_of_the_loop(done: Done) -> None:
    alone, spread = done.run("members, 1"), done.run("members, 2")
    one, two = (
        np.frombuffer((run / "tagger" / "weights.safetensors").read_bytes(), np.uint8)
        for run in (alone, spread)
    )
    assert np.array_equal(one, two)
    assert [metrics(alone, k) for k in range(3)] == [metrics(spread, k) for k in range(3)]
    assert "member 1: epoch 2/2" in done.said("members, 2", 1)
    assert "member 1" not in done.said("members, 2", 0).replace("3 of 3 members", "")


def test_folds_spread_over_ranks_are_those_of_the_loop(done: Done) -> None:
    alone, spread = done.run("folds, 1"), done.run("folds, 2")
    one, two = ((run / "tagger" / "weights.safetensors").read_bytes() for run in (alone, spread))
    assert one == two
    for fold in range(3):
        first, second = (metrics(run / f"fold_{fold}") for run in (alone, spread))
        assert first == second
    assert ["fold 1, member 0: epoch" in done.said("folds, 2", rank) for rank in range(2)] == [False, True]


def test_torchrun_restarts_after_a_killed_rank(done: Done, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["--max-restarts=1", str(Path(__file__).with_name("ranks.py")), "torchrun", "1", "7"]
    command += ["train", str(done.folder / "config.yaml"), "--output", str(tmp_path / "run")]
    command += [part for override in EVERY_STEP for part in ("--set", override)]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert "going on with what the loss of a rank interrupted" in result.stdout
    assert "resuming after step 7 of" in result.stderr
    assert (tmp_path / "run" / "run.json").exists()
    assert metrics(tmp_path / "run") == metrics(done.run("mlp, 2 in float32"))
