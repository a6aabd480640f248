"""The bash scripts that the jobs run: which task, then its command, then what its end means.

Both schedulers run the same body. It ends with status 75 where the same command should be started again.
"""

import shlex
import sys
from pathlib import Path

from jettagger.cluster.plan import Job, Plan, Task

AGAIN = 75
"""Exit status of an interrupted training whose checkpoint is saved (EX_TEMPFAIL)."""


def head(plan: Plan) -> list[str]:
    """Where the command runs, and with what."""
    section = plan.section
    # What others wrote, such as conda's or module's functions, may read variables that are not set.
    setup = ["set +u", *section.setup, "set -u"] if section.setup else []
    return [
        "set -euo pipefail",
        f"cd {quoted(plan.folder)}",
        *setup,
        f"export OMP_NUM_THREADS={section.cpus}",
        "",
    ]


def choice(job: Job, number: str) -> list[str]:
    """Sets `arguments`, and `task`, by which the files of the task are called. `number` is a bash expression."""
    if len(job.tasks) == 1:
        return [f"task={job.name}", f"arguments=({words(job.tasks[0].arguments)})"]
    return [
        f"task={job.name}_{number}",
        f"case {number} in",
        *(f"    {n}) arguments=({words(one.arguments)}) ;;" for n, one in enumerate(job.tasks)),
        '    *) echo "no task $task" >&2; exit 2 ;;',
        "esac",
    ]


def launch(plan: Plan, setting: list[str], launcher: str) -> list[str]:
    """Starts the command, hands signals on to it, and waits for its end; its exit status is then in `status`.

    `setting` comes first; `launcher` is what starts `-m jettagger`.
    """
    return [
        f"ended={quoted(plan.scripts)}/$task",
        'rm -f "$ended.status"; touch "$ended.started"',
        'echo "$(date -Is) $(hostname): jettagger ${arguments[*]}"',
        "",
        *setting,
        f'{launcher} -m jettagger "${{arguments[@]}}" &',
        "child=$!",
        "asked=no told=no",
        "trap 'asked=yes told=yes; kill -TERM \"$child\" || true' TERM",
        "trap 'asked=yes told=yes; kill -USR1 \"$child\" || true' USR1",
        "status=0",
        'wait "$child" || status=$?',
        'while [ "$told" = yes ] && (( status > 128 )); do  # the signal ended the waiting, not the child',
        "    told=no status=0",
        '    wait "$child" || status=$?',
        "done",
        "trap - TERM USR1",
    ]


def restarts(plan: Plan) -> list[str]:
    """Turns a kill into status 75, as long as there are restarts; writes the status down.

    A signal at the moment at which the child ends leaves bash's `wait` without its status: -1. The command started
    again finds what is done, so that also is a 75.
    """
    return [
        'if (( status < 0 || status > 128 )) && [ "$asked" = yes ]; then',
        f"    status={AGAIN}  # asked to stop before it could do so by itself, or its end was missed",
        "elif (( status > 128 )); then",
        '    echo "$(date -Is) killed by signal $(( status - 128 ))" | tee -a "$ended.killed"',
        f'    if (( $(wc -l < "$ended.killed") <= {plan.section.restarts} )); then status={AGAIN}; fi',
        "fi",
        'echo "$status" > "$ended.status"',
    ]


def python(plan: Plan) -> str:
    """What starts Python in a job."""
    section = plan.section
    return section.python or ("python" if section.setup else quoted(Path(sys.executable)))


def quoted(text: Path | str) -> str:
    """As one word of bash."""
    return shlex.quote(str(text))


def words(arguments: tuple[str, ...]) -> str:
    """As several words of bash."""
    return shlex.join(arguments)


def log_name(job: Job, task: int) -> str:
    """The beginning of a task's log file, before its job id."""
    return job.name if len(job.tasks) == 1 else f"{job.name}_{task}"


def task_name(job: Job, task: Task) -> str:
    """By which a task's files are called, as in the script."""
    return log_name(job, job.tasks.index(task))
