"""Slurm: the plan as batch scripts, handed to sbatch; and what squeue says of them."""

import re
from collections.abc import Sequence
from pathlib import Path

from jettagger.cluster import script
from jettagger.cluster.plan import Job, Plan
from jettagger.cluster.programs import UnclearError, call
from jettagger.cluster.records import JobRecord
from jettagger.errors import JettaggerError

STATES = {
    **dict.fromkeys(("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED"), "waiting"),
    **dict.fromkeys(("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT"), "running"),
}
"""What a job that is alive does, for those of Slurm's states in which it is."""
MOST_RESTARTS = 100
"""Of one job, for whatever reason: a training that never gets anywhere must end."""


def scripts(plan: Plan) -> dict[Path, str]:
    """The batch script of each job."""
    return {plan.scripts / f"{job.name}.sh": _script(plan, job) for job in plan.jobs}


def commands(plan: Plan) -> list[str]:
    """How the scripts are submitted, to be read; `submit` does it."""
    return [
        " ".join(
            ["sbatch", *_dependency(job, f"<{job.after}>"), script.quoted(plan.scripts / f"{job.name}.sh")]
        )
        for job in plan.jobs
    ]


def submit(plan: Plan) -> list[JobRecord]:
    """Hands the scripts over. When one is refused, those before it are cancelled."""
    records: list[JobRecord] = []
    identity: dict[str | None, str] = {}
    for job in plan.jobs:
        options = _dependency(job, identity.get(job.after, ""))
        path = plan.scripts / f"{job.name}.sh"
        try:
            printed = call(["sbatch", "--parsable", *options, str(path)], f"job {job.name}: sbatch")
        except JettaggerError as error:
            _cancel(records, error)
            raise
        identity[job.name] = printed.strip().partition(";")[0]
        records.append(JobRecord.of(job, identity[job.name]))
    return records


def _cancel(records: Sequence[JobRecord], error: JettaggerError) -> None:
    """Cancels jobs because of an `error`. Raises UnclearError, with their numbers, where that fails."""
    if not records:
        return
    numbers = [record.id for record in records]
    try:
        call(["scancel", *numbers], "scancel")
    except JettaggerError as failure:
        words = f"jobs {', '.join(numbers)} are in the queue still"
        raise UnclearError(f"{error}; {words}, since {failure}") from error


def states(records: Sequence[JobRecord]) -> dict[str, str]:
    """Task, such as train_3 -> `waiting (Resources)` or `running`, for the tasks that are alive."""
    printed = call(["squeue", "--noheader", "--array", "--format=%i|%T|%r"], "squeue")
    by_id = {record.id: record for record in records}
    found = {}
    for line in printed.splitlines():
        number, state, reason = line.split("|", 2)
        job, _, task = number.partition("_")
        if job in by_id and state in STATES:
            name = by_id[job].task_name(int(task) if task else 0)
            waits = STATES[state] == "waiting" and reason != "None"
            found[name] = f"{STATES[state]} ({reason})" if waits else STATES[state]
    return found


def _dependency(job: Job, before: str) -> list[str]:
    if job.after is None:
        return []
    return [f"--dependency={'afterany' if job.whatever else 'afterok'}:{before}", "--kill-on-invalid-dep=yes"]


def _script(plan: Plan, job: Job) -> str:
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in _options(plan, job)),
        *script.head(plan),
        *script.choice(job, "$SLURM_ARRAY_TASK_ID"),
        *script.launch(plan, *_launcher(plan, job)),
        *script.restarts(plan),
        *_requeue(job),
        'exit "$status"',
    ]
    return "\n".join(lines) + "\n"


def _options(plan: Plan, job: Job) -> list[str]:
    section, slurm = plan.section, plan.section.slurm
    nodes = slurm.nodes if job.trains else 1
    gpus = section.gpus if job.trains else 0
    several = len(job.tasks) > 1
    at_once = f"%{section.at_once}" if section.at_once else ""
    log = f"{job.name}_%a_%A.log" if several else f"{job.name}_%j.log"
    kind = f"{slurm.gpu_type}:" if slurm.gpu_type else ""
    return [
        f"--job-name={_option(f'{job.name}-{plan.run.name}')}",
        f"--output={_option(f'{_pattern(plan.logs)}/{log}')}",
        "--open-mode=append",
        *([f"--array=0-{len(job.tasks) - 1}{at_once}"] if several else []),
        f"--time={section.time if section.time.count(':') > 1 or '-' in section.time else section.time + ':00'}",
        f"--mem={section.megabytes}M",
        f"--nodes={nodes}",
        f"--ntasks-per-node={section.per_machine if job.trains else 1}",
        f"--cpus-per-task={section.cpus}",
        *([f"--gres=gpu:{kind}{gpus}"] if gpus else []),
        *([f"--partition={slurm.partition}"] if slurm.partition else []),
        *([f"--account={slurm.account}"] if slurm.account else []),
        *([f"--constraint={_option(slurm.constraint)}"] if slurm.constraint and job.trains else []),
        "--requeue",
        f"--signal=B:USR1@{section.warning}",
        *slurm.lines,
    ]


def _launcher(plan: Plan, job: Job) -> tuple[list[str], str]:
    """What is to be said before the command, and what starts it: srun, where several processes share a training."""
    section = plan.section
    python, tasks = script.python(plan), section.slurm.nodes * section.per_machine
    if not job.trains or tasks == 1:
        return [], python
    setting = [
        'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)',
        "MASTER_PORT=$(( 20000 + SLURM_JOB_ID % 10000 ))",
        "export MASTER_ADDR MASTER_PORT",
        "# What torchrun would set; srun hands signals on to every process.",
        "rank='export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS'",
        f"rank+=' LOCAL_WORLD_SIZE={section.per_machine}; exec \"$@\"'",
    ]
    options = f"--ntasks={tasks} --cpus-per-task={section.cpus} --kill-on-bad-exit=0"
    return setting, f'srun {options} bash -c "$rank" rank {python}'


def _requeue(job: Job) -> list[str]:
    """Back into the queue, unless Slurm is already ending the job: cancelled, or requeued by someone else.

    SLURM_JOB_ID of one task of an array is the number of the whole array, so the task is named.
    """
    name = '"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"' if len(job.tasks) > 1 else '"$SLURM_JOB_ID"'
    return [
        f"if (( status == {script.AGAIN} && ${{SLURM_RESTART_COUNT:-0}} < {MOST_RESTARTS} )); then",
        f"    state=$(squeue --noheader --jobs={name} --format=%T || true)",
        f'    if [ "$state" = RUNNING ]; then scontrol requeue {name} || true; fi',
        "fi",
    ]


def _option(value: str) -> str:
    """Quoted as sbatch reads it: spaces and quotes are kept."""
    if not re.search(r"[\s\"'\\#]", value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _pattern(path: Path) -> str:
    """A path in which no % stands for something else."""
    return str(path).replace("%", "%%")
