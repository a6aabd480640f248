"""The validation jets as the networks of a bundle score them, and which of these networks is not sound.

With folds, each fold's networks score the validation jets of their own training.

Shapes: J validation jets, of all folds one after the other, M members, C classes.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.data.batches import Batches
from jettagger.errors import JettaggerError
from jettagger.tagger import BATCH, Tagger
from jettagger.training.outcome import piece_name
from jettagger.training.sides import Sides
from jettagger.uncertainty.decomposition import Floats
from jettagger.uncertainty.ensemble import member_health


class ScoredValidation(NamedTuple):
    """What there is to judge a bundle by before it is evaluated."""

    probabilities_JC: Floats
    labels_J: NDArray[np.int64]
    weights_J: Floats
    residuals: Mapping[str, Floats]
    """By target: prediction - truth; NaN where the truth is unknown."""
    problems: tuple[str, ...]
    """A sentence for each network that is not sound. It is part of the tagger all the same."""


def scored_validation(tagger: Tagger, sides: Mapping[int | None, Sides]) -> ScoredValidation:
    """Raises JettaggerError for a network whose numbers are not finite: no mean could hold it."""
    parts = [_of_fold(tagger, fold, side) for fold, side in sides.items()]
    return ScoredValidation(
        np.concatenate([part.probabilities_JC for part in parts]),
        np.concatenate([part.labels_J for part in parts]),
        np.concatenate([part.weights_J for part in parts]),
        {name: np.concatenate([part.residuals[name] for part in parts]) for name in tagger.targets},
        tuple(problem for part in parts for problem in part.problems),
    )


def _of_fold(tagger: Tagger, fold: int | None, sides: Sides) -> ScoredValidation:
    rows = sides.validation_rows
    numbers = [one.member for one in tagger.networks if one.fold == fold]
    networks = tagger if fold is None else tagger.of_fold(fold)
    batches = Batches(sides.validation, rows, BATCH, inputs=networks.members[0].inputs)
    scores = networks.run(batch.inputs for batch in batches.epoch(0))
    labels_J = sides.validation.labels_J[rows].astype(np.int64)
    weights_J = sides.validation.weights_J[rows].astype(np.float64)
    assert scores.members_MJC is not None, "only MC dropout keeps no members"
    problems = []
    residuals = {}
    for target, predicted in scores.targets.items():
        residuals[target] = predicted.value_N - sides.validation.targets[target][rows]
        if not np.isfinite(predicted.value_N).all():
            whose = "a network" if fold is None else f"a network of fold {fold}"
            raise JettaggerError(f"{whose}: what it says of {target} for the validation jets is not finite")
    judged = member_health(scores.members_MJC, labels_J, weights_J) if tagger.classes else []
    for health in judged:
        name = piece_name(fold, numbers[health.member])
        if health.problem == "not finite":
            raise JettaggerError(
                f"{name}: its scores of the validation jets are not finite; remove its folder, and train it again "
                "or bundle the others with --merge"
            )
        if health.problem is not None:
            problems.append(
                f"{name} looks failed on the validation jets: {health.problem}; it is part of the tagger"
            )
    return ScoredValidation(
        scores.decomposition.probabilities_NC, labels_J, weights_J, residuals, tuple(problems)
    )
