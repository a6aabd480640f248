"""HTCondor: the plan as submit descriptions and a DAG, handed to condor_submit_dag; and what condor_q says of it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from jettagger.cluster import script
from jettagger.cluster.plan import Job, Plan
from jettagger.cluster.programs import UnclearError, call
from jettagger.cluster.records import JobRecord
from jettagger.cluster.schema import FLAVOURS
from jettagger.errors import JettaggerError

DAG = "jobs.dag"
STATES = {1: "waiting", 2: "running", 5: "held", 6: "running", 7: "waiting (suspended)"}
"""What a job that is alive does, by its JobStatus."""
MOST_STARTS = 100
"""Of one task, for whatever reason: a training that never gets anywhere must end."""
OWN_DAG = "dag"
"""The state of the DAG itself, among those of its tasks."""


def check(plan: Plan) -> None:
    """Raises JettaggerError for what HTCondor cannot do."""
    if plan.section.slurm.nodes > 1:
        raise JettaggerError(
            f"cluster.slurm.nodes: {plan.section.slurm.nodes}, but a job of HTCondor is on one machine: write 1, or"
            " submit to Slurm"
        )
    longest = FLAVOURS["nextweek"]
    if plan.section.seconds > longest:
        raise JettaggerError(
            f"cluster.time: {plan.section.time} is longer than the longest flavour, nextweek: a training that needs"
            " longer goes on by itself"
        )


def scripts(plan: Plan) -> dict[Path, str]:
    """Of each job, the script and the submit description; and the DAG."""
    files = {}
    for job in plan.jobs:
        files[plan.scripts / f"{job.name}.sh"] = _script(plan, job)
        files[plan.scripts / f"{job.name}.sub"] = description(plan, job)
    return {**files, plan.scripts / DAG: dag(plan)}


def commands(plan: Plan) -> list[str]:
    """How the DAG is submitted, to be read; `submit` does it."""
    return [f"condor_submit_dag -usedagdir {script.quoted(plan.scripts / DAG)}"]


def submit(plan: Plan) -> list[JobRecord]:
    """Hands the DAG over; all its jobs have its number."""
    command = ["condor_submit_dag", "-usedagdir", "-force", str(plan.scripts / DAG)]
    printed = call(command, "condor_submit_dag")
    number = re.search(r"submitted to cluster (\d+)", printed)
    if number is None:
        raise UnclearError(f"condor_submit_dag says no number: {printed.strip()}")
    return [JobRecord.of(job, number[1]) for job in plan.jobs]


def states(records: Sequence[JobRecord]) -> dict[str, str]:
    """Task, such as train_3 -> `waiting`, `running` or `held (why)`, for the tasks that are alive; and the DAG."""
    if not records:
        return {}
    identity = records[0].id
    wanted = "ClusterId,JobStatus,DAGNodeName,HoldReason"
    constraint = f"ClusterId == {identity} || DAGManJobId == {identity}"
    printed = call(["condor_q", "-json", "-attributes", wanted, "-constraint", constraint], "condor_q")
    found = {}
    for job in json.loads(printed or "[]"):
        state = STATES.get(job["JobStatus"])
        if state is not None:
            reason = f" ({job['HoldReason']})" if state == "held" and job.get("HoldReason") else ""
            found[job.get("DAGNodeName", OWN_DAG)] = state + reason
    return found


def dag(plan: Plan) -> str:
    """Which job waits for which. Each task is a node of its own: where one fails, the others go on."""
    lines = ["# condor_submit_dag -usedagdir " + DAG]
    nodes = {job.name: [script.log_name(job, n) for n in range(len(job.tasks))] for job in plan.jobs}
    for job in plan.jobs:
        waited_for = any(other.after == job.name and other.whatever for other in plan.jobs)
        lines.append("")
        for number, node in enumerate(nodes[job.name]):
            lines += [f"JOB {node} {job.name}.sub", f'VARS {node} task="{number}"']
            if waited_for:  # the next job says what is missing, and uses the rest
                lines.append(f"SCRIPT POST {node} /bin/true")
            if plan.section.at_once and job.trains:
                lines.append(f"CATEGORY {node} {job.name}")
        if job.after is not None:
            lines.append(f"PARENT {' '.join(nodes[job.after])} CHILD {' '.join(nodes[job.name])}")
        if plan.section.at_once and job.trains:
            lines.append(f"MAXJOBS {job.name} {plan.section.at_once}")
    return "\n".join(lines) + "\n"


def description(plan: Plan, job: Job) -> str:
    """The submit description of a job; `task` numbers its tasks from 0."""
    section = plan.section
    gpus = section.gpus if job.trains else 0
    processes = section.per_machine if job.trains else 1
    log = f"{_value(plan.logs)}/{job.name}" + ("_$(task)" if len(job.tasks) > 1 else "")
    lines = [
        f"# A node of {DAG}, which says what `task` is; by hand: condor_submit task=0 {job.name}.sub",
        "universe = vanilla",
        f"executable = {_value(plan.scripts / f'{job.name}.sh')}",
        "arguments = $(task) $(ClusterId)",
        "# The script itself appends to a log that survives restarts; here is what comes before.",
        f"output = {log}.out",
        f"error = {log}.out",
        f"log = {_value(plan.logs)}/htcondor.log",
        f"request_cpus = {section.cpus * processes}",
        f"request_memory = {section.megabytes}MB",
        *([f"request_gpus = {gpus}"] if gpus else []),
        *([f"requirements = {section.htcondor.requirements}"] if section.htcondor.requirements else []),
        f'+JobFlavour = "{section.flavour}"',
        "should_transfer_files = IF_NEEDED",
        'transfer_output_files = ""',
        "kill_sig = SIGTERM",
        f"job_max_vacate_time = {section.warning}",
        f"# {script.AGAIN}: interrupted, its checkpoint is saved; it is queued again and goes on.",
        f"on_exit_remove = (ExitBySignal == False && ExitCode =!= {script.AGAIN}) || NumJobStarts >= {MOST_STARTS}",
        *section.htcondor.lines,
        "queue",
    ]
    return "\n".join(lines) + "\n"


def _script(plan: Plan, job: Job) -> str:
    lines = [
        "#!/bin/bash",
        *script.head(plan),
        *script.choice(job, "$1"),
        f'exec >> {script.quoted(plan.logs)}/"${{task}}_$2.log" 2>&1',
        *script.launch(plan, [], _launcher(plan, job)),
        *_torchrun_end(plan, job),
        *script.restarts(plan),
        'exit "$status"',
    ]
    return "\n".join(lines) + "\n"


def _launcher(plan: Plan, job: Job) -> str:
    """Python under a clock, since HTCondor does not warn; torchrun, where several processes share a training."""
    section = plan.section
    several = job.trains and section.per_machine > 1
    seconds = FLAVOURS[section.flavour] - section.warning
    clock = f"timeout --foreground --preserve-status --signal={'TERM' if several else 'USR1'} {seconds}"
    run = f" -m torch.distributed.run --standalone --nproc-per-node={section.per_machine}" if several else ""
    return f"{clock} {script.python(plan)}{run}"


def _torchrun_end(plan: Plan, job: Job) -> list[str]:
    if not job.trains or plan.section.per_machine == 1:
        return []
    marker = f'$(find {script.quoted(plan.run)} -name interrupted.json -newer "$ended.started")'
    return [
        "# torchrun hides what its processes end with; an interrupted one has left a file.",
        f'if (( status != 0 )) && [ -n "{marker}" ]; then status={script.AGAIN}; fi',
    ]


def _value(path: Path) -> str:
    """A path in a submit description: a dollar is no macro."""
    return str(path).replace("$", "$(DOLLAR)")
