"""Weighted figures of merit with errors, in NumPy alone.

Shapes: N jets, C classes, S signal jets, B background jets, G points of a grid, K bins, R bootstrap replicas.

Event weights enter every figure and may be negative: sums are then taken as they stand, so that a cumulative
efficiency need not rise monotonically. Thresholds are set where an efficiency is first reached, coming from
the signal-like side, and a fraction outside [0, 1] is never clipped in a central value. A figure that is not
defined is NaN here and null in `report.json`; nothing is ever infinite.
"""

from jettagger.metrics.bootstrap import (
    Paired,
    Statistic,
    bootstrap,
    ece_statistic,
    macro_statistic,
    mean_statistic,
    paired_bootstrap,
    ranking_statistic,
    replica_counts,
    spread,
)
from jettagger.metrics.calibration import (
    CalibrationCurve,
    adaptive_ece,
    binary_ece,
    brier,
    calibration_curve,
    classwise_ece,
    ece_floor,
    nll,
    top_label_ece,
)
from jettagger.metrics.counting import (
    Confusion,
    Efficiency,
    Histogram,
    Measurement,
    accuracy,
    confusion,
    effective_entries,
    efficiency,
    efficiency_in_bins,
    histogram,
    quantile,
    weighted_mean,
    wilson,
)
from jettagger.metrics.ranking import (
    Ranking,
    Rejection,
    Roc,
    RocPoints,
    auc,
    auc_influence,
    macro_auc,
    rank,
    rejection,
    roc,
    roc_points,
    significance_improvement,
)
from jettagger.metrics.selection import (
    RiskCoverage,
    error_against_coverage,
    misclassification_auc,
    risk_at_coverage,
)

__all__ = [
    "CalibrationCurve",
    "Confusion",
    "Efficiency",
    "Histogram",
    "Measurement",
    "Paired",
    "Ranking",
    "Rejection",
    "RiskCoverage",
    "Roc",
    "RocPoints",
    "Statistic",
    "accuracy",
    "adaptive_ece",
    "auc",
    "auc_influence",
    "binary_ece",
    "bootstrap",
    "brier",
    "calibration_curve",
    "classwise_ece",
    "confusion",
    "ece_floor",
    "ece_statistic",
    "effective_entries",
    "efficiency",
    "efficiency_in_bins",
    "error_against_coverage",
    "histogram",
    "macro_auc",
    "macro_statistic",
    "mean_statistic",
    "misclassification_auc",
    "nll",
    "paired_bootstrap",
    "quantile",
    "rank",
    "ranking_statistic",
    "rejection",
    "replica_counts",
    "risk_at_coverage",
    "roc",
    "roc_points",
    "significance_improvement",
    "spread",
    "top_label_ece",
    "weighted_mean",
    "wilson",
]
