"""Which jobs a submission is made of, and which waits for which: what Slurm and HTCondor are both told.

prepare → train (an array: folds, members, points of a sweep) → merge → evaluate, or the table of a sweep
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jettagger.cluster.schema import ClusterSection

JobName = Literal["prepare", "train", "merge", "evaluate", "table"]

JOBS, LOGS = "jobs", "logs"
"""Folders of a run: configs, scripts and what became of the jobs; what they print."""
CONFIG, SWEEP = "config.yaml", "sweep.yaml"
"""In the first: the config of a run; that of a sweep, beside those of its points."""


@dataclass(frozen=True)
class Task:
    """One process to start: the arguments of `jettagger`, and what it trains."""

    arguments: tuple[str, ...]
    run: Path
    """Where the training lies: the run, or a point of it."""
    fold: int | None = None
    """None: no folds, or all of them."""
    member: int | None = None
    """None: all of them."""


@dataclass(frozen=True)
class Job:
    """Tasks that a scheduler runs side by side, once others have ended."""

    name: JobName
    tasks: tuple[Task, ...]
    after: JobName | None = None
    """The job that it waits for."""
    whatever: bool = False
    """It runs however the job before it ended; otherwise only if that one succeeded."""
    trains: bool = False
    """It needs the GPUs and nodes, saves checkpoints, and goes on after an interruption."""


@dataclass(frozen=True)
class Plan:
    """A submission: its jobs, each after those that it waits for."""

    run: Path
    """Absolute, as all its paths are."""
    folder: Path
    """Where `jettagger submit` was started: what the config's relative paths mean."""
    section: ClusterSection
    jobs: tuple[Job, ...]

    @property
    def scripts(self) -> Path:
        """The folder of scripts, configs, and of what became of the jobs."""
        return self.run / JOBS

    @property
    def logs(self) -> Path:
        """The folder of what the jobs print."""
        return self.run / LOGS


@dataclass(frozen=True)
class Trained:
    """A run to train: where it goes, the config it is trained with, and how many networks it has."""

    run: Path
    config: Path
    folds: int
    """0: none."""
    members: int
    prepared: str
    """Equal for runs that read the same prepared dataset."""
    tested: bool
    """Whether there is something to evaluate it on."""


def make_plan(
    run: Path, section: ClusterSection, trained: Sequence[Trained], *, folder: Path, sweep: bool
) -> Plan:
    """The jobs that train `trained`: one run, or the points of a sweep."""
    tasks = [task for one in trained for task in _tasks(one, section)]
    jobs = []
    if section.prepare and len(tasks) > 1:
        datasets: dict[str, Trained] = {}
        for one in trained:
            datasets.setdefault(one.prepared, one)
        jobs.append(Job("prepare", tuple(_prepare(one, section) for one in datasets.values())))
    jobs.append(Job("train", tuple(tasks), after="prepare" if jobs else None, trains=True))
    if len(tasks) > len(trained):
        merged = tuple(_merge(one) for one in trained)
        jobs.append(Job("merge", merged, after="train", whatever=True))
    last = jobs[-1].name
    if sweep:
        arguments = ("sweep", str(run / JOBS / SWEEP), "--output", str(run), "--table")
        jobs.append(Job("table", (Task(arguments, run),), after=last, whatever=True))
    elif section.evaluate and all(one.tested for one in trained):
        evaluation = tuple(Task(("evaluate", str(one.run)), one.run) for one in trained)
        jobs.append(Job("evaluate", evaluation, after=last))
    return Plan(run, folder, section, tuple(jobs))


def _tasks(one: Trained, section: ClusterSection) -> Iterator[Task]:
    folds = range(one.folds) if one.folds and "folds" in section.jobs else [None]
    members = range(one.members) if one.members > 1 and "members" in section.jobs else [None]
    for fold in folds:
        for member in members:
            chosen = [
                *(() if fold is None else ("--fold", str(fold))),
                *(() if member is None else ("--member", str(member))),
            ]
            workers = ("--workers", str(section.cpus))
            arguments = ("train", str(one.config), "--output", str(one.run), "--resume", *chosen, *workers)
            yield Task(arguments, one.run, fold, member)


def _prepare(one: Trained, section: ClusterSection) -> Task:
    return Task(("prepare", str(one.config), "--workers", str(section.cpus)), one.run)


def _merge(one: Trained) -> Task:
    return Task(("train", str(one.config), "--output", str(one.run), "--merge"), one.run)
