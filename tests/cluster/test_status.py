"""`jettagger status`: what it reads off a run, and what the queue adds."""

import json
import os
import shutil
import time

import pytest

from jettagger.cluster.records import JobRecord, Submission, TaskRecord
from jettagger.cluster.status import status_of


@pytest.fixture
def run(trained_run, tmp_path):
    """A run of two members that have ended."""
    return shutil.copytree(trained_run, tmp_path / "run")


def states(run):
    (one,) = status_of(run).runs
    return [(member.state, member.reason) for member in one.members]


def submitted(run, monkeypatch, tmp_path, queue, *, tasks=2):
    """As if it had been submitted to Slurm, whose squeue prints `queue`."""
    records = [{"run": str(run), "fold": None, "member": k} for k in range(tasks)]
    jobs = [{"name": "train", "id": "12", "tasks": records}]
    document = {"format": 1, "scheduler": "slurm", "submitted": "2026-01-01T00:00:00Z", "jobs": jobs}
    (run / "jobs.json").write_text(json.dumps(document))
    (run / "jobs").mkdir(exist_ok=True)
    (run / "logs").mkdir(exist_ok=True)
    program = tmp_path / "squeue"
    program.write_text(f"#!/bin/bash\nprintf '%s' '{queue}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def unfinished(run, member):
    (run / f"member_{member}" / "result.json").unlink()


def test_a_run_that_is_done(command, run):
    shown = command("status", run)
    assert shown.status == 0
    lines = shown.out.splitlines()
    assert lines[1].startswith("  member 0: done, epoch 2 of 2; validation loss ")
    assert lines[-1] == "2 done; its tagger is there"
    document = json.loads(command("status", run, "--json").out)
    (one,) = document["runs"]
    history = [json.loads(line) for line in (run / "member_0" / "metrics.jsonl").read_text().splitlines()]
    assert one["counts"] == {"done": 2}
    assert one["members"][0]["last"]["validation_loss"] == history[-1]["validation_loss"]
    assert (
        one["members"][0]["best"]["epoch"]
        == json.loads((run / "member_0" / "result.json").read_text())["best_epoch"]
    )
    assert one["members"][0]["checkpoint_age"] is None


def test_what_a_member_that_is_not_done_is_doing(run):
    unfinished(run, 0)
    assert states(run) == [("running", None), ("done", None)]
    for path in (run / "member_0").iterdir():
        os.utime(path, (time.time() - 7200,) * 2)
    assert states(run)[0] == ("interrupted", "no sign of life for 120 min")
    (member, _) = status_of(run).runs[0].members
    assert member.checkpoint_age == pytest.approx(7200, abs=60)
    (run / "member_0" / "interrupted.json").write_text("{}")
    assert states(run)[0] == ("interrupted", "the same command goes on")
    (run / "member_0" / "failed.json").write_text('{"reason": "the loss is NaN"}')
    assert states(run)[0] == ("failed", "the loss is NaN")
    shutil.rmtree(run / "member_0")
    assert states(run)[0] == ("waiting", None)


def test_a_failed_member_is_said(command, run):
    unfinished(run, 1)
    (run / "member_1" / "failed.json").write_text('{"reason": "the loss is NaN"}')
    out = command("status", run).out
    assert "member 1: failed, epoch 2 of 2; " in out
    assert out.endswith(
        "1 failed, 1 done; its tagger is there\nfailed: member 1; the tagger uses the others\n"
    )


def test_a_line_that_is_being_written_is_left_out(run):
    unfinished(run, 0)
    path = run / "member_0" / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    assert status_of(run).runs[0].members[0].epochs == 1


def test_the_queue_says_who_runs_and_who_waits(run, monkeypatch, tmp_path):
    unfinished(run, 0)
    shutil.rmtree(run / "member_1")
    submitted(run, monkeypatch, tmp_path, "12_0|RUNNING|None\n12_1|PENDING|Resources\n")
    assert states(run) == [("running", None), ("waiting", "in the queue (Resources)")]
    submitted(run, monkeypatch, tmp_path, "12_0|PENDING|BeginTime\n")
    assert states(run) == [
        ("interrupted", "in the queue (BeginTime)"),
        ("failed", "its job is gone and never began: was it cancelled?"),
    ]
    assert status_of(run).runs[0].members[0].job == "12_0"


def test_a_job_that_ended_badly_is_a_failure_with_its_words(run, monkeypatch, tmp_path):
    unfinished(run, 0)
    shutil.rmtree(run / "member_1")
    submitted(run, monkeypatch, tmp_path, "")
    (run / "jobs" / "train_0.status").write_text("137\n")
    (run / "jobs" / "train_0.killed").write_text("a\nb\n")
    (run / "jobs" / "train_1.status").write_text("2\n")
    (run / "logs" / "train_1_12.log").write_text("epoch 1\njettagger: error: no such file\n")
    found = status_of(run)
    assert states(run) == [
        ("failed", "exit status 137"),
        ("failed", f"no such file, see {run / 'logs' / 'train_1_12.log'}"),
    ]
    assert found.runs[0].members[0].kills == 2
    assert [(job.name, job.state) for job in found.jobs] == [("train", "1 failed (137), 1 failed (2)")]


def test_a_scheduler_that_cannot_be_asked_is_said(command, run, monkeypatch, tmp_path):
    submitted(run, monkeypatch, tmp_path, "")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "squeue is not on this machine" in command("status", run).out


def test_folds_lie_in_folders_of_their_own(run):
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("  folds: null\n", "  folds: {k: 2, by: event_number}\n"))
    assert (run / "config.yaml").read_text() != config
    (run / "fold_1").mkdir()
    (run / "member_0").rename(run / "fold_1" / "member_0")
    members = status_of(run).runs[0].members
    assert [(one.fold, one.member, one.state) for one in members] == [
        *((0, 0, "waiting"), (0, 1, "waiting"), (1, 0, "done"), (1, 1, "waiting"))
    ]
    assert members[2].name == "fold 1, member 0"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("jobs.json", "{", "jobs.json: is damaged"),
        ("jobs.json", '{"format": 9}', "jobs.json: written in format 9, this version reads 1"),
        ("sweep.json", "{}", "sweep.json: is damaged"),
        ("sweep.json", '{"format": 9}', "sweep.json: written in format 9, this version reads 1"),
    ],
)
def test_damaged_records_are_said(command, run, name, text, message):
    (run / name).write_text(text)
    shown = command("status", run)
    assert shown.status == 2
    assert message in shown.error


def test_what_is_no_run_is_said(command, tmp_path):
    shown = command("status", tmp_path)
    assert (shown.status, shown.error) == (
        2,
        f"jettagger: error: {tmp_path} is no run: it holds neither config.yaml nor jobs/config.yaml\n",
    )


def test_names_of_tasks():
    record = JobRecord("train", "1", (TaskRecord("a", None, 0), TaskRecord("a", None, 1)))
    assert record.task_name(1) == "train_1"
    assert JobRecord("merge", "2", (TaskRecord("a", None, None),)).task_name(0) == "merge"
    assert Submission("slurm", "", (record,)).jobs[0] is record
