"""The validation jets as the networks of a bundle score them, and which of these networks is not sound.

With folds, each fold's networks score the validation jets of their own training. Where `ensemble.vary` has `split`,
each network has validation jets of its own, and scores no others: on those it was trained.

Shapes: J validation jets, of all folds one after the other, M members, C classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.data.batches import Batches
from jettagger.errors import JettaggerError
from jettagger.tagger import BATCH, Scores, Tagger
from jettagger.training.outcome import piece_name
from jettagger.training.recipe import Recipe
from jettagger.training.sides import Sides
from jettagger.training.varied import member_sides
from jettagger.uncertainty.decomposition import Floats
from jettagger.uncertainty.ensemble import member_health
from jettagger.uncertainty.target_health import TargetHealth, far_off, target_health

_NOT_FINITE = "are not finite; remove its folder, and train it again or bundle the others with --merge"


class ScoredValidation(NamedTuple):
    """What there is to judge a bundle by before it is evaluated."""

    probabilities_JC: Floats
    labels_J: NDArray[np.int64]
    weights_J: Floats
    residuals: Mapping[str, Floats]
    """By target: prediction - truth; NaN where the truth is unknown."""
    problems: tuple[str, ...]
    """A sentence for each network that is not sound. It is part of the tagger all the same."""
    deviations: Mapping[str, Floats] = {}
    """By target: the mean |prediction - truth| of each network of a fold, in their order."""


def scored_validation(recipe: Recipe, tagger: Tagger, sides: Mapping[int | None, Sides]) -> ScoredValidation:
    """Raises JettaggerError for a network whose numbers are not finite: no mean could hold it."""
    parts = [_of_fold(recipe._replace(fold=fold), tagger, side) for fold, side in sides.items()]
    return ScoredValidation(
        np.concatenate([part.probabilities_JC for part in parts]),
        np.concatenate([part.labels_J for part in parts]),
        np.concatenate([part.weights_J for part in parts]),
        {name: np.concatenate([part.residuals[name] for part in parts]) for name in tagger.targets},
        tuple(problem for part in parts for problem in part.problems),
    )


def _of_fold(recipe: Recipe, tagger: Tagger, sides: Sides) -> ScoredValidation:
    networks = tagger if recipe.fold is None else tagger.of_fold(recipe.fold)
    if "split" not in recipe.ensemble.vary:
        found = _scored(recipe.fold, networks, sides)
        return found._replace(problems=(*found.problems, *_far_off(networks, [found])))
    rows, parts = [], []
    for model, one in zip(networks.members, networks.networks, strict=True):
        own = member_sides(recipe, sides, one.member)
        rows.append(own.validation_rows)
        parts.append(_scored(recipe.fold, replace(networks, members=(model,), networks=(one,)), own))
    found = _means(rows, parts)
    return found._replace(problems=(*found.problems, *_far_off(networks, parts)))


def _far_off(networks: Tagger, parts: Sequence[ScoredValidation]) -> Iterator[str]:
    """Names the networks of a fold whose predictions are far worse than those of the others."""
    for target in networks.targets:
        deviations_M = np.concatenate([part.deviations[target] for part in parts])
        for m in np.flatnonzero(far_off(deviations_M)):
            deviation, median = deviations_M[m], np.nanmedian(deviations_M)
            yield _failed(
                networks.networks[m].words,
                f"the mean |prediction - truth| of its {target}, {deviation:.4g}, is far above the median of the"
                f" networks, {median:.4g}",
            )


def _failed(name: str, problem: str) -> str:
    return f"{name} looks failed on the validation jets: {problem}; it is part of the tagger"


def _means(rows: Sequence[NDArray[np.int64]], parts: Sequence[ScoredValidation]) -> ScoredValidation:
    """Of what several networks say, each of validation jets of its own: the mean for each jet."""
    _, first_J, jet_R = np.unique(np.concatenate(rows), return_index=True, return_inverse=True)
    times_J = np.bincount(jet_R).astype(np.float64)

    def mean(columns: Sequence[Floats]) -> Floats:
        values_R = np.concatenate(columns)
        sums_J = np.zeros((len(first_J), *values_R.shape[1:]))
        np.add.at(sums_J, jet_R, values_R)
        return sums_J / times_J.reshape(-1, *(1 for _ in values_R.shape[1:]))

    return ScoredValidation(
        mean([part.probabilities_JC for part in parts]),
        np.concatenate([part.labels_J for part in parts])[first_J],
        np.concatenate([part.weights_J for part in parts])[first_J],
        {name: mean([part.residuals[name] for part in parts]) for name in parts[0].residuals},
        tuple(problem for part in parts for problem in part.problems),
    )


def _scored(fold: int | None, networks: Tagger, sides: Sides) -> ScoredValidation:
    """The validation jets by the mean of the networks."""
    rows, numbers = sides.validation_rows, [one.member for one in networks.networks]
    batches = Batches(sides.validation, rows, BATCH, inputs=networks.members[0].inputs)
    scores = networks.run(batch.inputs for batch in batches.epoch(0))
    labels_J = sides.validation.labels_J[rows].astype(np.int64)
    weights_J = sides.validation.weights_J[rows].astype(np.float64)
    assert scores.members_MJC is not None, "only MC dropout keeps no members"
    problems = []
    residuals = {}
    deviations = {}
    for target, judged_M in _judged_targets(networks, scores, sides).items():
        residuals[target] = scores.targets[target].value_N - sides.validation.targets[target][rows]
        deviations[target] = np.array([one.deviation for one in judged_M])
        for number, one in zip(numbers, judged_M, strict=True):
            name = piece_name(fold, number)
            if one.problem == "not finite":
                raise JettaggerError(
                    f"{name}: its predictions of {target} for the validation jets {_NOT_FINITE}"
                )
            if one.problem is not None:
                problems.append(_failed(name, f"its {target} is {one.problem}"))
    judged = member_health(scores.members_MJC, labels_J, weights_J) if networks.classes else []
    for health in judged:
        name = piece_name(fold, numbers[health.member])
        if health.problem == "not finite":
            raise JettaggerError(f"{name}: its scores of the validation jets {_NOT_FINITE}")
        if health.problem is not None:
            problems.append(_failed(name, health.problem))
    probabilities_JC = scores.decomposition.probabilities_NC
    return ScoredValidation(probabilities_JC, labels_J, weights_J, residuals, tuple(problems), deviations)


def _judged_targets(networks: Tagger, scores: Scores, sides: Sides) -> dict[str, list[TargetHealth]]:
    """By target what is to be said of each network, whose `scores` together are known."""
    if not networks.targets:
        return {}
    rows, alone = sides.validation_rows, [scores.targets]
    if len(networks.members) > 1:  # a tagger keeps of its networks' predictions their mean and spread only
        alone = []
        for model, one in zip(networks.members, networks.networks, strict=True):
            batches = Batches(sides.validation, rows, BATCH, inputs=model.inputs)
            single = replace(networks, members=(model,), networks=(one,))
            alone.append(single.run(batch.inputs for batch in batches.epoch(0)).targets)
    weights_J = sides.validation.weights_J[rows].astype(np.float64)
    return {
        name: [
            target_health(said[name].value_N, sides.validation.targets[name][rows], weights_J)
            for said in alone
        ]
        for name in networks.targets
    }
