"""RUN/jobs.json: which jobs have been submitted for a run."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from jettagger.cluster.plan import Job, JobName, Plan
from jettagger.errors import JettaggerError
from jettagger.files import write_json

JOBS_FILE = "jobs.json"
FORMAT = 1

Scheduler = Literal["slurm", "htcondor"]


@dataclass(frozen=True)
class TaskRecord:
    """One task of a job: what it trains."""

    run: str
    """Folder, absolute."""
    fold: int | None
    member: int | None


@dataclass(frozen=True)
class JobRecord:
    """One job that was submitted."""

    name: JobName
    id: str
    tasks: tuple[TaskRecord, ...]

    @staticmethod
    def of(job: Job, identity: str) -> "JobRecord":
        """The record of a job that has got a number."""
        tasks = (TaskRecord(str(task.run), task.fold, task.member) for task in job.tasks)
        return JobRecord(job.name, identity, tuple(tasks))

    def task_name(self, number: int) -> str:
        """By which the task's files are called."""
        return self.name if len(self.tasks) == 1 else f"{self.name}_{number}"


@dataclass(frozen=True)
class Submission:
    """All jobs of a run."""

    scheduler: Scheduler
    submitted: str
    """UTC, ISO 8601."""
    jobs: tuple[JobRecord, ...]


def write_submission(plan: Plan, scheduler: Scheduler, jobs: Sequence[JobRecord]) -> Submission:
    """Leaves the jobs in the run."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    submission = Submission(scheduler, now, tuple(jobs))
    write_json(plan.run / JOBS_FILE, {"format": FORMAT, **asdict(submission)})
    return submission


def read_submission(run: Path) -> Submission | None:
    """The last submission of a run, or None. Raises JettaggerError when its record is damaged."""
    path = run / JOBS_FILE
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise JettaggerError(f"{path}: written in format {stored['format']}, this version reads {FORMAT}")
        jobs = tuple(
            JobRecord(job["name"], job["id"], tuple(TaskRecord(**task) for task in job["tasks"]))
            for job in stored["jobs"]
        )
        return Submission(stored["scheduler"], stored["submitted"], jobs)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise JettaggerError(f"{path}: is damaged: {error!r}") from error
