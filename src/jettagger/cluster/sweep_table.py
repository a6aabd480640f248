"""The table of a sweep: its settings, sorted by a figure of the validation jets."""

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jettagger.cluster.progress import Member
from jettagger.cluster.status import RunStatus, status_of
from jettagger.cluster.sweep import read_sweep
from jettagger.errors import JettaggerError
from jettagger.files import write_json

TABLE = "table.json"
HIGHER_IS_BETTER = {"auc": True, "accuracy": True, "validation_loss": False}
BEST, MEAN = "best epoch", "mean of weights"
"""Which weights a training keeps."""
OTHER_JETS = ("data", "classes", "weights", "inputs")
"""Sections that may change which jets are validated, and how they count."""
OTHER_LOSS = ("training.loss", "targets")


@dataclass(frozen=True)
class Row:
    """One setting, with all its seeds, folds and members."""

    values: Mapping[str, Any]
    points: tuple[str, ...]
    metric: float | None
    """Mean over its trainings, each with the weights that it keeps; None while none has ended."""
    spread: float | None
    """Standard deviation over its trainings; None for fewer than two."""
    trainings: int
    """That have ended."""
    of: int
    failed: int
    kept: str | None
    """Whose figure it is: `best epoch` or `mean of weights`; None while none has ended."""


@dataclass(frozen=True)
class Table:
    """All settings, the best first; those without a figure last."""

    metric: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def make_table(run: Path) -> Table:
    """The table of a sweep, whatever has ended yet; it is also written to RUN/table.json."""
    sweep = read_sweep(run)
    if sweep is None:
        raise JettaggerError(f"{run} holds no sweep")
    groups: dict[str, list[RunStatus]] = {}
    for one in status_of(run).runs:
        assert one.point is not None
        groups.setdefault(json.dumps(dict(one.point.values)), []).append(one)
    rows = [_row(group, sweep.metric) for group in groups.values()]
    sign = -1 if HIGHER_IS_BETTER[sweep.metric] else 1
    rows.sort(key=lambda row: (row.metric is None, sign * (row.metric or 0.0)))
    swept = {key for point in sweep.points for key in point.values}
    table = Table(sweep.metric, tuple(rows), tuple(_notes(sweep.metric, swept)))
    write_json(run / TABLE, asdict(table))
    return table


def _row(group: list[RunStatus], metric: str) -> Row:
    members = [member for one in group for member in one.members]
    kept = {
        BEST if member.mean is None else MEAN: None
        for member in members
        if _figure(member, metric) is not None
    }
    figures = [figure for member in members if (figure := _figure(member, metric)) is not None]
    point = group[0].point
    assert point is not None
    return Row(
        values=point.values,
        points=tuple(one.name for one in group),
        metric=statistics.fmean(figures) if figures else None,
        spread=statistics.stdev(figures) if len(figures) > 1 else None,
        trainings=len(figures),
        of=len(members),
        failed=sum(member.state == "failed" for member in members),
        kept=" or ".join(kept) or None,
    )


def _figure(member: Member, metric: str) -> float | None:
    if member.state != "done" or member.kept is None:
        return None
    figure: float | None = getattr(member.kept, metric)
    return figure


def _notes(metric: str, swept: set[str]) -> list[str]:
    notes = [
        f"{metric} of the validation jets, mean over the trainings, each with the weights that it keeps. These jets"
        " chose the epoch, and now the setting: quote what the chosen point gives on test jets (jettagger evaluate)."
    ]
    if other := sorted(key for key in swept if key.partition(".")[0] in OTHER_JETS):
        notes.append(
            f"{', '.join(other)}: the points may not be validated on the same jets; compare with care."
        )
    if other := sorted(key for key in swept if key.startswith("training.swa")):
        notes.append(
            f"{', '.join(other)}: a best epoch was chosen among all by these jets and looks a little better than it is,"
            " a mean of weights was not chosen."
        )
    if other := sorted(key for key in swept if key.startswith(OTHER_LOSS)):
        notes.append(f"{', '.join(other)}: the points may not have the same loss; compare another metric.")
    return notes


def as_text(table: Table) -> str:
    """A line for each setting."""
    keys = list(table.rows[0].values)
    means = any(row.kept not in (None, BEST) for row in table.rows)
    head = [*keys, table.metric, "spread", *(["of"] if means else []), "trainings", "points"]
    cells = [head, *(_cells(row, keys, means) for row in table.rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join([*lines, *table.notes])


def _cells(row: Row, keys: list[str], means: bool) -> list[str]:
    points = row.points[0] if len(row.points) == 1 else f"{row.points[0]} … {row.points[-1]}"
    failed = f", {row.failed} failed" if row.failed else ""
    return [
        *(json.dumps(row.values[key]) for key in keys),
        "–" if row.metric is None else f"{row.metric:.5f}",
        "–" if row.spread is None else f"{row.spread:.5f}",
        *([row.kept or "–"] if means else []),
        f"{row.trainings} of {row.of}{failed}",
        points,
    ]
