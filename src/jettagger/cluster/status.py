"""`jettagger status`: how far a run or a sweep is, as a table or JSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jettagger import yaml_source
from jettagger.cluster import htcondor, slurm
from jettagger.cluster.plan import CONFIG, JOBS, LOGS
from jettagger.cluster.progress import Member, State, Work, look
from jettagger.cluster.records import JobRecord, Submission, read_submission
from jettagger.cluster.sweep import Point, read_sweep
from jettagger.errors import JettaggerError

BACKENDS = {"slurm": slurm, "htcondor": htcondor}
STATES: tuple[State, ...] = ("waiting", "running", "interrupted", "failed", "done")


@dataclass(frozen=True)
class RunStatus:
    """How far one run is; a sweep has several."""

    name: str
    members: tuple[Member, ...]
    tagger: bool
    """Whether its bundle is there."""
    point: Point | None = None
    """Which values of a sweep it tries."""

    @property
    def counts(self) -> dict[State, int]:
        """How many trainings are in each state."""
        states = [member.state for member in self.members]
        return {state: states.count(state) for state in STATES if state in states}


@dataclass(frozen=True)
class JobStatus:
    """A job that trains nothing, or the training as a whole."""

    name: str
    id: str
    state: str
    """Of its tasks: what the scheduler says, or how they ended."""


@dataclass(frozen=True)
class Status:
    """How far all is."""

    run: Path
    runs: tuple[RunStatus, ...]
    jobs: tuple[JobStatus, ...]
    note: str | None
    """Why the scheduler could not be asked."""


def status_of(run: Path) -> Status:
    """Reads a run, submitted or not. Raises JettaggerError when there is none."""
    run = run.absolute()
    sweep, submission = read_sweep(run), read_submission(run)
    queue, note = _queue(submission)
    works = dict(_works(run, submission, queue, known=note is None)) if submission is not None else {}
    if sweep is None:
        runs = [_run_status(run, _document(run), works)]
    else:
        runs = [
            _run_status(run / point.name, _read(run / JOBS / f"{point.name}.yaml"), works, point)
            for point in sweep.points
        ]
    jobs = [_job_status(run, job, queue) for job in submission.jobs] if submission is not None else []
    return Status(run, tuple(runs), tuple(jobs), note)


def _queue(submission: Submission | None) -> tuple[Mapping[str, str], str | None]:
    """What the scheduler says of the tasks that are alive; or why it cannot be asked."""
    if submission is None:
        return {}, "not submitted to a batch system"
    try:
        return BACKENDS[submission.scheduler].states(submission.jobs), None
    except JettaggerError as error:
        return {}, str(error)


def _works(
    run: Path, submission: Submission, queue: Mapping[str, str], *, known: bool
) -> Iterator[tuple[tuple[str, int | None, int | None], Work]]:
    """The tasks that train, by what they train."""
    for job in submission.jobs:
        if job.name != "train":
            continue
        for number, task in enumerate(job.tasks):
            name = job.task_name(number)
            identity = f"{job.id}_{number}" if len(job.tasks) > 1 else job.id
            key = (task.run, task.fold, task.member)
            # A DAG hands its nodes over one after the other: what it has not yet is waiting.
            later = (
                "waiting"
                if htcondor.OWN_DAG in queue and not (run / JOBS / f"{name}.status").exists()
                else None
            )
            yield key, Work(identity, name, run / JOBS, run / LOGS, queue.get(name, later), known)


def _run_status(
    run: Path,
    document: Mapping[str, Any],
    works: Mapping[tuple[str, int | None, int | None], Work],
    point: Point | None = None,
) -> RunStatus:
    folds = range(document["data"]["folds"]["k"]) if document["data"].get("folds") else [None]
    members, epochs = document["ensemble"]["members"], document["training"]["epochs"]
    found = []
    for fold in folds:
        for member in range(members):
            folder = run / f"member_{member}" if fold is None else run / f"fold_{fold}" / f"member_{member}"
            keys = ((fold, member), (fold, None), (None, member), (None, None))
            work = next((works[str(run), *key] for key in keys if (str(run), *key) in works), None)
            found.append(look(folder, fold, member, epochs, work))
    return RunStatus(run.name, tuple(found), (run / "tagger" / "card.json").exists(), point)


def _document(run: Path) -> Mapping[str, Any]:
    for path in (run / CONFIG, run / JOBS / CONFIG):
        if path.exists():
            return _read(path)
    raise JettaggerError(f"{run} is no run: it holds neither {CONFIG} nor {JOBS}/{CONFIG}")


def _read(path: Path) -> Mapping[str, Any]:
    return yaml_source.read(path).content


def _job_status(run: Path, job: JobRecord, queue: Mapping[str, str]) -> JobStatus:
    states = []
    for number in range(len(job.tasks)):
        name = job.task_name(number)
        ended = run / JOBS / f"{name}.status"
        status = ended.read_text(encoding="utf-8").strip() if ended.exists() else None
        outcome = {None: "not begun", "0": "done", "75": "interrupted"}.get(status, f"failed ({status})")
        states.append(queue.get(name, outcome))
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    said = ", ".join(f"{n} {state}" if len(job.tasks) > 1 else state for state, n in counts.items())
    return JobStatus(job.name, job.id, said)


def as_json(status: Status) -> str:
    """The same with stable keys."""
    document = {
        "run": str(status.run),
        "note": status.note,
        "jobs": [asdict(job) for job in status.jobs],
        "runs": [{**asdict(one), "counts": one.counts} for one in status.runs],
    }
    return json.dumps(document, indent=2, allow_nan=False)


def as_text(status: Status) -> str:
    """A line for each network, the jobs, and what is wrong."""
    lines = [str(status.run)]
    for one in status.runs:
        if one.point is not None:
            lines.append(f"{one.name}: {', '.join(one.point.overrides)}")
        lines += [f"  {_line(member)}" for member in one.members]
    lines += [f"job {job.id} ({job.name}): {job.state}" for job in status.jobs]
    if status.note is not None:
        lines.append(status.note)
    return "\n".join([*lines, *_summary(status)])


def _line(member: Member) -> str:
    parts = [f"{member.state}, epoch {member.epochs} of {member.of_epochs}"]
    if member.last is not None and member.best is not None:
        auc = "" if member.last.auc is None else f", AUC {member.last.auc:.5f}"
        parts.append(f"validation loss {member.last.validation_loss:.4f}{auc}")
        parts.append(f"best {member.best.validation_loss:.4f} in epoch {member.best.epoch}")
    if member.mean is not None:
        parts.append(f"the mean of the weights, which is kept, {member.mean.validation_loss:.4f}")
    if member.checkpoint_age is not None:
        parts.append(f"checkpoint {_duration(member.checkpoint_age)} old")
    if member.job is not None:
        parts.append(f"job {member.job}")
    if member.kills:
        parts.append(f"killed {member.kills} ×")
    reason = f" ({member.reason})" if member.reason else ""
    return f"{member.name}: {'; '.join(parts)}{reason}"


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _summary(status: Status) -> Iterator[str]:
    for one in status.runs:
        name = f"{one.name}: " if one.point is not None else ""
        counts = ", ".join(f"{number} {state}" for state, number in one.counts.items())
        made = "its tagger is there" if one.tagger else "no tagger yet"
        yield f"{name}{counts}; {made}"
        failed = [member.name for member in one.members if member.state == "failed"]
        if failed:
            rest = (
                "the tagger uses the others" if one.tagger else "`jettagger train … --merge` uses the others"
            )
            yield f"{name}failed: {'; '.join(failed)}; {rest}"
