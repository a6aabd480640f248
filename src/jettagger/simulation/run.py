"""`simulate`: blocks of events to as many jets as were asked for, on any number of processes.

Block k of a sample is the same whoever generates it, and the file takes the blocks in order, so that the
number of workers changes nothing but the time.
"""

import sys
import time
from collections.abc import Generator as Stream
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from jettagger import __version__
from jettagger.errors import JettaggerError
from jettagger.files import check_writable
from jettagger.simulation.generator import Generator, configured
from jettagger.simulation.jets import require_fastjet
from jettagger.simulation.options import SimulationOptions
from jettagger.simulation.output import open_writer
from jettagger.simulation.selection import REASONS, SURPLUS, Accounts, JetTable, process_block
from jettagger.simulation.workers import in_order

BARREN_BLOCKS = 30
"""After so many blocks (3000 events) without a single jet the simulation gives up."""

Result = tuple[JetTable, Accounts]


@dataclass(frozen=True)
class SimulationSummary:
    """What a simulation did."""

    output: Path
    """The file written."""
    jets: int
    """Jets written."""
    events: int
    """Events generated, vetoed ones not counted."""
    rejected: dict[str, int]
    """Jets above the lower pT limit that were not written, for each reason."""
    cross_section: float
    """Cross-section in pb of the selected jets (counted once a jet), decays and matching included.

    The expected number of jets per pb^-1; each jet written stands for cross_section / sum of gen_weight."""
    cross_section_error: float
    """Its statistical standard error in pb, over blocks of events."""
    seconds: float
    """Wall time."""

    def __str__(self) -> str:
        lost = ", ".join(f"{count} {reason}" for reason, count in self.rejected.items() if count)
        return (
            f"{self.output}: {self.jets} jets from {self.events} events in {self.seconds:.0f} s "
            f"({self.jets / self.seconds:.0f} jets/s); rejected: {lost or 'none'}; "
            f"cross-section {self.cross_section:.4g} ± {self.cross_section_error:.2g} pb"
        )


def simulate(options: SimulationOptions, output: Path, progress: bool | None = None) -> SimulationSummary:
    """Writes exactly `options.jets` jets to `output`, whole or not at all.

    `progress`: True shows a bar, False nothing; by default a bar on a terminal, plain lines elsewhere.
    """
    started = time.monotonic()
    require_fastjet()
    configured(options)  # mistakes in settings end here, before any worker starts
    check_writable(output)
    accounts: list[Accounts] = []
    yields: list[float] = []
    written = 0
    with (
        closing(_blocks(options)) as results,
        _Progress(options, progress) as shown,
        open_writer(output, options.container) as writer,
    ):
        for table, account in results:
            wanted = min(len(table), options.jets - written)
            yields.append(float(table.jet["gen_weight"].sum()))
            account.rejected[SURPLUS] = len(table) - wanted
            accounts.append(account)
            if wanted:
                writer.add(table.head(wanted))
            written += wanted
            shown.update(wanted)
            if written == options.jets:
                break
            if written == 0 and len(accounts) == BARREN_BLOCKS:
                raise _barren(options, accounts)
        summary = _summary(options, output, accounts, yields, time.monotonic() - started)
        writer.finish(_provenance(options, summary))
    return summary


def _blocks(options: SimulationOptions) -> Stream[Result, None, None]:
    """Blocks 0, 1, 2, … without end."""
    if options.workers == 1:
        maker = BlockMaker(options)
        number = 0
        while True:
            yield maker(number)
            number += 1
    else:
        yield from in_order(partial(BlockMaker, options), options.workers)


class BlockMaker:
    """Makes any block of a sample; built once a process."""

    def __init__(self, options: SimulationOptions) -> None:
        self._options, self._generator = options, Generator(options)

    def __call__(self, number: int) -> Result:
        return process_block(self._generator.block(number), number, self._options)


def _summary(
    options: SimulationOptions, output: Path, accounts: list[Accounts], yields: list[float], seconds: float
) -> SimulationSummary:
    """Adds the blocks up. Their cross-sections are weighted by the phase-space points tried."""
    tried = np.array([account.tried for account in accounts], dtype=float)
    per_block = np.array([account.cross_section / account.weight for account in accounts]) * np.array(yields)
    mean = float(np.average(per_block, weights=tried))
    spread = float(np.sqrt(np.average((per_block - mean) ** 2, weights=tried)))
    return SimulationSummary(
        output=output,
        jets=options.jets,
        events=sum(account.events for account in accounts),
        rejected={reason: sum(account.rejected[reason] for account in accounts) for reason in REASONS},
        cross_section=mean,
        cross_section_error=spread / max(len(accounts) - 1, 1) ** 0.5,
        seconds=seconds,
    )


def _provenance(options: SimulationOptions, summary: SimulationSummary) -> dict[str, Any]:
    """What the file says of itself. Nothing that varies with the time, the place or the workers."""
    asked = asdict(options)
    del asked["workers"]
    told = asdict(summary)
    del told["output"], told["seconds"]
    others = {name: metadata.version(name) for name in ("pythia8mc", "fastjet")}
    return {"options": asked, "summary": told, "versions": {"jettagger": __version__, **others}}


def _barren(options: SimulationOptions, accounts: list[Accounts]) -> JettaggerError:
    events = sum(account.events for account in accounts)
    counts = {reason: sum(account.rejected[reason] for account in accounts) for reason in REASONS}
    lost = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count) or "none above pT"
    return JettaggerError(
        f"no {options.process} jet among {events} events (rejected: {lost}): widen pt {options.pt}, "
        f"radius {options.radius} or eta_max {options.eta_max}"
    )


class _Progress:
    """A bar on a terminal, a line every `INTERVAL` seconds elsewhere, or nothing."""

    INTERVAL = 30.0

    def __init__(self, options: SimulationOptions, wish: bool | None) -> None:
        self._name, self._total, self._done = f"simulate {options.process}", options.jets, 0
        bar = sys.stderr.isatty() if wish is None else wish
        self._bar: Any = None
        self._lines = wish is None and not bar
        self._started = self._last = time.monotonic()
        if bar:
            from tqdm import tqdm

            self._bar = tqdm(total=options.jets, desc=self._name, unit="jet")

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, jets: int) -> None:
        """Counts further jets."""
        self._done += jets
        if self._bar is not None:
            self._bar.update(jets)
        now = time.monotonic()
        if self._lines and (now - self._last > self.INTERVAL or self._done == self._total):
            rate = self._done / (now - self._started)
            line = f"{self._name}: {self._done}/{self._total} jets, {rate:.0f} jets/s"
            print(line, file=sys.stderr, flush=True)
            self._last = now
