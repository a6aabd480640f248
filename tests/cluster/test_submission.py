"""`jettagger submit`, with stand-ins for the schedulers' programs."""

import json
import re
from pathlib import Path

import pytest
import yaml

from jettagger import configuration
from jettagger.cluster import programs
from jettagger.cluster.submission import submit

STAND_INS = {
    "sbatch": 'echo "$@" >> "$CALLS/sbatch"; [ ! -e "$CALLS/meanwhile" ] || . "$CALLS/meanwhile";'
    ' [ ! -e "$CALLS/refuse" ] || [ $(wc -l < "$CALLS/sbatch") -lt 3 ] ||'
    ' { echo "invalid account" >&2; exit 1; }; echo "$((100 + $(wc -l < "$CALLS/sbatch")));cluster"',
    "squeue": '[ ! -e "$CALLS/queue" ] || cat "$CALLS/queue"',
    "scancel": 'echo "$@" >> "$CALLS/scancel"; [ ! -e "$CALLS/lost" ] || { echo "no connection" >&2; exit 1; }',
    "condor_submit_dag": 'echo "$@" >> "$CALLS/dag"; touch "$3.condor.sub";'
    ' [ ! -e "$CALLS/meanwhile" ] || . "$CALLS/meanwhile"; [ ! -e "$CALLS/refuse" ] ||'
    ' { echo "no such group" >&2; exit 1; }; [ ! -e "$CALLS/silent" ] || { echo done; exit; };'
    ' echo "1 job(s) submitted to cluster 55."',
    "condor_q": '[ ! -e "$CALLS/queue" ] || cat "$CALLS/queue"',
}


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The folder in which the stand-ins write down how they were called."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    folder = tmp_path / "calls"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(folder))
    return folder


def words(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_jobs_wait_for_each_other_and_are_recorded(command, calls, toy_folder, tmp_path):
    run = tmp_path / "a run"
    done = command(
        *("submit", toy_folder / "config.yaml", "--scheduler", "slurm", "--output", run),
        *("--set", "ensemble.members=3"),
    )
    assert (done.status, done.error) == (0, "")
    assert done.out.splitlines() == [
        *("prepare: job 101", "train: job 102, 3 tasks", "merge: job 103", "evaluate: job 104"),
        f"jettagger status '{run}'",
    ]
    jobs = run / "jobs"
    assert words(calls / "sbatch") == [
        f"--parsable {jobs / 'prepare.sh'}",
        f"--parsable --dependency=afterok:101 --kill-on-invalid-dep=yes {jobs / 'train.sh'}",
        f"--parsable --dependency=afterany:102 --kill-on-invalid-dep=yes {jobs / 'merge.sh'}",
        f"--parsable --dependency=afterok:103 --kill-on-invalid-dep=yes {jobs / 'evaluate.sh'}",
    ]
    record = json.loads((run / "jobs.json").read_text())
    assert [(job["name"], job["id"], len(job["tasks"])) for job in record["jobs"]] == [
        *(("prepare", "101", 1), ("train", "102", 3), ("merge", "103", 1), ("evaluate", "104", 1))
    ]
    assert record["jobs"][1]["tasks"][2] == {"run": str(run), "fold": None, "member": 2}
    # The config is what was asked for, whatever becomes of the YAML.
    assert yaml.safe_load((jobs / "config.yaml").read_text())["ensemble"]["members"] == 3
    again = configuration.load(jobs / "config.yaml")
    assert again == configuration.load(toy_folder / "config.yaml", ["ensemble.members=3"])


def test_dry_run_prints_all_and_writes_nothing(command, toy_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    for scheduler, program in (("slurm", "sbatch"), ("htcondor", "condor_submit_dag")):
        done = command("submit", toy_folder / "config.yaml", "--scheduler", scheduler, "--dry-run")
        assert (done.status, done.error) == (0, "")
        assert f"# {tmp_path}/runs/config/jobs/train.sh\n#!/bin/bash\n" in done.out
        assert re.search(rf"^{program} ", done.out, re.M)
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_live_jobs_is_not_submitted_again(command, calls, toy_folder, tmp_path):
    arguments = ("submit", toy_folder / "config.yaml", "--scheduler", "slurm", "--output", tmp_path / "run")
    assert command(*arguments).status == 0
    (calls / "queue").write_text("101|RUNNING|None\n102|PENDING|Dependency\n7|RUNNING|None\n")
    refused = command(*arguments)
    assert refused.status == 2
    assert (
        "has jobs that are alive (train running, evaluate waiting (Dependency)): wait, cancel"
        in refused.error
    )
    assert command(*arguments, "--dry-run").status == 0
    assert len(words(calls / "sbatch")) == 2
    assert command(*arguments, "--again").status == 0
    (calls / "queue").write_text("103|COMPLETED|None\n")
    assert command(*arguments).status == 0


def test_when_a_job_is_refused_the_others_are_cancelled(command, calls, toy_folder, tmp_path):
    (calls / "refuse").touch()
    run = tmp_path / "new" / "run"
    arguments = ("submit", toy_folder / "config.yaml", "--scheduler", "slurm", "--output", run)
    refused = command(*arguments, "--set", "ensemble.members=2")
    assert refused.status == 2
    assert refused.error == (
        f"jettagger: error: job merge: sbatch refuses: invalid account; {run} is left as it was, --dry-run prints"
        " the scripts\n"
    )
    assert words(calls / "scancel") == ["101 102"]
    assert not run.parent.exists()
    (calls / "refuse").unlink()
    assert command(*arguments).status == 0


@pytest.mark.parametrize("scheduler", ["slurm", "htcondor"])
def test_a_refused_submission_leaves_an_earlier_one_as_it_was(
    command, calls, toy_folder, tmp_path, scheduler
):
    run = tmp_path / "run"
    arguments = ("submit", toy_folder / "config.yaml", "--scheduler", scheduler, "--output", run)
    assert command(*arguments).status == 0
    (run / "jobs" / "train.status").write_text("1\n")

    def files():
        return {path: (path.read_bytes(), path.stat().st_mode) for path in run.rglob("*") if path.is_file()}

    before = files()
    (calls / "refuse").touch()
    refused = command(*arguments, "--set", "ensemble.members=2", "--set", "cluster.time=01:00")
    assert refused.status == 2
    assert re.search(rf"refuses: (invalid account|no such group); {run} is left as it was", refused.error)
    assert files() == before


@pytest.mark.parametrize("scheduler", ["slurm", "htcondor"])
def test_what_jobs_that_are_alive_write_meanwhile_stays(command, calls, toy_folder, tmp_path, scheduler):
    run = tmp_path / "run"
    jobs = run / "jobs"
    arguments = (
        *("submit", toy_folder / "config.yaml", "--scheduler", scheduler, "--output", run),
        *("--set", "ensemble.members=3"),
    )
    assert command(*arguments).status == 0
    for name in ("train_0.status", "train_0.killed", "train_1.status", "prepare.status", "prepare.started"):
        (jobs / name).write_text("75\n")
    (calls / "meanwhile").write_text(
        f"cd {jobs}; echo 0 > train_0.status; [ -e train_2.killed ] || echo again >> train_0.killed\n"
        "rm -f train_1.status; touch train_1.started; echo killed > train_2.killed; touch jobs.dag.rescue001\n"
    )

    def files():
        return {path.name: path.read_text() for path in jobs.iterdir()}

    before = files()
    (calls / "sbatch").unlink(missing_ok=True)
    (calls / "refuse").touch()
    refused = command(*arguments, "--again", "--set", "cluster.time=01:00")
    assert refused.status == 2
    assert re.search(rf"refuses: (invalid account|no such group); {run} is left as it was", refused.error)
    written = {
        **{"train_0.status": "0\n", "train_0.killed": "75\nagain\n", "train_1.started": ""},
        **{"train_2.killed": "killed\n", "jobs.dag.rescue001": ""},
    }
    assert files() == {name: text for name, text in before.items() if name != "train_1.status"} | written
    (calls / "refuse").unlink()
    (calls / "meanwhile").write_text(f"echo 1 > {jobs}/train_0.status; touch {jobs}/train_1.started\n")
    assert command(*arguments, "--again").status == 0
    ends = {name for name in files() if name.endswith((".status", ".killed", ".started"))}
    assert ends == {"train_0.status", "train_1.started"}


def test_a_refused_sweep_leaves_nothing(command, calls, toy_folder, tmp_path):
    (calls / "refuse").touch()
    run, swept = tmp_path / "s", "sweep={grid: {model.dropout: [0.0, 0.2]}}"
    arguments = ("submit", toy_folder / "config.yaml", "--scheduler", "slurm", "--sweep", "--output", run)
    assert "job table: sbatch refuses: invalid account" in command(*arguments, "--set", swept).error
    assert not run.exists()
    (calls / "refuse").unlink()
    other = "sweep={grid: {model.dropout: [0.1]}}"
    assert command(*arguments, "--set", other).status == 0
    kept = (run / "jobs" / "sweep.yaml").read_text()
    refused = command(*arguments, "--set", swept)
    assert refused.error == f"jettagger: error: {run} holds another sweep: choose another --output\n"
    assert (run / "jobs" / "sweep.yaml").read_text() == kept


def test_where_jobs_may_be_in_the_queue_their_files_stay(command, calls, toy_folder, tmp_path):
    (calls / "refuse").touch()
    (calls / "lost").touch()
    run = tmp_path / "run"
    arguments = ("submit", toy_folder / "config.yaml", "--output", run, "--set", "ensemble.members=2")
    unclear = command(*arguments, "--scheduler", "slurm")
    assert unclear.status == 2
    assert unclear.error == (
        "jettagger: error: job merge: sbatch refuses: invalid account; jobs 101, 102 are in the queue still, since"
        f" scancel refuses: no connection; the scripts are kept in {run / 'jobs'}\n"
    )
    assert (run / "jobs" / "train.sh").exists()
    assert not (run / "jobs.json").exists()


def test_no_answer_is_no_refusal(monkeypatch):
    monkeypatch.setattr(programs, "PATIENCE", 0.05)
    with pytest.raises(programs.UnclearError, match=r"sbatch has not answered for 0.05 s"):
        programs.call(["sleep", "5"], "sbatch")


def test_a_dag_without_a_number_keeps_its_files(command, calls, toy_folder, tmp_path):
    (calls / "silent").touch()
    run = tmp_path / "run"
    unclear = command(
        *("submit", toy_folder / "config.yaml", "--output", run, "--scheduler", "htcondor"),
    )
    assert unclear.error == (
        f"jettagger: error: condor_submit_dag says no number: done; the scripts are kept in {run / 'jobs'}\n"
    )
    assert (run / "jobs" / "jobs.dag").exists()


def test_a_dag_is_handed_over(command, calls, toy_folder, tmp_path):
    run = tmp_path / "run"
    arguments = ("submit", toy_folder / "config.yaml", "--scheduler", "htcondor", "--output", run)
    assert command(*arguments).status == 0
    assert words(calls / "dag") == [f"-usedagdir -force {run / 'jobs' / 'jobs.dag'}"]
    assert {job["id"] for job in json.loads((run / "jobs.json").read_text())["jobs"]} == {"55"}
    queue = [
        {"ClusterId": 55, "JobStatus": 2},
        {"ClusterId": 56, "JobStatus": 5, "DAGNodeName": "train", "HoldReason": "no disk"},
    ]
    (calls / "queue").write_text(json.dumps(queue))
    refused = command(*arguments)
    assert "has jobs that are alive (dag running, train held (no disk))" in refused.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scheduler", "slrum"), r"--scheduler: unknown scheduler 'slrum': did you mean 'slurm'\?"),
        (("--scheduler", "slurm", "--output", "file"), "file is a file; a run is a folder"),
        (("--scheduler", "slurm", "--output", "swept"), "swept holds a sweep: submit it with --sweep"),
        (("--scheduler", "slurm", "--output", "a\nb"), "a batch script cannot name this folder"),
        (("--scheduler", "slurm", "--set", "cluster.cpu=2"), "cluster.cpu: unknown key"),
        (("--scheduler", "slurm", "--sweep"), "the config has no section 'sweep'"),
        (
            (
                "--scheduler",
                "slurm",
                "--sweep",
                "--output",
                "run",
                "--set",
                "sweep={grid: {model.dropout: [0]}}",
            ),
            "run holds a run, not a sweep",
        ),
        (
            ("--scheduler", "htcondor", "--set", "cluster.slurm.nodes=2"),
            "a job of HTCondor is on one machine",
        ),
    ],
)
def test_mistakes_end_before_anything_is_written(
    command, calls, toy_folder, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept" / "sweep.json").touch()
    (tmp_path / "run" / "member_0").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    refused = command("submit", toy_folder / "config.yaml", *arguments)
    assert refused.status == 2
    assert re.search(message, refused.error)
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_scheduler_it_says_so(command, toy_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    neither = command("submit", toy_folder / "config.yaml", "--output", tmp_path / "run")
    assert "neither sbatch nor condor_submit_dag is here: say --scheduler" in neither.error
    lacking = command(
        "submit", toy_folder / "config.yaml", "--output", tmp_path / "run", "--scheduler", "slurm"
    )
    assert "sbatch is not on this machine: submit from one where it is" in lacking.error
    assert not (tmp_path / "run").exists()


def test_a_sweep_is_an_array_of_points(calls, toy_folder, tmp_path):
    resolve = configuration.resolver(
        toy_folder / "config.yaml", ["sweep={grid: {model.dropout: [0.0, 0.2]}, seeds: [1, 2]}"]
    )
    said: list[str] = []
    submit(resolve, tmp_path / "s", scheduler="slurm", sweep=True, say=said.append)
    assert said[:3] == ["prepare: job 101", "train: job 102, 4 tasks", "table: job 103"]
    point = configuration.load(tmp_path / "s" / "jobs" / "point_003.yaml")
    assert (point.model.dropout, point.training.seed, point.sweep) == (0.2, 2, None)  # type: ignore[attr-defined]
    script = (tmp_path / "s" / "jobs" / "train.sh").read_text()
    assert (
        f"    3) arguments=(train {tmp_path}/s/jobs/point_003.yaml --output {tmp_path}/s/point_003 " in script
    )


def test_without_test_jets_nothing_is_evaluated(command, toy_folder, tmp_path):
    text = (toy_folder / "config.yaml").read_text()
    path = tmp_path / "config.yaml"
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("  test:")))
    untested = command("submit", path, "--scheduler", "slurm", "--dry-run").out
    assert "/train.sh" in untested
    assert "/evaluate.sh" not in untested
    folds = command("submit", path, "--scheduler", "slurm", "--dry-run", "--set", "data.folds={k: 2}").out
    assert "/evaluate.sh" in folds
