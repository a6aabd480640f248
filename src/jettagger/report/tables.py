"""The tables of the page as HTML."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from jettagger.evaluation.mistakes import MEASURES
from jettagger.evaluation.results import Difference, Evaluation, Result, SeedSpread
from jettagger.evaluation.table import (
    NOTHING,
    format_measurement,
    format_rejection,
    headline,
    rounded_to,
    targets_rows,
)
from jettagger.metrics import Measurement

_NAMES = {"auc": "AUC", "accuracy": "accuracy", "nll": "NLL", "brier": "Brier", "ece": "ECE"}


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of plain text, the first one titles, the first column names; scrolls sideways where it is wide."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    body = "\n".join(_html_row(row) for row in rows[1:])
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<div class="wide">{table}</div>'


def _html_row(row: Sequence[str]) -> str:
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
    return f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>'


def headline_table(evaluation: Evaluation) -> str:
    """One line a run; the number of jets stands above it where all runs have the same."""
    rows = headline(evaluation.results)
    same = len({result.n_jets for result in evaluation.results}) == 1
    return html_table([row[:-1] for row in rows] if same else rows)


def targets_table(results: Sequence[Result]) -> str:
    """The figures of regression targets."""
    return html_table(targets_rows(results))


def pairs_table(results: Sequence[Result]) -> str:
    """AUC and rejections of every pair of classes, where there are several."""
    wanted = list(results[0].pairs[0].rejections)
    rows = [["run", "signal", "background", "AUC", *(f"R({value:g})" for value in wanted)]]
    for result in results:
        for pair in result.pairs:
            cells = [format_rejection(pair.rejections[value]) for value in wanted]
            rows.append([result.name, pair.signal, pair.background, format_measurement(pair.auc), *cells])
    return html_table(rows)


def differences_table(differences: Sequence[Difference], pair: str) -> str:
    """Each run minus the reference; the rejections of one pair as ratios."""
    figures = [name for name in _NAMES if any(name in one.figures for one in differences)]
    wanted = list(differences[0].log_rejection_ratio.get(pair, {}))
    changes = [f"Δ {_NAMES[name]}" for name in figures]
    rows = [["run", *changes, *(f"R({value:g}) / ref." for value in wanted)]]
    for one in differences:
        cells = [format_measurement(one.figures.get(name), signed=True) for name in figures]
        ratios = [_ratio(one.log_rejection_ratio.get(pair, {}).get(value)) for value in wanted]
        rows.append([one.name, *cells, *ratios])
    return html_table(rows)


def seeds_table(seeds: Sequence[SeedSpread]) -> str:
    """Mean ± standard deviation over seeds, and the range."""
    rows = [["group", "figure", "seeds", "mean ± std", "smallest", "largest"]]
    for one in seeds:
        for name, values in one.figures.items():
            known = values[np.isfinite(values)]
            cells = [NOTHING] * 3
            if len(known) >= 2:
                std = float(known.std(ddof=1))
                spread = format_measurement(Measurement(float(known.mean()), std))
                cells = [spread, *(rounded_to(float(end), std) for end in (known.min(), known.max()))]
            rows.append([one.group, _figure_name(name), str(len(values)), *cells])
    return html_table(rows)


def calibration_table(results: Sequence[Result]) -> str:
    """The calibration errors by their full names."""
    rows = [
        [
            "run",
            "ECE, top label",
            "of a perfect tagger",
            "adaptive",
            "classwise",
            "of P(signal)",
            "NLL",
            "Brier",
        ]
    ]
    for result in results:
        if result.ece is not None:
            floor = NOTHING if result.ece_floor is None else f"{result.ece_floor:.4f}"
            rows.append(
                [
                    result.name,
                    format_measurement(result.ece),
                    floor,
                    format_measurement(result.adaptive_ece),
                    format_measurement(result.classwise_ece),
                    format_measurement(result.signal_ece),
                    format_measurement(result.nll),
                    format_measurement(result.brier),
                ]
            )
    return html_table(rows)


def uncertainty_table(results: Sequence[Result]) -> str:
    """How well each measure of uncertainty finds the mistakes."""
    rows = [["run", "uncertainty", "misclassification AUC", "AURC", "error at 80 % coverage"]]
    for result in results:
        for name, one in result.uncertainty.items():
            cells = [
                MEASURES[name],
                format_measurement(one.misclassification_auc),
                f"{one.coverage.area:.4f}",
                f"{one.error_at_80:.4f}",
            ]
            rows.append([result.name, *cells])
    return html_table(rows)


def _ratio(log_ratio: Measurement | None) -> str:
    if log_ratio is None or not math.isfinite(log_ratio.value):
        return NOTHING
    ratio = math.exp(log_ratio.value)
    return format_measurement(Measurement(ratio, ratio * log_ratio.error))


def _figure_name(name: str) -> str:
    """`R(0.3) Top vs QCD` for `rejection Top_vs_QCD 0.3`."""
    if not name.startswith("rejection "):
        return _NAMES.get(name, name)
    pair, wanted = name.removeprefix("rejection ").rsplit(" ", 1)
    return f"R({wanted}) {pair.replace('_vs_', ' vs ')}"
