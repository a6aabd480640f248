"""`jettagger submit`: from a config to jobs in a queue.

RUN/jobs/         the config as it was submitted, the scripts, and how each task ended
RUN/logs/         what the tasks print
RUN/jobs.json     the jobs' numbers
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from jettagger.cluster import htcondor, slurm
from jettagger.cluster.plan import CONFIG, JOBS, Plan, Trained, make_plan
from jettagger.cluster.records import JobRecord, Scheduler, read_submission, write_submission
from jettagger.cluster.resolved import Resolve, Resolved
from jettagger.cluster.script import quoted
from jettagger.cluster.sweep import PLAN, checked_points, write_sweep
from jettagger.cluster.undo import ends_forgotten, undone_if_refused
from jettagger.errors import JettaggerError, unknown_name
from jettagger.files import check_writable, written_aside

SCHEDULERS: dict[Scheduler, ModuleType] = {"slurm": slurm, "htcondor": htcondor}
PROGRAMS: dict[Scheduler, str] = {"slurm": "sbatch", "htcondor": "condor_submit_dag"}


def submit(
    resolve: Resolve,
    run: Path,
    *,
    scheduler: Scheduler | None = None,
    sweep: bool = False,
    dry_run: bool = False,
    again: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Checks the config and the run, writes the scripts and hands them to the scheduler.

    `scheduler`: by default the one whose programs are here. `dry_run` prints the scripts and writes nothing;
    `again` submits beside jobs of this run that are alive.

    Raises JettaggerError for what is wrong with config or run before anything is written or submitted. Where the
    scheduler refuses the jobs, the run is left as it was, but for what jobs that are alive write meanwhile.
    """
    scheduler = scheduler or _found()
    run = run.absolute()
    base = resolve([])
    tried, configs = checked_points(resolve) if sweep else (None, {run.name: base})
    plan = _plan(run, base, configs, sweep=sweep)
    if scheduler == "htcondor":
        htcondor.check(plan)
    _check_run(run, scheduler, sweep=sweep, again=again or dry_run)
    backend = SCHEDULERS[scheduler]
    files: Mapping[Path, str] = backend.scripts(plan)
    if dry_run:
        say("\n".join(f"# {path}\n{text}" for path, text in files.items()))
        say("\n".join(["# submitted by", *backend.commands(plan)]))
        return
    if shutil.which(PROGRAMS[scheduler]) is None:
        raise JettaggerError(
            f"{PROGRAMS[scheduler]} is not on this machine: submit from one where it is, or look with --dry-run"
        )
    shared = again and read_submission(run) is not None
    with undone_if_refused(run, run / PLAN, shared=shared), ends_forgotten(plan.scripts):
        if tried is None:
            _write(plan.scripts / CONFIG, base.yaml)
        else:
            write_sweep(run, tried, base, configs)
        for path, text in files.items():
            _write(path, text)
        plan.logs.mkdir(parents=True, exist_ok=True)
        submitted: Sequence[JobRecord] = backend.submit(plan)
    submission = write_submission(plan, scheduler, submitted)
    for job in submission.jobs:
        tasks = f", {len(job.tasks)} tasks" if len(job.tasks) > 1 else ""
        say(f"{job.name}: job {job.id}{tasks}")
    say(f"jettagger status {quoted(run)}")


def scheduler_named(name: str | None) -> Scheduler | None:
    """The scheduler of this name, as the user gave it."""
    if name is None:
        return None
    for scheduler in SCHEDULERS:
        if name == scheduler:
            return scheduler
    raise unknown_name("scheduler", name, SCHEDULERS, where="--scheduler")


def _found() -> Scheduler:
    for name, program in PROGRAMS.items():
        if shutil.which(program):
            return name
    raise JettaggerError(
        f"neither {' nor '.join(PROGRAMS.values())} is here: say --scheduler slurm or htcondor, with --dry-run"
    )


def _plan(run: Path, base: Resolved, configs: Mapping[str, Resolved], *, sweep: bool) -> Plan:
    trained = [
        Trained(
            run / name if sweep else run,
            run / JOBS / (f"{name}.yaml" if sweep else CONFIG),
            config.folds,
            config.members,
            config.prepared,
            config.tested,
        )
        for name, config in configs.items()
    ]
    return make_plan(run, base.cluster, trained, folder=Path.cwd(), sweep=sweep)


def _check_run(run: Path, scheduler: Scheduler, *, sweep: bool, again: bool) -> None:
    """Raises JettaggerError where the run cannot be written, is of another kind, or is being worked on."""
    if run.exists() and not run.is_dir():
        raise JettaggerError(f"--output {run} is a file; a run is a folder")
    if any(not character.isprintable() for character in str(run)):
        raise JettaggerError(f"--output {str(run)!r}: a batch script cannot name this folder")
    if sweep and any(any(run.glob(pattern)) for pattern in ("member_*", "fold_*")):
        raise JettaggerError(f"{run} holds a run, not a sweep: choose another --output")
    if not sweep and (run / PLAN).exists():
        raise JettaggerError(f"{run} holds a sweep: submit it with --sweep, or choose another --output")
    check_writable(run / JOBS / CONFIG)
    before = read_submission(run)
    if before is None or again:
        return
    alive = SCHEDULERS[before.scheduler].states(before.jobs)
    if alive:
        shown = ", ".join(f"{name} {state}" for name, state in list(alive.items())[:5])
        more = f" and {len(alive) - 5} more" if len(alive) > 5 else ""
        raise JettaggerError(
            f"{run} has jobs that are alive ({shown}{more}): wait, cancel them, or say --again to submit beside them"
        )


def _write(path: Path, text: str) -> None:
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
        if path.suffix == ".sh":
            aside.chmod(0o755)
