"""A real Slurm on this machine: an array of members is killed, preempted and warned, goes on, is merged, evaluated."""

import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
import slurm_daemons
import torch

from jettagger import configuration
from jettagger.cluster.records import read_submission
from jettagger.cluster.status import status_of
from jettagger.cluster.submission import submit
from jettagger.training import checkpoints
from jettagger.training import run as training

SOURCE = Path(__file__).parents[2] / "src"
MISSING = slurm_daemons.missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]

EPOCHS = 120
"""Enough for each member to be found at work; a few seconds."""
TRAINING = (
    *("ensemble.members=3", f"training.epochs={EPOCHS}", "training.threads=1", "training.precision=float32"),
    "evaluation.bootstrap=0",
)
CLUSTER = "cluster={time: '00:10:00', warning: 30, cpus: 1, memory: 500M}"


@pytest.fixture(scope="module")
def slurm() -> Iterator[Mapping[str, str]]:
    with slurm_daemons.slurm() as environment:
        yield environment


@pytest.fixture
def here(slurm, monkeypatch) -> None:
    """This process and its jobs reach that Slurm, and find the package."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm[name])
    monkeypatch.setenv("PYTHONPATH", f"{SOURCE}:{os.environ.get('PYTHONPATH', '')}")


def wait_for(what: Callable[[], bool], words: str, run: Path, seconds: float = 240) -> None:
    """Until it is true; a failure shows what the jobs printed."""
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            logs = "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(run.glob("logs/*")))
            queue = subprocess.run(["squeue", "-r"], capture_output=True, text=True, check=False).stdout
            pytest.fail(f"not within {seconds:.0f} s: {words}\n{queue}\n{logs}")
        time.sleep(0.25)


def epochs(run: Path, member: int) -> list[int]:
    path = run / f"member_{member}" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["epoch"] for line in lines if line.endswith("}")]


def process_of(run: Path, member: int) -> psutil.Process:
    """The training of a member, not the script around it."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if (
            "jettagger" in words
            and str(run) in words
            and words[words.index("--member") + 1 :][:1] == [str(member)]
        ):
            return process
    raise LookupError(f"member {member} does not run")


def finished(run: Path) -> bool:
    """Whether none of its jobs is in the queue any more."""
    submission = read_submission(run)
    assert submission is not None
    listed = subprocess.run(
        ["squeue", "--noheader", "--format=%F"], capture_output=True, text=True, check=True
    ).stdout.split()
    return not {job.id for job in submission.jobs} & set(listed)


def test_members_that_are_killed_preempted_or_warned_go_on(here, toy_folder, tmp_path):
    run = tmp_path / "a run"
    config = toy_folder / "config.yaml"
    submit(
        configuration.resolver(config, [*TRAINING, CLUSTER]), run, scheduler="slurm", say=lambda line: None
    )
    submission = read_submission(run)
    assert submission is not None
    array = next(job.id for job in submission.jobs if job.name == "train")

    def disturb(member: int, how: Callable[[], object]) -> None:
        wait_for(lambda: len(epochs(run, member)) >= 3, f"member {member} trains", run)
        how()

    disturb(0, lambda: process_of(run, 0).kill())
    disturb(1, lambda: subprocess.run(["scontrol", "requeue", f"{array}_1"], check=True))
    wait_for(
        lambda: status_of(run).runs[0].members[1].state == "interrupted", "member 1 is in the queue", run
    )
    # What Slurm does before the end of the wall time (--signal=B:USR1).
    disturb(2, lambda: subprocess.run(["scancel", "--batch", "--signal=USR1", f"{array}_2"], check=True))
    wait_for(lambda: finished(run), "all jobs have ended", run)

    status = status_of(run)
    assert [(job.name, job.state) for job in status.jobs] == [
        *(("prepare", "done"), ("train", "3 done"), ("merge", "done"), ("evaluate", "done"))
    ]
    (one,) = status.runs
    assert [(member.state, member.epochs, member.kills) for member in one.members] == [
        *(("done", EPOCHS, 1), ("done", EPOCHS, 0), ("done", EPOCHS, 0))
    ]
    for member in range(3):
        log = (run / "logs" / f"train_{member}_{array}.log").read_text()
        assert log.count(": jettagger train ") == 2, log
        assert epochs(run, member) == list(range(1, EPOCHS + 1))
    assert json.loads((run / "tagger" / "card.json").read_text())["members"] == 3
    assert json.loads((run / "report" / "report.json").read_text())["runs"]

    undisturbed = tmp_path / "undisturbed"
    recipe = configuration.recipe(configuration.load(config, TRAINING))
    training.train(recipe, undisturbed, member=0, say=lambda line: None)
    one, other = (
        checkpoints.load_weights(where / "member_0" / checkpoints.BEST) for where in (run, undisturbed)
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


STAND_IN = """\
#!/bin/bash
# In the place of `python -m jettagger`: fails as it is told.
calls="$(dirname "$0")/calls"
trap 'echo told >> "$calls"; exit 75' TERM  # before the call is written, on which the test waits
echo "$@" >> "$calls"
case "$*" in
    *"--member 1"*) exit 2 ;;
    *"--member 3"*) while true; do sleep 0.1; done ;;
    *--merge*) exit {merge} ;;
esac
"""


def submit_with_stand_in(toy_folder: Path, folder: Path, merge: int, *overrides: str) -> None:
    """Jobs that train nothing and end at once, with what Slurm makes of it."""
    program = folder / "python"
    program.write_text(STAND_IN.format(merge=merge))
    program.chmod(0o755)
    section = f"{CLUSTER[:-1]}, python: {program}}}"
    resolve = configuration.resolver(toy_folder / "config.yaml", [*TRAINING, section, *overrides])
    submit(resolve, folder / "run", scheduler="slurm", say=lambda line: None)


@pytest.mark.parametrize(("merge", "evaluated"), [(0, True), (2, False)])
def test_a_member_that_fails_does_not_stop_the_merge(here, toy_folder, tmp_path, merge, evaluated):
    run = tmp_path / "run"
    submit_with_stand_in(toy_folder, tmp_path, merge)
    wait_for(lambda: finished(run), "all jobs have ended", run, 90)
    calls = (tmp_path / "calls").read_text().splitlines()
    kinds = [
        next(word for word in ("--merge", "--member", "prepare", "evaluate") if word in call)
        for call in calls
    ]
    assert [kind for kind, _ in itertools.groupby(kinds)] == [
        *("prepare", "--member", "--merge"),
        *(["evaluate"] if evaluated else []),
    ]
    assert kinds.count("--member") == 3  # exit status 2 is not queued again
    states = {job.name: job.state for job in status_of(run).jobs}
    assert states["train"] == "2 done, 1 failed (2)"
    assert states["merge"] == ("done" if evaluated else "failed (2)")
    assert states["evaluate"] == ("done" if evaluated else "not begun")


def test_a_cancelled_job_does_not_come_back(here, toy_folder, tmp_path):
    run = tmp_path / "run"
    submit_with_stand_in(toy_folder, tmp_path, 0, "ensemble.members=4")
    calls = tmp_path / "calls"
    wait_for(lambda: calls.exists() and "--member 3" in calls.read_text(), "it trains", run, 60)
    submission = read_submission(run)
    assert submission is not None
    subprocess.run(["scancel", *(job.id for job in submission.jobs)], check=True)
    wait_for(lambda: finished(run), "all jobs have ended", run, 60)
    assert "told" in calls.read_text().splitlines()
    assert (run / "jobs" / "train_3.status").read_text() == "75\n"
    assert calls.read_text().count("--member 3") == 1


def test_nothing_is_left_behind(toy_folder):
    with slurm_daemons.slurm() as environment:
        folder = Path(environment["SLURM_CONF"]).parent
        running = [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if str(folder) in str(process.info["cmdline"])
        ]
        assert len(running) >= 3
        subprocess.run(
            ["sbatch", "--output=/dev/null", "--wrap=trap '' TERM; sleep 300"],
            env=dict(environment),
            check=True,
        )
        time.sleep(3)
    assert not folder.exists()
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline", "cwd"])
        if str(folder) in f"{process.info['cmdline']} {process.info['cwd']}"
        or process.info["cmdline"] == ["sleep", "300"]
    ]
    assert left == []


def test_two_processes_share_a_training_and_go_on_together(here, toy_folder, tmp_path):
    run = tmp_path / "run"
    shared = f"{CLUSTER[:-1]}, processes: 2, evaluate: false}}"
    overrides = [*TRAINING, "ensemble.members=1", shared]
    submit(
        configuration.resolver(toy_folder / "config.yaml", overrides),
        run,
        scheduler="slurm",
        say=lambda line: None,
    )
    submission = read_submission(run)
    assert submission is not None
    (job,) = submission.jobs
    wait_for(lambda: len(epochs(run, 0)) >= 3, "it trains", run)
    subprocess.run(["scancel", "--batch", "--signal=USR1", job.id], check=True)
    wait_for(lambda: finished(run), "all jobs have ended", run)
    log = (run / "logs" / f"train_{job.id}.log").read_text()
    assert log.count(": jettagger train ") == 2, log
    assert epochs(run, 0) == list(range(1, EPOCHS + 1))
    (member,) = status_of(run).runs[0].members
    assert (member.state, member.kills) == ("done", 0)
    assert "2 ranks" in log or "2 processes" in log, log
