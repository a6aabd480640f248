"""Accepted jets per second, and the limit that Pythia alone sets in the same run.

PYTHONPATH=src python benchmarks/simulation.py [--jets 2000] [--workers 2]
"""

import argparse
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

from jettagger.simulation import SimulationOptions, SimulationSummary, simulate
from jettagger.simulation.generator import BLOCK_EVENTS, Generator
from jettagger.simulation.workers import in_order


class PythiaOnly:
    """Generates blocks and throws them away."""

    def __init__(self, options: SimulationOptions) -> None:
        self._generator = Generator(options)

    def __call__(self, number: int) -> int:
        self._generator.block(number)
        return BLOCK_EVENTS


def cpu_seconds() -> float:
    """CPU time of this process and of its ended children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def pythia_only(options: SimulationOptions, events: int) -> tuple[float, float]:
    """Wall and CPU seconds for `events` events without detector, jets or file."""
    started, cpu = time.monotonic(), cpu_seconds()
    blocks = in_order(partial(PythiaOnly, options), options.workers)
    for _ in range(events // BLOCK_EVENTS):
        next(blocks)
    wall = time.monotonic() - started
    blocks.close()
    return wall, cpu_seconds() - cpu


def whole(options: SimulationOptions) -> tuple[SimulationSummary, float]:
    """The summary of a simulation, and its CPU seconds."""
    cpu = cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        summary = simulate(options, Path(folder) / "jets.root", progress=False)
    return summary, cpu_seconds() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jets", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    for process in ("QCD", "Tbqq"):
        options = SimulationOptions(process=process, jets=arguments.jets, workers=arguments.workers)
        summary, cpu = whole(options)
        wall, limit_cpu = pythia_only(options, summary.events)
        print(
            f"{process}: {summary.jets / summary.seconds:.0f} jets/s with {options.workers} workers, their "
            f"start included ({cpu / summary.jets * 1e3:.1f} ms CPU a jet, "
            f"{summary.jets / summary.events:.2f} jets an event); "
            f"Pythia alone would allow {summary.jets / wall:.0f} jets/s "
            f"({limit_cpu / summary.jets * 1e3:.1f} ms CPU a jet)",
            flush=True,
        )


if __name__ == "__main__":
    main()
