"""From predictions to what is ranked: checks, pairs of classes, discriminants.

Shapes: N jets, C classes, M members.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.errors import JettaggerError, unknown_name
from jettagger.evaluation.predictions import Predictions
from jettagger.evaluation.schema import EvaluationSection
from jettagger.metrics import Ranking, rank

Floats = NDArray[np.float64]
_SUM_TOLERANCE = 1e-2


class Pair(NamedTuple):
    """Indices of two classes."""

    signal: int
    """Class whose efficiency is fixed."""
    background: int
    """Class that is rejected."""


def check(predictions: Predictions) -> None:
    """Raises JettaggerError for predictions that nothing can be measured with, naming the run."""
    run, classes = predictions.name, predictions.classes
    if not classes and predictions.targets:
        _check_jets(predictions)
        return
    if (predictions.scores_N is None) == (predictions.decomposition is None):
        raise ValueError(f"{run}: give either probabilities or scores")
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise JettaggerError(
            f"{run}: needs at least two different classes, not {', '.join(classes) or 'none'}"
        )
    _check_jets(predictions)
    if predictions.labels_N.min() < 0 or predictions.labels_N.max() >= len(classes):
        raise JettaggerError(f"{run}: a label lies outside the {len(classes)} classes ({', '.join(classes)})")
    for index, name in enumerate(classes):
        of_class_N = predictions.labels_N == index
        if not of_class_N.any():
            raise JettaggerError(f"{run}: the test sample holds no jets of class '{name}'")
        if not predictions.weights_N[of_class_N].sum() > 0:
            raise JettaggerError(f"{run}: the event weights of class '{name}' do not sum to more than 0")
    _check_outputs(predictions)


def _check_jets(predictions: Predictions) -> None:
    run, jets = predictions.name, len(predictions.labels_N)
    if jets == 0:
        raise JettaggerError(f"{run}: the test sample holds no jets")
    if not np.isfinite(predictions.weights_N).all():
        raise JettaggerError(
            f"{run}: {_broken(predictions.weights_N)} of {jets} event weights are NaN or inf"
        )
    for name, predicted in predictions.targets.items():
        if (broken := _broken(predicted.value_N)) > 0:
            raise JettaggerError(f"{run}: {broken} of {jets} predictions of {name} are NaN or inf")


def _check_outputs(predictions: Predictions) -> None:
    run, jets = predictions.name, len(predictions.labels_N)
    if predictions.scores_N is not None:
        if (broken := int(np.isnan(predictions.scores_N).sum())) > 0:
            raise JettaggerError(f"{run}: {broken} of {jets} scores are NaN")
        return
    assert predictions.decomposition is not None
    p_NC = predictions.decomposition.probabilities_NC
    if p_NC.shape != (jets, len(predictions.classes)):
        raise ValueError(
            f"{run}: probabilities {p_NC.shape}, {jets} jets, {len(predictions.classes)} classes"
        )
    if (broken := _broken(p_NC)) > 0:
        raise JettaggerError(f"{run}: {broken} of {p_NC.size} probabilities are NaN or inf")
    if np.abs(p_NC.sum(1) - 1).max() > _SUM_TOLERANCE or p_NC.min() < 0:
        raise JettaggerError(f"{run}: the outputs are no probabilities (negative, or they do not sum to 1)")


def pairs_of(predictions: Predictions, settings: EvaluationSection) -> list[Pair]:
    """The pairs that are measured, in the order of the classes."""
    classes = predictions.classes
    for key, name in (("signal", settings.signal), ("background", settings.background)):
        if name is not None and name not in classes:
            raise unknown_name("class", name, classes, where=f"evaluation.{key}")
    if settings.signal is not None and settings.signal == settings.background:
        raise JettaggerError(f"evaluation: signal and background are the same class '{settings.signal}'")
    every = range(len(classes))
    signals = [classes.index(settings.signal)] if settings.signal is not None else list(every)
    backgrounds = [classes.index(settings.background)] if settings.background is not None else list(every)
    if settings.signal is None and (len(classes) == 2 or predictions.scores_N is not None):
        signals = [[k for k in every if [k] != backgrounds][-1]]
    return [Pair(s, b) for s in signals for b in backgrounds if s != b]


def log_odds(probabilities_NC: NDArray[np.floating], pair: Pair) -> Floats:
    """ln(p_S / p_B): ranks as D = p_S / (p_S + p_B) does, without its ties where p_S rounds to 1.

    +-inf where one of the two is 0, and 0 where both are.
    """
    return _log_ratio(probabilities_NC[..., pair.signal], probabilities_NC[..., pair.background])


def rest_odds(probabilities_NC: NDArray[np.floating], index: int) -> Floats:
    """ln(p_k / sum of the others): ranks as p_k does."""
    others = np.delete(np.asarray(probabilities_NC, np.float64), index, axis=-1).sum(-1)
    return _log_ratio(probabilities_NC[..., index], others)


def to_discriminant(log_odds_N: Floats) -> Floats:
    """D = p_S / (p_S + p_B) in [0, 1] of ln(p_S / p_B)."""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-log_odds_N)), np.float64)


def rank_pair(scores_N: Floats, predictions: Predictions, pair: Pair) -> Ranking:
    """Ranks the jets of the two classes; indices point into all jets of the sample."""
    kept = np.flatnonzero((predictions.labels_N == pair.signal) | (predictions.labels_N == pair.background))
    signal_N = predictions.labels_N[kept] == pair.signal
    local = rank(scores_N[kept], signal_N, predictions.weights_N[kept])
    return Ranking(
        **{
            **vars(local),
            "jets": len(scores_N),
            "signal_S": kept[local.signal_S],
            "background_B": kept[local.background_B],
        }
    )


def rankings_against_rest(probabilities_NC: NDArray[np.floating], predictions: Predictions) -> list[Ranking]:
    """Each class against all others."""
    return [
        rank(rest_odds(probabilities_NC, k), predictions.labels_N == k, predictions.weights_N)
        for k in range(len(predictions.classes))
    ]


def _log_ratio(above: NDArray[np.floating], below: NDArray[np.floating]) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(above.astype(np.float64)) - np.log(below.astype(np.float64))
    return np.where(np.isnan(ratio), 0.0, ratio)


def _broken(values: NDArray[np.floating]) -> int:
    return int((~np.isfinite(values)).sum())
