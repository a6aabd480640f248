"""One class against another: ROC with member band, working point, dependence on pT, mass sculpting.

Shapes: N jets, M members, G points, K bins.
"""

import numpy as np
from numpy.typing import NDArray

from jettagger import metrics
from jettagger.evaluation.discriminants import Pair, log_odds, rank_pair, to_discriminant
from jettagger.evaluation.predictions import Predictions
from jettagger.evaluation.results import Curve, Dependence, MassSpectra, PairResult
from jettagger.evaluation.schema import EvaluationSection
from jettagger.metrics import Histogram, Ranking, Rejection
from jettagger.randomness import numpy_generator

Floats = NDArray[np.float64]
GRID = np.arange(1, 201) / 200
"""Signal efficiencies at which ROC curves are drawn."""
_DRAWS = 200


def measure_pair(predictions: Predictions, pair: Pair, settings: EvaluationSection) -> PairResult:
    """All figures of one pair of classes."""
    decomposition = predictions.decomposition
    if decomposition is not None:
        scores_N = log_odds(decomposition.probabilities_NC, pair)
    else:
        assert predictions.scores_N is not None
        scores_N = np.asarray(predictions.scores_N, np.float64)
    ranking = rank_pair(scores_N, predictions, pair)
    members = _member_rankings(predictions, pair)
    wanted = settings.signal_efficiencies
    cut = metrics.rejection(ranking, settings.working_point)
    passed_N = scores_N >= cut.threshold
    shown_N = scores_N if decomposition is None else to_discriminant(scores_N)
    signal_scores, background_scores = _score_histograms(shown_N, predictions, pair, settings.score_bins)
    as_shown = _unchanged if decomposition is None else _in_discriminant
    return PairResult(
        signal=predictions.classes[pair.signal],
        background=predictions.classes[pair.background],
        auc=metrics.auc(ranking),
        rejections={wish: as_shown(metrics.rejection(ranking, wish)) for wish in wanted},
        working_point=as_shown(cut),
        curve=_curve(ranking, members),
        signal_scores=signal_scores,
        background_scores=background_scores,
        pt=_against_pt(passed_N, predictions, pair, settings),
        mass=_mass(passed_N, predictions, pair, settings),
        member_auc_M=np.array([metrics.auc_influence(member)[0] for member in members]),
        member_rejection={wish: _rejections(members, wish) for wish in wanted},
    )


def _member_rankings(predictions: Predictions, pair: Pair) -> list[Ranking]:
    if predictions.members_MNC is None or len(predictions.members_MNC) < 2:
        return []
    return [rank_pair(log_odds(p_NC, pair), predictions, pair) for p_NC in predictions.members_MNC]


def _rejections(members: list[Ranking], signal_efficiency: float) -> Floats:
    values = [metrics.rejection(member, signal_efficiency).value for member in members]
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _in_discriminant(rejection: Rejection) -> Rejection:
    return rejection._replace(threshold=float(to_discriminant(np.array(rejection.threshold))))


def _unchanged(rejection: Rejection) -> Rejection:
    return rejection


def _curve(ranking: Ranking, members: list[Ranking]) -> Curve:
    points = metrics.roc_points(ranking, GRID)
    low_G = high_G = None
    if members:
        curves_MG = np.stack([metrics.roc_points(one, GRID).background_efficiency_G for one in members])
        low_G, high_G = curves_MG.min(0), curves_MG.max(0)
    return Curve(GRID, points.background_efficiency_G, points.background_error_G, low_G, high_G)


def _score_histograms(
    shown_N: Floats, predictions: Predictions, pair: Pair, bins: int
) -> tuple[Histogram, Histogram]:
    sides = [predictions.labels_N == index for index in pair]
    edges = np.linspace(0.0, 1.0, bins + 1)
    if predictions.decomposition is None:
        finite_N = shown_N[np.isfinite(shown_N) & (sides[0] | sides[1])]
        edges = np.linspace(*_range(finite_N), bins + 1)
        # A cut may score what it throws away with -inf: it is drawn in the outermost bins.
        shown_N = np.clip(shown_N, edges[0], edges[-1])
    signal, background = (
        metrics.histogram(shown_N[side_N], edges, predictions.weights_N[side_N]) for side_N in sides
    )
    return signal, background


def _against_pt(
    passed_N: NDArray[np.bool_], predictions: Predictions, pair: Pair, settings: EvaluationSection
) -> Dependence | None:
    if settings.pt is None or settings.pt not in predictions.spectators:
        return None
    pt_N = np.asarray(predictions.spectators[settings.pt], np.float64)
    sides = [(predictions.labels_N == index) & np.isfinite(pt_N) for index in pair]
    both_N = sides[0] | sides[1]
    if not both_N.any():
        return None
    inner = metrics.quantile(
        pt_N[both_N], np.arange(1, settings.pt_bins) / settings.pt_bins, predictions.weights_N[both_N]
    )
    edges = np.unique(np.concatenate([[pt_N[both_N].min()], inner, [pt_N[both_N].max()]]))
    if len(edges) == 1:
        edges = edges[0] + np.array([-0.5, 0.5])
    signal, background = (
        metrics.efficiency_in_bins(pt_N[side_N], edges, passed_N[side_N], predictions.weights_N[side_N])
        for side_N in sides
    )
    return Dependence(settings.pt, edges, signal, background)


def _mass(
    passed_N: NDArray[np.bool_], predictions: Predictions, pair: Pair, settings: EvaluationSection
) -> MassSpectra | None:
    if settings.mass is None or settings.mass not in predictions.spectators:
        return None
    mass_N = np.asarray(predictions.spectators[settings.mass], np.float64)
    background_N = (predictions.labels_N == pair.background) & np.isfinite(mass_N)
    if not background_N.any():
        return None
    low, high = mass_N[background_N].min(), float(metrics.quantile(mass_N[background_N], 0.995))
    edges = np.linspace(*_range(np.array([min(low, high), high])), settings.mass_bins + 1)
    # Overflow is drawn in the last bin, so that both spectra count every jet.
    shown_N = np.clip(mass_N, edges[0], edges[-1])
    weights_N = predictions.weights_N
    after_N = background_N & passed_N
    before = metrics.histogram(shown_N[background_N], edges, weights_N[background_N])
    after = metrics.histogram(shown_N[after_N], edges, weights_N[after_N])
    floor = _divergence_floor(before, metrics.effective_entries(weights_N[after_N]), settings.seed)
    return MassSpectra(settings.mass, before, after, _divergence(before.sumw, after.sumw), floor)


def _divergence(first_K: Floats, second_K: Floats) -> float:
    """Jensen-Shannon divergence in bits of two spectra; negative bins count as empty, NaN if one is."""
    spectra = [np.maximum(one_K, 0.0) for one_K in (first_K, second_K)]
    if any(one_K.sum() <= 0 for one_K in spectra):
        return float("nan")
    p_K, q_K = (one_K / one_K.sum() for one_K in spectra)
    middle_K = (p_K + q_K) / 2
    return sum(
        float((one_K[one_K > 0] * np.log2(one_K[one_K > 0] / middle_K[one_K > 0])).sum()) / 2
        for one_K in (p_K, q_K)
    )


def _divergence_floor(before: Histogram, entries: float, seed: int) -> float:
    share_K = np.maximum(before.sumw, 0.0)
    if entries < 1 or share_K.sum() <= 0:
        return float("nan")
    generator = numpy_generator(seed, "mass sculpting")
    draws = generator.multinomial(round(entries), share_K / share_K.sum(), _DRAWS)
    return float(np.mean([_divergence(share_K, draw) for draw in draws]))


def _range(values_N: Floats) -> tuple[float, float]:
    if len(values_N) == 0:
        return 0.0, 1.0
    low, high = float(values_N.min()), float(values_N.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)
