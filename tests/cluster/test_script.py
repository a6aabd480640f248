"""The scripts, run by bash with a stand-in for Python: what their end means, and that signals arrive."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from plans import plan

from jettagger.cluster import htcondor, script, slurm
from jettagger.cluster.script import quoted

SCRIPTS = Path(__file__).parents[2] / "scripts"

PROGRAM = """\
#!/bin/bash
# In the place of Python: prints its arguments one a line, and ends as the file `end` says.
printf '%s\\n' "$@" > arguments
trap 'echo TERM >> signals; exit 75' TERM
trap 'echo USR1 >> signals; exit 75' USR1
touch begun
eval "$(cat end)"
"""


@pytest.fixture
def folder(tmp_path):
    """A folder whose name bash must not read, with a stand-in for Python."""
    folder = tmp_path / "a 'b' \"$HOME\" `c`"
    folder.mkdir()
    program = folder / "python"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    tools = folder / "bin"
    tools.mkdir()
    for name, text in (("squeue", 'cat "$STATE"'), ("scontrol", 'echo "$@" >> requeued')):
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    return folder


def started(folder, end, *, members=1, backend=slurm, state="RUNNING", task="0", **variables):
    """The script of the training, under way."""
    run = folder / "run"
    jobs = plan(run, members=members, python=quoted(folder / "python"), restarts=2)
    text = backend.scripts(jobs)[run / "jobs" / "train.sh"]
    for name in ("jobs", "logs"):
        (run / name).mkdir(parents=True, exist_ok=True)
    (folder / "end").write_text(end)
    (folder / "state").write_text(state)
    (folder / "begun").unlink(missing_ok=True)
    path = folder / "train.sh"
    path.write_text(text)
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "STATE": str(folder / "state"),
        "SLURM_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": task,
        **variables,
    }
    return subprocess.Popen(
        ["bash", str(path), task, "7"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def ended(*arguments, **named):
    """Its exit status."""
    with started(*arguments, **named) as process:
        process.communicate(timeout=30)
    return process.returncode


def requeued(folder):
    path = folder / "requeued"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("backend", [slurm, htcondor])
def test_it_runs_the_command_of_its_task_whatever_the_path(folder, backend):
    assert ended(folder, "exit 0", members=3, task="2", backend=backend) == 0
    run = folder / "run"
    assert (folder / "arguments").read_text().splitlines() == [
        *("-m", "jettagger", "train", str(run / "jobs" / "config.yaml"), "--output", str(run), "--resume"),
        *("--member", "2", "--workers", "4"),
    ]
    assert (run / "jobs" / "train_2.status").read_text() == "0\n"
    assert ended(folder, "exit 0", members=3, task="3", backend=backend) == 2


def test_an_interrupted_training_is_requeued_and_a_mistake_of_the_user_is_not(folder):
    assert ended(folder, "exit 2") == 2
    assert ended(folder, "exit 1") == 1
    assert requeued(folder) == []
    assert ended(folder, "exit 75") == 75
    assert requeued(folder) == ["requeue 7"]
    assert (folder / "run" / "jobs" / "train.status").read_text() == "75\n"
    assert ended(folder, "exit 75", SLURM_RESTART_COUNT="100") == 75
    assert requeued(folder) == ["requeue 7"]


def test_of_an_array_only_the_task_is_requeued(folder):
    """One task's SLURM_JOB_ID is that of the whole array."""
    assert ended(folder, "exit 75", members=3, task="1", SLURM_ARRAY_JOB_ID="7") == 75
    assert requeued(folder) == ["requeue 7_1"]


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", ""])
def test_a_job_that_slurm_is_ending_is_not_requeued(folder, state):
    """Otherwise scancel would bring it back."""
    assert ended(folder, "exit 75", state=state) == 75
    assert requeued(folder) == []


@pytest.mark.parametrize("backend", [slurm, htcondor])
def test_a_killed_training_starts_again_a_few_times(folder, backend):
    kill = "kill -KILL $$"
    assert [ended(folder, kill, backend=backend) for _ in range(3)] == [75, 75, 137]
    assert len(requeued(folder)) == (2 if backend is slurm else 0)
    killed = (folder / "run" / "jobs" / "train.killed").read_text().splitlines()
    assert len(killed) == 3
    assert killed[0].endswith("killed by signal 9")


@pytest.mark.parametrize("backend", [slurm, htcondor])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_reach_the_training_and_its_end_is_waited_for(folder, backend, number):
    if backend is htcondor and shutil.which("timeout") is None:
        pytest.skip("no timeout here: coreutils has it")
    with started(folder, "while true; do sleep 0.05; done", backend=backend) as process:
        for _ in range(200):
            if (folder / "begun").exists():
                break
            time.sleep(0.05)
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == 75
    name = number.name.removeprefix("SIG")
    assert (folder / "signals").read_text().splitlines() == [name]
    assert not (folder / "run" / "jobs" / "train.killed").exists()


@pytest.mark.parametrize(
    ("asked", "status", "means"), [("yes", -1, 75), ("yes", 143, 75), ("yes", 2, 2), ("no", 1, 1)]
)
def test_an_end_that_bash_missed_while_it_was_told_to_stop_starts_again(tmp_path, asked, status, means):
    """Its `wait` gives -1 if the signal comes as the child ends, which it does once in some hundred times."""
    lines = [
        f"asked={asked} status={status} ended={quoted(tmp_path / 'train')}",
        *script.restarts(plan(tmp_path)),
    ]
    subprocess.run(["bash", "-euo", "pipefail", "-c", "\n".join(lines)], check=True)
    assert (tmp_path / "train.status").read_text() == f"{means}\n"


def test_htcondor_interrupts_before_its_wall_time(folder):
    run = folder / "run"
    jobs = plan(run, python=quoted(folder / "python"), htcondor={"flavour": "espresso"}, warning=100)
    assert "--signal=USR1 1100 " in htcondor.scripts(jobs)[run / "jobs" / "train.sh"]


def test_each_process_of_a_shared_training_knows_its_rank():
    jobs = plan(Path("/disk/a"), gpus=2, cpus=3, slurm={"nodes": 2})
    text = slurm.scripts(jobs)[Path("/disk/a/jobs/train.sh")]
    assert "\n#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=2\n#SBATCH --cpus-per-task=3\n" in text
    assert "\nsrun --ntasks=4 --cpus-per-task=3 --kill-on-bad-exit=0 bash -c " in text
    evaluation = slurm.scripts(jobs)[Path("/disk/a/jobs/evaluate.sh")]
    assert "srun" not in evaluation
    assert "--gres" not in evaluation
    assert "#SBATCH --nodes=1\n" in evaluation


def test_options_of_slurm():
    section = {"partition": "gpu", "account": "top", "constraint": "a100&nvlink", "gpu_type": "a100"}
    jobs = plan(
        Path("/disk/100%/a b"), members=4, gpus=1, at_once=2, slurm={**section, "lines": ["--qos=long"]}
    )
    text = slurm.scripts(jobs)[Path("/disk/100%/a b/jobs/train.sh")]
    options = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert options == [
        '--job-name="train-a b"',
        '--output="/disk/100%%/a b/logs/train_%a_%A.log"',
        *("--open-mode=append", "--array=0-3%2", "--time=1-00:00:00", "--mem=8192M", "--nodes=1"),
        *("--ntasks-per-node=1", "--cpus-per-task=4", "--gres=gpu:a100:1", "--partition=gpu"),
        *("--account=top", "--constraint=a100&nvlink", "--requeue", "--signal=B:USR1@180", "--qos=long"),
    ]


def test_the_examples_are_what_submit_writes():
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "document_batch_scripts.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_bash_can_read_every_script(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
