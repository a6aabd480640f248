"""Two samples, variable by variable and in their correlations: is one well modelled by the other?

Shapes: R rows (jets or particles), B bins.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.inspection.classifier_test import ClassifierTest, classifier_test
from jettagger.inspection.correlations import Correlation, CorrelationGap, correlation, gaps
from jettagger.inspection.kept import Kept
from jettagger.inspection.spectra import Values, count, edges_of, jet_values, joined, particle_values
from jettagger.metrics import effective_entries

Floats = NDArray[np.float64]
LEAST_ENTRIES = 10.0
"""Effective entries of both samples together that a bin of χ² has at least; bins are merged up to it."""


class VariableGap(NamedTuple):
    """A variable in two samples, each normalised to 1."""

    name: str
    level: str
    """`jet` or `particle`."""
    ks: float
    """Largest distance of the cumulative distributions (Kolmogorov and Smirnov), weighted."""
    ks_p: float
    """Its p-value with effective entries. Of particles, whose jets count as the entries: on the safe side."""
    chi2: float | None
    """Of the histograms; None for particles, whose bins are not independent."""
    degrees: int | None
    chi2_p: float | None
    missing: tuple[float, float]
    """Fraction of missing values in both."""
    edges: Floats
    reference_B: Floats
    reference_error_B: Floats
    other_B: Floats
    other_error_B: Floats


class Comparison(NamedTuple):
    """`other` compared with `reference`."""

    reference: str
    other: str
    jets: tuple[int, int]
    """Jets that were compared."""
    effective: tuple[float, float]
    variables: tuple[VariableGap, ...]
    """The largest distance first."""
    copies: dict[str, str]
    """Jet-level variables that are left out, since their values are those of another one."""
    correlations: tuple[Correlation, Correlation]
    correlation_gaps: tuple[CorrelationGap, ...]
    """The most significant first."""
    classifier: ClassifierTest | None
    """None where a sample has too few jets, or weights that do not sum to more than 0."""


def compare(reference: str, first: Sequence[Kept], other: str, second: Sequence[Kept]) -> Comparison:
    """Compares all the jets of two sets of samples, with their event weights."""
    sides = [whole(first), whole(second)]
    copies = _copies(sides[0])
    sides = [_without(side, copies) for side in sides]
    variables = []
    for level, values in (("jet", [s.jets for s in sides]), ("particle", [s.particles for s in sides])):
        variables += [
            variable_gap(a, b, level, (s_a, s_b))
            for a, b in zip(*values, strict=True)
            for s_a, s_b in [(sides[0].entries(level), sides[1].entries(level))]
        ]
    correlations = [correlation(s.names, s.values_JV, s.weights_J) for s in sides]
    return Comparison(
        reference=reference,
        other=other,
        jets=(len(sides[0].weights_J), len(sides[1].weights_J)),
        effective=(effective_entries(sides[0].weights_J), effective_entries(sides[1].weights_J)),
        variables=tuple(sorted(variables, key=lambda gap: -gap.ks)),
        copies=copies,
        correlations=(correlations[0], correlations[1]),
        correlation_gaps=tuple(gaps(*correlations)),
        classifier=classifier_test(
            sides[0].names,
            (sides[0].values_JV, sides[1].values_JV),
            (sides[0].weights_J, sides[1].weights_J),
            (sides[0].group_J, sides[1].group_J),
        ),
    )


class Whole(NamedTuple):
    """Several kept samples as one; a sample counts as much as the jets that it was drawn from."""

    names: tuple[str, ...]
    values_JV: NDArray[np.float32]
    weights_J: Floats
    group_J: NDArray[np.int64]
    jets: list[Values]
    particles: list[Values]
    particle_weights_J: Floats
    """Weights of the jets whose particles were kept."""

    def entries(self, level: str) -> float:
        """Effective number of jets."""
        return effective_entries(self.weights_J if level == "jet" else self.particle_weights_J)


def whole(samples: Sequence[Kept]) -> Whole:
    """Joins samples, so that those of which only a part was kept keep their share."""
    jets, particles, weights, of_particles = [], [], [], []
    for kept in samples:
        rows_J = np.arange(kept.jets)
        scaled = kept._replace(weights_J=kept.weights_J * (kept.read / kept.jets))
        jets.append(jet_values(scaled, rows_J))
        particles.append(particle_values(scaled, rows_J))
        weights.append(scaled.weights_J)
        of_particles.append(scaled.weights_J[: kept.particle_jets] / kept.particle_share)
    return Whole(
        names=samples[0].names,
        values_JV=np.concatenate([kept.values_JV for kept in samples]),
        weights_J=np.concatenate(weights),
        group_J=np.concatenate([kept.group_J for kept in samples]),
        jets=joined(jets),
        particles=joined(particles),
        particle_weights_J=np.concatenate(of_particles),
    )


def _copies(side: Whole) -> dict[str, str]:
    """Variables with the values of an earlier one: a spectator that is an input as well."""
    first: dict[bytes, str] = {}
    found = {}
    for column, name in enumerate(side.names):
        same = first.setdefault(side.values_JV[:, column].tobytes(), name)
        if same != name:
            found[name] = same
    return found


def _without(side: Whole, names: Mapping[str, str]) -> Whole:
    columns = [column for column, name in enumerate(side.names) if name not in names]
    return side._replace(
        names=tuple(side.names[column] for column in columns),
        values_JV=side.values_JV[:, columns],
        jets=[values for values in side.jets if values.name not in names],
    )


def variable_gap(first: Values, second: Values, level: str, entries: tuple[float, float]) -> VariableGap:
    """Both histograms, their distance and its significance; `entries` are effective jets."""
    from scipy import special

    edges = edges_of([first.values_R, second.values_R])
    scaled = []
    for values in (first, second):
        counts = count(values, edges)
        total = counts.total if counts.total else np.nan
        scaled.append((counts.sumw_B / total, counts.error_B / abs(total)))
    distance = ks_distance(first, second)
    known = [
        float(np.isfinite(values.values_R).mean()) if len(values.values_R) else 0.0
        for values in (first, second)
    ]
    n_1, n_2 = (n * part for n, part in zip(entries, known, strict=True))
    chi2, degrees = chi_squared(scaled[0], scaled[1], entries) if level == "jet" else (None, None)
    return VariableGap(
        name=first.name,
        level=level,
        ks=distance,
        ks_p=float(special.kolmogorov(distance * np.sqrt(n_1 * n_2 / (n_1 + n_2))))
        if n_1 * n_2 > 0
        else np.nan,
        chi2=chi2,
        degrees=degrees,
        chi2_p=float(special.chdtrc(degrees, chi2)) if chi2 is not None and degrees else None,
        missing=(1 - known[0], 1 - known[1]),
        edges=edges,
        reference_B=scaled[0][0],
        reference_error_B=scaled[0][1],
        other_B=scaled[1][0],
        other_error_B=scaled[1][1],
    )


def ks_distance(first: Values, second: Values) -> float:
    """Largest distance of the weighted cumulative distributions of the finite values."""
    parts = []
    for values in (first, second):
        known_R = np.isfinite(values.values_R)
        x_R, w_R = values.values_R[known_R], values.weights_R[known_R]
        if not w_R.sum() > 0:
            return float("nan")
        order = np.argsort(x_R, kind="stable")
        parts.append((x_R[order], np.concatenate([[0.0], np.cumsum(w_R[order])]) / w_R.sum()))
    every = np.concatenate([parts[0][0], parts[1][0]])
    reached = [cumulative[np.searchsorted(x_R, every, side="right")] for x_R, cumulative in parts]
    return float(np.abs(reached[0] - reached[1]).max())


def chi_squared(
    first: tuple[Floats, Floats], second: tuple[Floats, Floats], entries: tuple[float, float]
) -> tuple[float, int]:
    """χ² of two histograms of weighted entries, each normalised to 1, and its degrees of freedom.

    Σ (a − b)² / (σ_a² + σ_b²) over merged bins, one degree less for the common norm: for equal weights that of
    Gagunashvili (doi:10.1016/j.nima.2009.12.037) to first order.
    """
    expected_B = first[0] * entries[0] + second[0] * entries[1]
    group_B = _merged(np.abs(expected_B))
    bins = int(group_B[-1]) + 1
    a, b = np.bincount(group_B, first[0], bins), np.bincount(group_B, second[0], bins)
    variance = np.bincount(group_B, first[1] ** 2 + second[1] ** 2, bins)
    used = variance > 0
    return float(((a - b)[used] ** 2 / variance[used]).sum()), max(int(used.sum()) - 1, 0)


def _merged(expected_B: Floats) -> NDArray[np.int64]:
    """Number of the merged bin of each bin."""
    group, total, numbers = 0, 0.0, []
    last = 0.0
    for entries in expected_B:
        if total >= LEAST_ENTRIES:
            group, last, total = group + 1, total, 0.0
        numbers.append(group)
        total += entries if np.isfinite(entries) else 0.0
    if group and total < LEAST_ENTRIES and last:
        numbers = [min(number, group - 1) for number in numbers]
    return np.array(numbers, np.int64)
