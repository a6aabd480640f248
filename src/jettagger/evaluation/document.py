"""`report.json`: stable keys, plain numbers, null where a figure is not defined.

docs/report.md lists the keys.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jettagger import __version__
from jettagger.advice import advise_members
from jettagger.evaluation.regression import TargetResult
from jettagger.evaluation.results import Difference, Evaluation, PairResult, Result, SeedSpread
from jettagger.metrics import Measurement

FORMAT = 1
"""Raised when a key changes its meaning or goes away."""
_FIGURES = (
    "accuracy",
    "auc",
    "nll",
    "brier",
    "ece",
    "adaptive_ece",
    "classwise_ece",
    "signal_ece",
)


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """The content of `report.json`."""
    return {
        "format": FORMAT,
        "jettagger": __version__,
        "runs": [
            _run(result, evaluation.bootstrap_errors.get(result.name, {})) for result in evaluation.results
        ],
        "differences": [_difference(one) for one in evaluation.differences],
        "seeds": [_seeds(one) for one in evaluation.seeds],
        "settings": evaluation.settings.model_dump(),
        "notes": list(evaluation.notes),
    }


def plain(value: float | None) -> float | None:
    """The number as JSON can hold it: None for NaN and infinity."""
    return None if value is None or not math.isfinite(value) else float(value)


def _run(result: Result, bootstrap_errors: Mapping[str, float]) -> dict[str, Any]:
    return {
        "name": result.name,
        "group": result.group,
        "seed": result.seed,
        "evaluated": result.evaluated,
        "classes": list(result.classes),
        "n_jets": result.n_jets,
        "n_jets_of_class": dict(zip(result.classes, result.n_jets_of_class, strict=True)),
        "n_effective": plain(result.n_effective),
        "members": result.samples,
        "n_parameters": result.n_parameters,
        "training_seconds": plain(result.training_seconds),
        "cost": None if result.cost is None else dict(result.cost),
        **_with_errors({name: getattr(result, name) for name in _FIGURES}),
        "ece_floor": plain(result.ece_floor),
        **_rejections(result.pairs),
        "pair_auc": {pair.name: plain(pair.auc.value) for pair in result.pairs},
        "pair_auc_error": {pair.name: plain(pair.auc.error) for pair in result.pairs},
        "confusion": _matrix(result, "fraction_CC"),
        "confusion_error": _matrix(result, "error_CC"),
        "uncertainty": _uncertainty(result),
        "targets": {one.name: _target(one) for one in result.targets},
        "member_spread": {pair.name: _member_spread(pair) for pair in result.pairs if len(pair.member_auc_M)},
        "mass_sculpting": {
            pair.name: {
                "variable": pair.mass.variable,
                "divergence": plain(pair.mass.divergence),
                "divergence_floor": plain(pair.mass.divergence_floor),
            }
            for pair in result.pairs
            if pair.mass is not None
        },
        "bootstrap_error": {name: plain(error) for name, error in bootstrap_errors.items()},
        "training": list(advise_members(result.history, result.guessing, result.trainings)),
        "notes": list(result.notes),
    }


def _with_errors(figures: Mapping[str, Measurement | None]) -> dict[str, float | None]:
    written: dict[str, float | None] = {}
    for name, measurement in figures.items():
        written[name] = plain(measurement.value) if measurement else None
        written[f"{name}_error"] = plain(measurement.error) if measurement else None
    return written


def _rejections(pairs: Iterable[PairResult]) -> dict[str, Any]:
    keys = {
        "rejection": "value",
        "rejection_error": "error",
        "rejection_lower_limit": "lower_limit",
        "threshold": "threshold",
        "signal_efficiency": "signal_efficiency",
    }
    return {
        key: {
            pair.name: {f"{wanted:g}": plain(getattr(one, field)) for wanted, one in pair.rejections.items()}
            for pair in pairs
        }
        for key, field in keys.items()
    }


def _matrix(result: Result, field: str) -> dict[str, dict[str, float | None]] | None:
    if result.confusion is None:
        return None
    cells = getattr(result.confusion, field)
    return {
        true: {predicted: plain(cells[i, j]) for j, predicted in enumerate(result.classes)}
        for i, true in enumerate(result.classes)
    }


def _uncertainty(result: Result) -> dict[str, dict[str, float | None]]:
    return {
        name: {
            "misclassification_auc": plain(one.misclassification_auc.value),
            "misclassification_auc_error": plain(one.misclassification_auc.error),
            "aurc": plain(one.coverage.area),
            "error_at_80_coverage": plain(one.error_at_80),
        }
        for name, one in result.uncertainty.items()
    }


def _target(one: TargetResult) -> dict[str, Any]:
    pulls = one.pulls
    figures = {
        "bias": one.residuals.bias,
        "resolution": one.residuals.resolution,
        "rmse": one.residuals.rmse,
        "pull_mean": None if pulls is None else pulls.mean,
        "pull_width": None if pulls is None else pulls.width,
        "coverage_68": None if pulls is None else pulls.coverage_68,
        "coverage_95": None if pulls is None else pulls.coverage_95,
    }
    quantiles = _with_errors({f"{level:g}": found for level, found in one.quantile_coverage.items()})
    intervals = _with_errors({f"{width:g}": found for width, found in one.interval_coverage.items()})
    return {
        "n_jets": one.n_jets,
        "error": one.error,
        **_with_errors(figures),
        "quantile_coverage": quantiles,
        "interval_coverage": intervals,
    }


def _member_spread(pair: PairResult) -> dict[str, Any]:
    return {
        "auc": _spread(pair.member_auc_M),
        "rejection": {f"{wanted:g}": _spread(values) for wanted, values in pair.member_rejection.items()},
    }


def _spread(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    low, median, high = np.quantile(known, [0.16, 0.5, 0.84]) if len(known) else (np.nan,) * 3
    return {
        "values": [plain(value) for value in values],
        "mean": plain(known.mean()) if len(known) else None,
        "std": plain(known.std(ddof=1)) if len(known) > 1 else None,
        "median": plain(median),
        "half_68": plain((high - low) / 2),
        "min": plain(known.min()) if len(known) else None,
        "max": plain(known.max()) if len(known) else None,
    }


def _difference(one: Difference) -> dict[str, Any]:
    ratios = one.log_rejection_ratio.items()
    return {
        "name": one.name,
        "reference": one.reference,
        **_with_errors(one.figures),
        "log_rejection_ratio": {
            pair: {f"{wanted:g}": plain(m.value) for wanted, m in by.items()} for pair, by in ratios
        },
        "log_rejection_ratio_error": {
            pair: {f"{wanted:g}": plain(m.error) for wanted, m in by.items()} for pair, by in ratios
        },
        "seed_error": {name: plain(error) for name, error in one.seed_errors.items()},
    }


def _seeds(one: SeedSpread) -> dict[str, Any]:
    return {
        "group": one.group,
        "runs": list(one.runs),
        "figures": {name: _spread(values) for name, values in one.figures.items()},
    }
