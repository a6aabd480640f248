"""Whether a tagger's uncertainties find its mistakes.

Shapes: N jets, C classes, M members.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from jettagger import metrics
from jettagger.evaluation.discriminants import rest_odds
from jettagger.evaluation.predictions import Predictions
from jettagger.evaluation.results import UncertaintyResult
from jettagger.metrics import RiskCoverage

Floats = NDArray[np.float64]
MEASURES: Mapping[str, str] = {
    "total_entropy": "total entropy H(mean p) [nats]",
    "mutual_information": "between trainings: mutual information [nats]",
    "expected_entropy": "label noise: mean of H(p) [nats]",
    "std": "between trainings: largest standard deviation of a class's p",
    "discriminant_std": "between trainings: standard deviation of ln(p / (1 - p))",
}
"""Measures of uncertainty and what they are called in figures."""
COVERAGES = np.arange(1, 201) / 200
"""Coverages at which curves are drawn."""
_BINS = 30
_LARGEST_ODDS = 40.0


def uncertainties(predictions: Predictions) -> dict[str, UncertaintyResult]:
    """Each measure of uncertainty against the mistakes; of a single network the total entropy alone."""
    decomposition = predictions.decomposition
    if decomposition is None:
        return {}
    measured = {"total_entropy": decomposition.total_entropy_N}
    if decomposition.samples > 1:
        measured["mutual_information"] = decomposition.mutual_information_N
        measured["expected_entropy"] = decomposition.expected_entropy_N
        measured["std"] = decomposition.std_NC.max(-1)
    if predictions.members_MNC is not None and len(predictions.members_MNC) > 1:
        measured["discriminant_std"] = _discriminant_std(predictions.members_MNC)
    wrong_N = decomposition.probabilities_NC.argmax(-1) != predictions.labels_N
    return {
        name: _judge(uncertainty_N, wrong_N, predictions.weights_N)
        for name, uncertainty_N in measured.items()
    }


def _discriminant_std(members_MNC: NDArray[np.float32]) -> Floats:
    """Spread over members (ddof = 1) of ln(p_C / rest), the last class, cut off at +-40."""
    odds_MN = np.stack([rest_odds(p_NC, p_NC.shape[1] - 1) for p_NC in members_MNC])
    return np.asarray(np.clip(odds_MN, -_LARGEST_ODDS, _LARGEST_ODDS).std(0, ddof=1), np.float64)


def _judge(uncertainty_N: Floats, wrong_N: NDArray[np.bool_], weights_N: Floats) -> UncertaintyResult:
    curve = metrics.error_against_coverage(uncertainty_N, wrong_N, weights_N)
    top = float(uncertainty_N.max())
    edges = np.linspace(0.0, top if top > 0 else 1.0, _BINS + 1)
    right, wrong = (
        metrics.histogram(uncertainty_N[side_N], edges, weights_N[side_N]) for side_N in (~wrong_N, wrong_N)
    )
    return UncertaintyResult(
        right=right,
        wrong=wrong,
        coverage=RiskCoverage(COVERAGES, metrics.risk_at_coverage(curve, COVERAGES), curve.area),
        error_at_80=float(metrics.risk_at_coverage(curve, 0.8)),
        misclassification_auc=metrics.misclassification_auc(uncertainty_N, wrong_N, weights_N),
    )
