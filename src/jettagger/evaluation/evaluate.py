"""One run's predictions to its figures of merit.

Shapes: N jets, C classes, M members.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jettagger import metrics
from jettagger.evaluation.discriminants import check, pairs_of, rankings_against_rest
from jettagger.evaluation.mistakes import uncertainties
from jettagger.evaluation.pairs import measure_pair
from jettagger.evaluation.predictions import Predictions
from jettagger.evaluation.regression import regression
from jettagger.evaluation.results import PairResult, Result
from jettagger.evaluation.schema import EvaluationSection
from jettagger.metrics import CalibrationCurve, Measurement

Floats = NDArray[np.float64]
_FAILED_BELOW_MEDIAN = 0.01
_FAILED_SPREADS = 5.0


def evaluate(predictions: Predictions, settings: EvaluationSection | None = None) -> Result:
    """Everything that is reported of one run. Raises JettaggerError where nothing can be measured."""
    settings = EvaluationSection() if settings is None else settings
    check(predictions)
    wanted = pairs_of(predictions, settings) if predictions.classes else []
    pairs = tuple(measure_pair(predictions, pair, settings) for pair in wanted)
    signal = pairs[0].signal if pairs else ""
    labels_N, weights_N = predictions.labels_N, predictions.weights_N
    decomposition = predictions.decomposition
    p_NC = None if decomposition is None else decomposition.probabilities_NC
    bins = settings.calibration_bins

    def of_probabilities(figure: Callable[..., Measurement], *more: int) -> Measurement | None:
        return None if p_NC is None else figure(p_NC, labels_N, weights_N, *more)

    result = Result(
        name=predictions.name,
        group=predictions.group,
        seed=predictions.seed,
        evaluated=predictions.evaluated,
        cost=predictions.cost,
        classes=predictions.classes,
        n_jets=len(labels_N),
        n_effective=metrics.effective_entries(weights_N),
        n_jets_of_class=tuple(int((labels_N == k).sum()) for k in range(len(predictions.classes))),
        samples=_samples(predictions),
        auc=_overall_auc(predictions, pairs) if pairs else None,
        accuracy=of_probabilities(metrics.accuracy),
        nll=of_probabilities(metrics.nll),
        brier=of_probabilities(metrics.brier),
        ece=of_probabilities(metrics.top_label_ece, bins),
        ece_floor=None if p_NC is None else metrics.ece_floor(p_NC.max(-1), weights_N, bins),
        adaptive_ece=of_probabilities(metrics.adaptive_ece, bins),
        classwise_ece=of_probabilities(metrics.classwise_ece, bins),
        signal_ece=_signal_ece(p_NC, predictions, signal, bins),
        confusion=None if p_NC is None else metrics.confusion(p_NC, labels_N, weights_N),
        calibration=_calibration(p_NC, predictions, signal, bins),
        pairs=pairs,
        uncertainty=uncertainties(predictions),
        targets=regression(predictions),
        guessing=predictions.guessing,
        history=predictions.history,
        trainings=predictions.trainings,
        n_parameters=predictions.n_parameters,
        training_seconds=predictions.training_seconds,
        notes=(),
    )
    return replace(result, notes=tuple(_notes(predictions, result, settings)))


def _samples(predictions: Predictions) -> int:
    if predictions.decomposition is not None:
        return predictions.decomposition.samples
    return next((one.samples for one in predictions.targets.values()), 1)


def _overall_auc(predictions: Predictions, pairs: tuple[PairResult, ...]) -> Measurement:
    """Of the pair for two classes; else the mean of each class against the rest (a cut: its signal alone)."""
    if len(predictions.classes) == 2:
        return pairs[0].auc
    if predictions.decomposition is None:
        assert predictions.scores_N is not None
        signal_N = predictions.labels_N == predictions.classes.index(pairs[0].signal)
        return metrics.auc(metrics.rank(predictions.scores_N, signal_N, predictions.weights_N))
    p_NC = predictions.decomposition.probabilities_NC
    return metrics.macro_auc(rankings_against_rest(p_NC, predictions))


def _signal_ece(p_NC: Floats | None, predictions: Predictions, signal: str, bins: int) -> Measurement | None:
    if p_NC is None or len(predictions.classes) != 2:
        return None
    k = predictions.classes.index(signal)
    return metrics.binary_ece(p_NC[:, k], predictions.labels_N == k, predictions.weights_N, bins)


def _calibration(
    p_NC: Floats | None, predictions: Predictions, signal: str, bins: int
) -> CalibrationCurve | None:
    if p_NC is None:
        return None
    if len(predictions.classes) == 2:
        k = predictions.classes.index(signal)
        probability_N, true_N = p_NC[:, k], predictions.labels_N == k
    else:
        probability_N, true_N = p_NC.max(-1), p_NC.argmax(-1) == predictions.labels_N
    return metrics.calibration_curve(probability_N, true_N, predictions.weights_N, bins)


def _notes(predictions: Predictions, result: Result, settings: EvaluationSection) -> list[str]:
    notes = []
    drawn = (("efficiency against pT", settings.pt), ("mass spectrum", settings.mass))
    for purpose, variable in drawn if result.pairs else ():
        if variable is not None and variable not in predictions.spectators:
            notes.append(f"no {purpose}: '{variable}' is not among the spectators")
    if (negative := int((predictions.weights_N < 0).sum())) > 0:
        notes.append(f"{negative} of {len(predictions.weights_N)} event weights are negative")
    notes.extend(_beyond(result))
    for pair in result.pairs:
        notes.extend(_failed_members(pair, predictions.member_names))
    return notes


def _beyond(result: Result) -> list[str]:
    """Names figures that negative weights bring out of their range."""
    pairs = [(f"AUC ({pair.name})", pair.auc, 1.0) for pair in result.pairs]
    overall = [] if len(result.classes) == 2 else [("AUC", result.auc, 1.0)]
    others = [("accuracy", result.accuracy, 1.0), ("NLL", result.nll, np.inf), ("Brier", result.brier, 2.0)]
    found = (
        metrics.beyond(name, figure.value, 0.0, highest)
        for name, figure, highest in (*pairs, *overall, *others)
        if figure is not None
    )
    return [words for words in found if words is not None]


def _failed_members(pair: PairResult, names: Sequence[str]) -> list[str]:
    """Names members far below the others: a failed training moves a mean and must not go unseen."""
    auc_M = pair.member_auc_M
    if len(auc_M) < 3:
        return []
    median = float(np.median(auc_M))
    spread = 1.4826 * float(np.median(np.abs(auc_M - median)))
    failed_M = auc_M < median - max(_FAILED_BELOW_MEDIAN, _FAILED_SPREADS * spread)
    return [
        f"{names[k] if names else f'member {k}'} looks failed: AUC {auc_M[k]:.4f} ({pair.name}), median of the "
        f"members {median:.4f}; it is part of the mean"
        for k, failed in enumerate(failed_M)
        if failed
    ]
