"""Figures of an inspection: inputs by class, correlations, weights before and after, two samples compared.

Shapes: B bins, V variables.
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jettagger.inspection.comparison import Comparison, VariableGap
from jettagger.inspection.correlations import Correlation
from jettagger.inspection.inspect import Inspection
from jettagger.inspection.spectra import Spectrum
from jettagger.inspection.training_weights import Reshaped, Weighting
from jettagger.report.style import PALETTE, Drawing, Floats, axis_label, freeze, hep_style, panels, steps

A_FIGURE = 9
"""Panels of a figure."""
COMPARED = 12
"""Variables of a comparison that are drawn: those with the largest distance."""
STEEP = 300.0
"""Largest over median density above which a panel is logarithmic."""
LONGEST = 30
"""Characters of a label."""


def draw(inspection: Inspection) -> list[Drawing]:
    """Every figure that the inspection allows."""
    with hep_style():
        drawings = [
            *_inputs(inspection, "jet", "Jets"),
            *_inputs(inspection, "particle", "Particles"),
            *_inputs(inspection, "target", "Targets"),
            *(_correlation(name, one) for name, one in inspection.correlations.items()),
            *(_weights(inspection.weights) if inspection.weights is not None else ()),
        ]
        for comparison in inspection.comparisons:
            drawings += [_compared(comparison), _correlation_gap(comparison)]
        for drawing in drawings:
            freeze(drawing.figure)
    return drawings


def _inputs(inspection: Inspection, level: str, title: str) -> list[Drawing]:
    found = []
    spectra = [spectrum for spectrum in inspection.spectra if spectrum.level == level]
    groups = [spectra[start : start + A_FIGURE] for start in range(0, len(spectra), A_FIGURE)]
    for number, group in enumerate(groups, 1):
        figure, axes = panels(len(group), (4.6, 3.7))
        for panel, spectrum in zip(axes, group, strict=True):
            _draw_spectrum(panel, spectrum)
        axes[0].legend(loc="best", fontsize=10)
        part = f" ({number} of {len(groups)})" if len(groups) > 1 else ""
        found.append(
            Drawing(
                f"targets_{number}" if level == "target" else f"inputs_{level}_{number}",
                f"{title}: {group[0].name} to {group[-1].name}{part}" if len(group) > 1 else group[0].name,
                figure,
                "Training jets of each class with their event weights, normalised to 1; bands are the statistical "
                "errors √Σw²"
                + (
                    ", where the particles of a jet count together."
                    if level == "particle"
                    else ". What lies beyond the 0.1 % tails is outside of the range, unless a variable is discrete."
                ),
            )
        )
    return found


def _draw_spectrum(panel: Axes, spectrum: Spectrum) -> None:
    colours = cycle(PALETTE)
    heights = [h for h in spectrum.density.values() if np.isfinite(h).all()]
    for label, density_B in spectrum.density.items():
        colour = next(colours)
        if np.isfinite(density_B).all():
            steps(panel, spectrum.edges, density_B, spectrum.error[label], color=colour, label=label)
    _finish(panel, spectrum.name, spectrum.edges, heights)


def _finish(panel: Axes, name: str, edges: Floats, heights: Sequence[Floats]) -> None:
    panel.set_xlabel(_short(axis_label(name)), fontsize=12.5)
    panel.set_xlim(edges[0], edges[-1])
    filled = np.concatenate([h[h > 0] for h in heights]) if heights else np.empty(0)
    if len(filled) and filled.max() > STEEP * np.median(filled):
        panel.set_yscale("log")
        panel.set_ylim(max(filled.min() / 2, filled.max() * 1e-7), filled.max() * 5)
    elif len(filled):
        panel.set_ylim(0, filled.max() * 1.3)
    panel.tick_params(labelsize=11)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST or "$" in name else name[: LONGEST - 1] + "…"


def _matrix(
    figure: Figure, panel: Axes, names: Sequence[str], values_VV: Floats, limit: float, what: str
) -> None:
    size = len(names)
    image = panel.imshow(values_VV, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    panel.set_xticks(range(size), [_short(n) for n in names], rotation=90, fontsize=9)
    panel.set_yticks(range(size), [_short(n) for n in names], fontsize=9)
    panel.tick_params(which="both", length=0, top=False, right=False)
    panel.minorticks_off()
    bar = figure.colorbar(image, ax=panel, shrink=0.8, pad=0.02)
    bar.set_label(what, fontsize=12)
    bar.ax.tick_params(labelsize=11)


def _square(size: int) -> tuple[Figure, Axes]:
    side = 4.5 + 0.19 * size
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    return figure, figure.add_subplot()


def _correlation(name: str, correlation: Correlation) -> Drawing:
    figure, panel = _square(len(correlation.names))
    _matrix(figure, panel, correlation.names, correlation.matrix_VV, 1.0, "Linear correlation")
    return Drawing(
        f"correlations_{name}",
        f"Correlations, {name}",
        figure,
        f"Weighted linear correlations of {correlation.effective:.0f} effective training jets, pair by pair over "
        "the jets that have both values. “mean” is over a jet's particles; white: one of the two is constant.",
    )


def _weights(weighting: Weighting) -> list[Drawing]:
    figure, axes = panels(1, (7.0, 5.0))
    _draw_spectrum(axes[0], weighting.event)
    axes[0].set_ylabel("Density")
    axes[0].legend()
    event = Drawing(
        "weights_event", "Event weights", figure, "Each class is normalised to 1, each jet counts once."
    )
    return [event, *(_reshaped(one, k) for k, one in enumerate(weighting.reshaped, 1))]


def _reshaped(reshaped: Reshaped, number: int) -> Drawing:
    figure, axes = panels(2, (5.2, 4.6))
    sides = (
        ("Event weights", reshaped.before, reshaped.before_error),
        ("With training weights", reshaped.after, reshaped.after_error),
    )
    for panel, (title, heights, errors) in zip(axes, sides, strict=True):
        for colour, label in zip(cycle(PALETTE), heights):
            steps(panel, reshaped.edges, heights[label], errors[label], color=colour, label=label)
        panel.set_xlabel(_short(axis_label(reshaped.name)))
        panel.set_title(title, fontsize=13)
        panel.set_ylabel("Fraction a bin")
        panel.set_ylim(0, None)
        panel.margins(y=0.3)
    axes[0].legend(fontsize=10)
    return Drawing(
        f"weights_training_{number}",
        f"Training weights: {reshaped.name}",
        figure,
        "Sums of weights in the bins of weights.training, each class normalised to 1: event weights alone, and "
        "what a training sees. Training weights enter no metric.",
    )


def _compared(comparison: Comparison) -> Drawing:
    gaps = comparison.variables[:COMPARED]
    down = -(-len(gaps) // 3)
    figure = Figure(figsize=(14.0, 4.6 * down), layout="constrained")
    axes = figure.subplots(2 * down, 3, height_ratios=[2.4, 1] * down, squeeze=False)
    for number, gap in enumerate(gaps):
        row, column = divmod(number, 3)
        _draw_gap(axes[2 * row, column], axes[2 * row + 1, column], gap, comparison)
    for spare in range(len(gaps), 3 * down):
        row, column = divmod(spare, 3)
        axes[2 * row, column].set_axis_off()
        axes[2 * row + 1, column].set_axis_off()
    axes[0, 0].legend(fontsize=10, loc="best")
    return Drawing(
        f"compared_{comparison.other}",
        f"{comparison.other} and {comparison.reference}: the {len(gaps)} most different variables",
        figure,
        f"Both normalised to 1, with event weights; below, {comparison.other} over {comparison.reference}. "
        "Error bars and bands are √Σw².",
    )


def _draw_gap(upper: Axes, lower: Axes, gap: VariableGap, comparison: Comparison) -> None:
    steps(
        upper, gap.edges, gap.reference_B, gap.reference_error_B, color=PALETTE[0], label=comparison.reference
    )
    centres = (gap.edges[1:] + gap.edges[:-1]) / 2
    style: dict[str, Any] = {"fmt": "o", "markersize": 3.5, "color": "black", "linewidth": 1.1}
    upper.errorbar(centres, gap.other_B, gap.other_error_B, label=comparison.other, **style)
    _finish(upper, gap.name, gap.edges, [gap.reference_B, gap.other_B])
    upper.set_title(f"KS {gap.ks:.3f}", fontsize=11, loc="right")
    upper.set_xlabel("")
    upper.tick_params(labelbottom=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, error = gap.other_B / gap.reference_B, gap.other_error_B / gap.reference_B
        band = gap.reference_error_B / gap.reference_B
    shown = np.isfinite(ratio) & np.isfinite(error)
    lower.errorbar(centres[shown], ratio[shown], error[shown], **style)
    known = np.where(np.isfinite(band), band, 0.0)
    lower.fill_between(
        np.repeat(gap.edges, 2)[1:-1],
        np.repeat(1 - known, 2),
        np.repeat(1 + known, 2),
        color=PALETTE[0],
        alpha=0.25,
    )
    lower.axhline(1, color="black", linewidth=0.8)
    lower.set_ylim(0, 2)
    lower.set_xlim(gap.edges[0], gap.edges[-1])
    lower.set_xlabel(_short(axis_label(gap.name)), fontsize=12.5)
    lower.tick_params(labelsize=11)


def _correlation_gap(comparison: Comparison) -> Drawing:
    names = comparison.correlations[0].names
    at = {name: number for number, name in enumerate(names)}
    values_VV = np.full((len(names), len(names)), np.nan)
    for gap in comparison.correlation_gaps:
        values_VV[at[gap.first], at[gap.second]] = gap.other - gap.reference
        values_VV[at[gap.second], at[gap.first]] = gap.significance
    limit = 5.0
    figure, panel = _square(len(names))
    shown = values_VV.copy()
    upper = np.triu_indices(len(names), 1)
    shown[upper] *= limit / 0.25
    _matrix(
        figure, panel, names, shown, limit, "Below the diagonal: significance [σ]; above: 20 × difference"
    )
    return Drawing(
        f"compared_correlations_{comparison.other}",
        f"Correlations of {comparison.other} less those of {comparison.reference}",
        figure,
        "Below the diagonal: difference of Fisher's z over its error; above: difference of the correlations, so that "
        "full colour is 0.25 or more. Nearly equal variables (|r| > 0.9999) are left out.",
    )
