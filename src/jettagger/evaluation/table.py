"""The headline table, and how a figure and its error are rounded."""

import math
from collections.abc import Sequence

from jettagger.evaluation.results import Result
from jettagger.metrics import Measurement, Rejection

NOTHING = "–"
"""Stands where a figure is not defined."""


def format_table(results: Sequence[Result]) -> str:
    """The headline table as plain text, one line a run, columns aligned.

    With several pairs of classes a last line says which one the rejections are of.
    """
    if not results[0].classes:
        return _aligned(targets_rows(results))
    text = _aligned(headline(results))
    if len(results[0].pairs) > 1:
        text += f"\nR: {results[0].headline.signal} against {results[0].headline.background}"
    if any(result.targets for result in results):
        text += "\n\n" + _aligned(targets_rows(results))
    return text


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def headline(results: Sequence[Result]) -> list[list[str]]:
    """The same as cells; the first row holds the titles. Rejections are of `Result.headline`."""
    wanted = list(results[0].headline.rejections)
    titles = ["run", "accuracy", "AUC", *(f"R({value:g})" for value in wanted), "NLL", "Brier", "ECE", "jets"]
    rows = [titles]
    for result in results:
        rejections = result.headline.rejections
        rows.append(
            [
                result.name,
                format_measurement(result.accuracy),
                format_measurement(result.auc),
                *(format_rejection(rejections[value]) for value in wanted),
                format_measurement(result.nll),
                format_measurement(result.brier),
                format_measurement(result.ece),
                str(result.n_jets),
            ]
        )
    return rows


def targets_rows(results: Sequence[Result]) -> list[list[str]]:
    """The figures of regression targets, one line a run and target; the first row holds the titles."""
    rows = [
        ["run", "target", "bias", "resolution", "RMSE", "pull mean", "pull width", "68 %", "95 %", "jets"]
    ]
    for result in results:
        for one in result.targets:
            pulls = one.pulls
            of_pulls = (None,) * 4 if pulls is None else pulls
            between = (one.interval_coverage.get(level) for level in (0.68, 0.95))
            covered = of_pulls[2:] if not one.interval_coverage else tuple(between)
            cells = (*one.residuals, *of_pulls[:2], *covered)
            rows.append([result.name, one.name, *map(format_measurement, cells), str(one.n_jets)])
    return rows


def format_measurement(measurement: Measurement | None, *, signed: bool = False) -> str:
    """Value ± error, both rounded to the error's two significant digits.

    >>> format_measurement(Measurement(0.991299, 0.000581)), format_measurement(Measurement(1455.3, 382.0))
    ('0.99130 ± 0.00058', '1460 ± 380')
    """
    if measurement is None or not math.isfinite(measurement.value):
        return NOTHING
    value, error = measurement
    sign = "+" if signed else ""
    if not math.isfinite(error) or error <= 0:
        return f"{value:{sign}.4g}"
    digits = _digits(error)
    return f"{_rounded(value, digits, sign)} ± {_rounded(error, digits)}"


def rounded_to(value: float, error: float) -> str:
    """The value to the error's two significant digits, without the error."""
    return f"{value:.4g}" if not error > 0 else _rounded(value, _digits(error))


def format_rejection(rejection: Rejection) -> str:
    """Rejection ± error, or its 68 % CL lower limit: `> 8900`."""
    if rejection.value is None:
        limit = rejection.lower_limit
        return NOTHING if limit is None else f"> {_rounded(limit, _digits(limit))}"
    return format_measurement(Measurement(rejection.value, rejection.error or math.nan))


def _digits(error: float) -> int:
    """Decimal places that keep two significant digits of the error; negative for tens and hundreds."""
    digits = 1 - math.floor(math.log10(error))
    # 0.0996 rounds to 0.10: one place fewer holds its two digits.
    return digits - 1 if round(error, digits) >= 10.0 ** (2 - digits) else digits


def _rounded(value: float, digits: int, sign: str = "") -> str:
    return f"{round(value, digits):{sign}.{max(digits, 0)}f}"
