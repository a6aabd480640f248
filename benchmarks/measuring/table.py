"""What was measured, round by round: medians, and ratios of neighbours."""

import statistics
from collections import defaultdict
from typing import Any, NamedTuple

from measuring.fresh_process import Measured, Outcome
from measuring.rows import PASSES, Line, Row

PREPARED, LATER = "prepared → batches, first epoch", "prepared → batches, later epoch"


class Ratio(NamedTuple):
    """Two lines that are compared in each round."""

    above: Line
    below: Line
    at_least: float | None
    """What the design asks for."""


class Table:
    """Lines in the order in which they were first measured."""

    def __init__(self) -> None:
        self.measured: dict[Line, list[Measured]] = defaultdict(list)
        self.first_batch: dict[Line, list[float]] = defaultdict(list)
        self.notes: list[str] = []
        self.failures: list[str] = []

    def add(self, row: Row, outcome: Outcome) -> None:
        for number, (result, line) in enumerate(row.lines()):
            self.measured[line].append(outcome.results[result])
            if not number and "first batch" in outcome.told:
                self.first_batch[line].append(outcome.told["first batch"])

    def leave_out(self, row: Row) -> None:
        """As if the row had never been measured."""
        for _, line in row.lines():
            self.measured.pop(line, None)

    def show(self, ratios: list[Ratio]) -> None:
        """Prints it."""
        width = max(len(line.what) for line in self.measured)
        head = f"{'':10}{'':{width}}  container  proc.  cache   jets/s wall  processor  peak MB  1st batch s"
        print(head)
        for line in self.measured:
            print(
                f"{line.who:10}{line.what:{width}}  {line.container:9}  {line.processes:5}  {self._row(line)}"
            )
        print("\njettagger over the others, medians of the ratios of one round:")
        print("\n".join(map(self._said, ratios)))
        print("\n".join(["", *self.notes]))

    def _row(self, line: Line) -> str:
        figures = self.figures(line)
        first = figures["first_batch_seconds"]
        return (
            f"{line.cache:5}  {_thousands(figures['jets_per_second']):>12}"
            f"  {_thousands(figures['jets_per_processor_second']):>9}  {figures['peak_bytes'] / 1e6:7.0f}"
            f"  {'' if first is None else f'{first:11.2f}'}"
        )

    def figures(self, line: Line) -> dict[str, Any]:
        """Medians."""
        found = self.measured[line]
        first = self.first_batch.get(line)
        return {
            "jets_per_second": statistics.median(x.jets / x.wall for x in found),
            "jets_per_processor_second": statistics.median(x.jets / x.processor for x in found),
            "peak_bytes": statistics.median(x.peak for x in found),
            "first_batch_seconds": statistics.median(first) if first else None,
        }

    def ratio(self, ratio: Ratio) -> tuple[float, float]:
        """By the wall clock and by the processors' time."""
        pairs = list(zip(self.measured[ratio.above], self.measured[ratio.below], strict=True))
        wall = statistics.median((a.jets / a.wall) / (b.jets / b.wall) for a, b in pairs)
        processor = statistics.median((a.jets / a.processor) / (b.jets / b.processor) for a, b in pairs)
        return wall, processor

    def _said(self, ratio: Ratio) -> str:
        wall, processor = self.ratio(ratio)
        wanted = "" if ratio.at_least is None else f"  wanted: {ratio.at_least:g}"
        above, below = ratio.above, ratio.below
        place = f"{above.container}, {above.processes}, {above.cache}"
        what = f"{above.what} / {below.who}: {below.what}"
        return f"{wall:6.2f} (wall) {processor:6.2f} (processor)  {place:17} {what}{wanted}"

    def as_json(self, ratios: list[Ratio]) -> dict[str, Any]:
        rows = [
            {**line._asdict(), **self.figures(line), "rounds": [x._asdict() for x in found]}
            for line, found in self.measured.items()
        ]
        compared = []
        for ratio in ratios:
            wall, processor = self.ratio(ratio)
            names = {"above": ratio.above._asdict(), "below": ratio.below._asdict()}
            compared.append({**names, "wall": wall, "processor": processor, "at_least": ratio.at_least})
        return {"rows": rows, "ratios": compared, "notes": self.notes, "failures": self.failures}


def ratios_of(table: Table) -> list[Ratio]:
    """Each jettagger line over what its neighbours reach with as many processes and the same cache."""
    found = []
    for line in table.measured:
        for other in table.measured:
            same = (other.container, other.processes, other.cache) == line[2:]
            if line.who == "jettagger" and same and _comparable(line, other):
                found.append(Ratio(line, other, _limit(line, other)))
    return found


def _comparable(line: Line, other: Line) -> bool:
    if other.who == "jettagger":
        return False
    if line.what == LATER:
        return "later epoch" in other.what
    if line.what == PREPARED:
        return other.who == "salt" and "first epoch" in other.what
    if line.what.endswith(PASSES[1]):
        return other.what.endswith(PASSES[1])
    return "later epoch" not in other.what and not other.what.endswith(PASSES[1])


def _limit(line: Line, other: Line) -> float | None:
    """What the design asks for, of one process and a warm cache."""
    limits = {"uproot": 0.6, "weaver": 6.0}
    return limits.get(other.who) if (line.processes, line.cache) == (1, "warm") else None


def _thousands(rate: float) -> str:
    return f"{rate / 1000:.1f}k"
