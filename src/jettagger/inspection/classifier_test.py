"""Two samples told apart by boosted trees, cross-validated: an AUC above 0.5 means that they differ somewhere.

All variables are used together, so that differences which no single distribution shows are found as well
(classifier two-sample test, arXiv:1610.06545).

Shapes: J jets, V variables.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger import metrics, randomness

Floats = NDArray[np.float64]
FOLDS = 5
LARGEST = 10_000
"""Jets of each sample that are used, at most."""
LEAST = 100
"""Jets of each sample that are needed."""
PERMUTATIONS = 1000


class Separation(NamedTuple):
    """What a variable adds to telling the samples apart."""

    name: str
    loss: float
    """Fall of the AUC when its values are shuffled; folds' mean."""
    error: float
    """Standard error between folds."""


class ClassifierTest(NamedTuple):
    """Outcome of the test."""

    jets: tuple[int, int]
    """Jets used of both."""
    auc: float
    """Mean of the folds, each scored by trees that saw none of its events."""
    error: float
    """DeLong's, of all folds."""
    p_value: float
    """Probability of such an AUC or a higher one if the samples are alike: labels of the scored jets permuted."""
    variables: tuple[Separation, ...]
    """The most separating first."""
    negative_weights: bool
    """Whether there are any: the trees are fitted without these jets, the AUC counts them."""


class _Jets(NamedTuple):
    values_JV: NDArray[np.float32]
    is_second_J: NDArray[np.bool_]
    weights_J: Floats
    fold_J: NDArray[np.int64]


def classifier_test(
    names: Sequence[str],
    values: tuple[NDArray[np.float32], NDArray[np.float32]],
    weights: tuple[Floats, Floats],
    groups: tuple[NDArray[np.int64], NDArray[np.int64]],
    *,
    seed: int = 0,
) -> ClassifierTest | None:
    """The test; None with fewer than LEAST jets in a sample, or no positive sum of weights in a fold."""
    from threadpoolctl import threadpool_limits

    if min(len(values[0]), len(values[1])) < LEAST or not names:
        return None
    # The trees are small: waiting for other threads would take longer than the work.
    with threadpool_limits(1):
        return _tested(names, _joined(values, weights, groups, seed), seed)


def _tested(names: Sequence[str], jets: _Jets, seed: int) -> ClassifierTest | None:
    scores_J = np.empty(len(jets.weights_J))
    losses_KV, rankings = [], []
    for fold in range(FOLDS):
        held_out = jets.fold_J == fold
        if not _usable(jets, held_out) or not _usable(jets, ~held_out):
            return None
        trees = _fitted(jets, ~held_out, seed)
        scores_J[held_out] = trees.decision_function(jets.values_JV[held_out])
        rankings.append(
            metrics.rank(scores_J[held_out], jets.is_second_J[held_out], jets.weights_J[held_out])
        )
        losses_KV.append(_losses(trees, jets, held_out, metrics.auc(rankings[-1]).value, seed + fold))
    measured = [metrics.auc(ranking) for ranking in rankings]
    auc = float(np.mean([one.value for one in measured]))
    counts = (int((~jets.is_second_J).sum()), int(jets.is_second_J.sum()))
    return ClassifierTest(
        jets=counts,
        auc=auc,
        error=float(np.sqrt(np.sum([one.error**2 for one in measured])) / FOLDS),
        p_value=_p_value(scores_J, jets, auc, seed),
        variables=_separations(names, np.array(losses_KV)),
        negative_weights=bool((jets.weights_J < 0).any()),
    )


def _joined(
    values: tuple[NDArray[np.float32], NDArray[np.float32]],
    weights: tuple[Floats, Floats],
    groups: tuple[NDArray[np.int64], NDArray[np.int64]],
    seed: int,
) -> _Jets:
    """A random part of both, each with the sum of weights 1, and folds that keep events whole."""
    parts = []
    for number in (0, 1):
        count = len(values[number])
        rows = np.arange(count)
        if count > LARGEST:
            generator = randomness.numpy_generator(seed, "two samples", number)
            rows = np.sort(generator.permutation(count)[:LARGEST])
        w = weights[number][rows]
        fold = randomness.uniform_of(groups[number][rows], seed, "two samples") * FOLDS
        scale = len(rows) / w.sum() if w.sum() > 0 else 1.0
        parts.append(
            _Jets(values[number][rows], np.full(len(rows), number == 1), w * scale, fold.astype(np.int64))
        )
    joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    joined[0] = np.where(np.isfinite(joined[0]), joined[0], np.nan)
    return _Jets(*joined)


def _usable(jets: _Jets, rows: NDArray[np.bool_]) -> bool:
    sums = [jets.weights_J[rows & (jets.is_second_J == side)].sum() for side in (False, True)]
    return all(total > 0 for total in sums)


def _fitted(jets: _Jets, rows: NDArray[np.bool_], seed: int) -> Any:
    """Trees fitted to `rows`, both samples with the same sum of weights."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows = rows & (jets.weights_J > 0)
    labels, weights = jets.is_second_J[rows], jets.weights_J[rows].copy()
    for side in (False, True):
        weights[labels == side] *= len(weights) / (2 * weights[labels == side].sum())
    trees = HistGradientBoostingClassifier(
        max_iter=60, learning_rate=0.1, max_leaf_nodes=15, early_stopping=False, random_state=seed
    )
    return trees.fit(jets.values_JV[rows], labels, sample_weight=weights)


def _losses(trees: Any, jets: _Jets, rows: NDArray[np.bool_], whole: float, seed: int) -> Floats:
    """How much the AUC of held-out jets falls when one variable is shuffled among them."""
    values_JV = jets.values_JV[rows].copy()
    labels, weights = jets.is_second_J[rows], jets.weights_J[rows]
    generator = randomness.numpy_generator(seed, "permutation importance")
    losses = np.empty(values_JV.shape[1])
    for column in range(values_JV.shape[1]):
        kept = values_JV[:, column].copy()
        values_JV[:, column] = generator.permutation(kept)
        ranking = metrics.rank(trees.decision_function(values_JV), labels, weights)
        losses[column] = whole - metrics.auc(ranking).value
        values_JV[:, column] = kept
    return losses


def _separations(names: Sequence[str], losses_KV: Floats) -> tuple[Separation, ...]:
    mean_V, error_V = losses_KV.mean(0), losses_KV.std(0, ddof=1) / np.sqrt(len(losses_KV))
    found = [Separation(*one) for one in zip(names, mean_V.tolist(), error_V.tolist(), strict=True)]
    return tuple(sorted(found, key=lambda one: -one.loss))


def _p_value(scores_J: Floats, jets: _Jets, auc: float, seed: int) -> float:
    """Labels (with their weights) permuted within each fold: scores stay as they are."""
    generator = randomness.numpy_generator(seed, "label permutation")
    total = np.zeros(PERMUTATIONS)
    for fold in range(FOLDS):
        rows = np.flatnonzero(jets.fold_J == fold)
        order = np.argsort(scores_J[rows], kind="stable")
        _, tied = np.unique(scores_J[rows][order], return_inverse=True)
        labels, weights = jets.is_second_J[rows], jets.weights_J[rows]
        for number in range(PERMUTATIONS):
            drawn = generator.permutation(len(rows))
            second = np.bincount(tied, np.where(labels, weights, 0.0)[drawn])
            first = np.bincount(tied, np.where(labels, 0.0, weights)[drawn])
            below = np.cumsum(first) - first / 2
            total[number] += second @ below / (second.sum() * first.sum())
    return float((1 + (total / FOLDS >= auc - 1e-12).sum()) / (1 + PERMUTATIONS))
