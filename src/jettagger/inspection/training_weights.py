"""Event weights and training weights, and the spectra that training weights change: before and after.

Shapes: J jets, C classes, B bins.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from jettagger.data import spectra
from jettagger.data.prepared import Prepared
from jettagger.data.schema import DataConfig
from jettagger.inspection.kept import Kept
from jettagger.inspection.spectra import Spectrum, Values
from jettagger.inspection.spectra import spectra as distributions
from jettagger.inspection.terms import class_names

Floats = NDArray[np.float64]


class Reshaped(NamedTuple):
    """A variable of the training weights; sums of weights in its bins, each class's scaled to 1."""

    name: str
    edges: Floats
    before: dict[str, Floats]
    """By class: event weights."""
    before_error: dict[str, Floats]
    after: dict[str, Floats]
    """By class: event weights times training weights."""
    after_error: dict[str, Floats]


class Weighting(NamedTuple):
    """What the weights do."""

    event: Spectrum
    """Distribution of the event weights of each class."""
    asked: bool
    """Whether the config asks for training weights."""
    method: str
    largest: float | None
    """Largest training weight over its class's mean."""
    outside: int
    capped: int
    notes: tuple[str, ...]
    class_share: dict[str, tuple[float, float]]
    """Each class's share of the sum of weights, before and after."""
    reshaped: tuple[Reshaped, ...]


class _Jets(NamedTuple):
    """What `spectra.weights_of` looks at of a prepared dataset."""

    labels_J: NDArray[np.int64]
    weights_J: Floats
    extras: dict[str, Floats]


def weighting(config: DataConfig, training: Sequence[Kept]) -> Weighting:
    """Fits the training weights to the kept training jets, as a training does to all of them.

    Raises JettaggerError where they cannot be fitted.
    """
    jets = _jets(training)
    classes = class_names(config)
    weights = {
        name: [
            Values(
                "event weight", jets.weights_J[jets.labels_J == c], np.ones((jets.labels_J == c).sum()), None
            )
        ]
        for c, name in enumerate(classes)
    }
    [event] = distributions(weights, "jet")
    section = config.weights.training
    asked = section.balance != "none" or section.flatten is not None or section.match is not None
    if not asked:
        share = _shares(jets.labels_J, jets.weights_J, classes)
        both = {name: (share[name], share[name]) for name in classes}
        return Weighting(event, False, section.method, None, 0, 0, (), both, ())
    found = spectra.weights_of(cast(Prepared, jets), np.arange(len(jets.labels_J)), section, classes)
    after_J = jets.weights_J * found.factor_R
    shares = [_shares(jets.labels_J, weights_J, classes) for weights_J in (jets.weights_J, after_J)]
    return Weighting(
        event=event,
        asked=True,
        method=section.method,
        largest=found.largest,
        outside=found.outside,
        capped=found.capped,
        notes=found.notes,
        class_share={name: (shares[0][name], shares[1][name]) for name in classes},
        reshaped=tuple(_reshaped(config, jets, after_J)),
    )


def _jets(training: Sequence[Kept]) -> _Jets:
    """Training jets of all samples; a sample counts as much as the jets that it was drawn from."""
    rows = [np.flatnonzero(kept.side_J == 0) for kept in training]
    return _Jets(
        np.concatenate([kept.labels_J[r] for kept, r in zip(training, rows, strict=True)]),
        np.concatenate(
            [kept.weights_J[r] * kept.read / kept.jets for kept, r in zip(training, rows, strict=True)]
        ),
        {
            name: np.concatenate([kept.extras[name][r] for kept, r in zip(training, rows, strict=True)])
            for name in training[0].extras
        },
    )


def _shares(labels_J: NDArray[np.int64], weights_J: Floats, classes: Sequence[str]) -> dict[str, float]:
    sums = np.bincount(labels_J, weights_J, len(classes))
    total = sums.sum()
    return {name: float(one / total) if total else np.nan for name, one in zip(classes, sums, strict=True)}


def _reshaped(config: DataConfig, jets: _Jets, after_J: Floats) -> list[Reshaped]:
    section = config.weights.training
    spectrum = section.flatten or (section.match.spectrum if section.match is not None else {})
    columns = spectra.expressions(section)
    found = []
    for (name, edges), column in zip(spectrum.items(), columns, strict=True):
        bins = np.asarray(edges, np.float64)
        sides: list[dict[str, Floats]] = [{}, {}, {}, {}]
        for c, label in enumerate(class_names(config)):
            of_class = jets.labels_J == c
            for number, weights_J in enumerate((jets.weights_J, after_J)):
                values_J, used = jets.extras[column][of_class], weights_J[of_class]
                sums, squares = (np.histogram(values_J, bins, weights=w)[0] for w in (used, used**2))
                total = sums.sum() if sums.sum() else np.nan
                sides[2 * number][label], sides[2 * number + 1][label] = (
                    sums / total,
                    np.sqrt(squares) / abs(total),
                )
        found.append(Reshaped(name, bins, *sides))
    return found
