"""A real Slurm on this machine: munged, slurmctld and slurmd in one temporary folder, stopped surely."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "srun", "scancel")
PATIENCE = 30
"""Seconds that the daemons have to come up."""

CONFIG = """\
ClusterName=jettagger
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=6
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why Slurm cannot be started here, in words; None where it can."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    lacking = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if lacking:
        return f"no Slurm here ({', '.join(lacking)} missing): apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "Slurm's daemons are started by root only"


@contextlib.contextmanager
def slurm() -> Iterator[Mapping[str, str]]:
    """Starts Slurm and yields the environment in which its commands reach it."""
    # A socket's path has at most 107 characters, and pytest's folders are long.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    environment = {
        **os.environ,
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
    }
    try:
        _write(folder)
        _start(folder, environment)
        yield environment
    finally:
        _stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path) -> None:
    key = folder / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, host=host, ports=_free_ports(2)))


def _start(folder: Path, environment: Mapping[str, str]) -> None:
    munged = ["--force", f"--socket={folder}/munge.sock", f"--key-file={folder}/key"]
    munged += [f"--log-file={folder}/munged.log", f"--pid-file={folder}/munged.pid"]
    munged += [f"--seed-file={folder}/seed"]
    config = str(folder / "slurm.conf")
    for command in (["munged", *munged], ["slurmctld", "-f", config], ["slurmd", "-f", config]):
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=PATIENCE)
    for _ in range(PATIENCE * 2):
        found = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if found.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join((folder / f"{name}.log").read_text()[-2000:] for name in ("slurmctld", "slurmd"))
    raise RuntimeError(f"the node is '{found.stdout.strip()}' ({found.stderr.strip()}):\n{logs}")


def _stop(folder: Path) -> None:
    """Ends the daemons, and then whatever of theirs is left, jobs included: all name the folder or descend from it."""
    daemons = []
    for name in ("slurmctld", "slurmd", "munged"):
        with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
            daemons.append(psutil.Process(int((folder / f"{name}.pid").read_text())))
    left = [*daemons]
    left += [process for process in psutil.process_iter() if _belongs(process, folder)]
    for process in daemons:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    psutil.wait_procs(daemons, timeout=10)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=10)


def _belongs(process: psutil.Process, folder: Path) -> bool:
    """Whether it is a job, or a step's daemon, which works in the folder and hides its environment."""
    try:
        if Path(process.cwd()).is_relative_to(folder):
            return True
        environment = process.environ()
    except psutil.Error:
        return False
    return environment.get("SLURM_CONF") == str(folder / "slurm.conf") and "SLURM_JOB_ID" in environment


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
