"""What a measured process tells the one that started it: a JSON object a line. Needs the standard library alone.

`{"phase": name}` begins a phase, of which the memory's peak is kept; `{"measured": name, "jets": …, "wall": …,
"processor": …}` is a result.
"""

import json
import os
import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def phase(name: str) -> None:
    """From here on the peak of the memory counts for `name`."""
    print(json.dumps({"phase": name}), flush=True)


@contextmanager
def measured(name: str) -> Iterator[dict[str, float]]:
    """Wall and processor seconds of a block, which puts its number of `jets` into the dictionary."""
    phase(name)
    figures: dict[str, float] = {}
    processor, wall = processor_seconds(), time.perf_counter()
    yield figures
    figures["wall"] = time.perf_counter() - wall
    figures["processor"] = processor_seconds() - processor
    tell(name, **figures)
    phase("between")


def tell(name: str, *, jets: float, wall: float, processor: float) -> None:
    """A result; times in seconds."""
    figures = {"jets": jets, "wall": wall, "processor": processor}
    print(json.dumps({"measured": name, **figures}), flush=True)


def processor_seconds() -> float:
    """Of this process, of its ended children, and of all that still runs below it (to 10 ms)."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = sum(sum(_ticks(process)) for process in family(os.getpid())[1:])
    return time.process_time() + ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def family(process: int) -> list[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _fields(int(entry.name))):
            children[int(fields[1])].append(int(entry.name))
    found = [process]
    for member in found:
        found += children[member]
    return found


def _ticks(process: int) -> list[int]:
    """Clock ticks: its own, and those of its ended children; user and system."""
    return [int(ticks) for ticks in _fields(process)[11:15]]


def _fields(process: int) -> list[str]:
    """`/proc/<process>/stat` after the name, which may hold blanks; nothing if the process has ended."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()
