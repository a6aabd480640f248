"""Runs a script in a fresh process, with one thread for each library, and watches the memory of its family."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from measuring.stopwatch import family

BENCHMARKS = Path(__file__).parents[1]
INTERVAL = 0.02
"""Seconds between two looks at the memory."""
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "NUMBA_NUM_THREADS",
    ),
    "1",
)


class Measured(NamedTuple):
    """One result of a script."""

    jets: float
    wall: float
    """Seconds."""
    processor: float
    """Seconds of all processes together."""
    peak: int
    """Bytes: RssAnon + RssShmem of all processes together. What forked processes share counts for each."""


class Outcome(NamedTuple):
    """What a script told."""

    results: dict[str, Measured]
    peaks: dict[str, int]
    """Phase -> peak of the memory in bytes."""
    told: dict[str, Any]
    """Whatever else it said."""


class ScriptError(Exception):
    """The script ended with an error: its last lines."""


def run(script: Path, arguments: dict[str, Any], *, python: str = sys.executable, cores: int = 1) -> Outcome:
    """Runs `python script '{"…": …}'` on the first `cores` of this process's cores.

    The script is told its arguments as JSON, and tells its results with `measuring.stopwatch`.
    """
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    command = [
        "taskset",
        "--cpu-list",
        ",".join(map(str, allowed)),
        python,
        str(script),
        json.dumps(arguments),
    ]
    errors: list[str] = []
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=_environment(python), **pipes) as process:
        drain = threading.Thread(target=lambda: errors.extend(process.stderr or ()))
        drain.start()
        watch = _Watch(process.pid)
        events = list(_followed(process, watch))
        watch.stop()
        drain.join()
    if process.returncode:
        raise ScriptError(f"{script.name}: {''.join(errors[-1:]).strip()}\n{''.join(errors)}")
    return _outcome(events, watch.peaks)


def _environment(python: str) -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    paths = [str(BENCHMARKS)]
    if python == sys.executable:
        paths += filter(None, [os.environ.get("PYTHONPATH")])
    return own | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(paths)}


def _followed(process: "subprocess.Popen[str]", watch: "_Watch") -> Iterator[dict[str, Any]]:
    """The process's JSON lines; whatever else a library prints is passed over."""
    for line in process.stdout or ():
        if not line.startswith("{"):
            continue
        event = json.loads(line)
        if "phase" in event:
            watch.look()  # a phase may be shorter than the interval
            watch.phase = event["phase"]
        else:
            yield event


def _outcome(events: list[dict[str, Any]], peaks: dict[str, int]) -> Outcome:
    results: dict[str, Measured] = {}
    told: dict[str, Any] = {}
    for event in events:
        name = event.pop("measured", None)
        if name is None:
            told |= event
        else:
            results[name] = Measured(event["jets"], event["wall"], event["processor"], peaks.get(name, 0))
    return Outcome(results, peaks, told)


class _Watch:
    """A thread that looks at the memory of a process and of all below it."""

    def __init__(self, process: int) -> None:
        self.phase = "start"
        self.peaks: dict[str, int] = defaultdict(int)
        self._members = [process]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def look(self) -> None:
        phase = self.phase
        self.peaks[phase] = max(self.peaks[phase], sum(map(memory_of, self._members)))

    def _watch(self) -> None:
        listed = 0.0
        while not self._over.wait(INTERVAL):
            if (now := time.monotonic()) - listed > 5 * INTERVAL:
                self._members, listed = family(self._members[0]), now
            self.look()


def memory_of(process: int) -> int:
    """RssAnon + RssShmem in bytes; 0 if the process has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    sizes = [line.split()[1] for line in lines if line.startswith(("RssAnon:", "RssShmem:"))]
    return 1024 * sum(map(int, sizes))
