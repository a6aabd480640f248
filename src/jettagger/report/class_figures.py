"""Scores, confusion and calibration: what a tagger says of the classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jettagger.evaluation.results import Result
from jettagger.report.roc_figures import find_pair
from jettagger.report.style import (
    GREY,
    PALETTE,
    Drawing,
    looks,
    panels,
    put_label,
    put_titles,
    stacked,
    steps,
)


def scores_drawing(results: Sequence[Result], pair: str, label: str) -> Drawing:
    """Distribution of the discriminant for the two classes, one panel a run."""
    shown = [(result, one) for result in results if (one := find_pair(result, pair)) is not None]
    figure, axes = panels(len(shown))
    for panel, (result, one) in zip(axes, shown, strict=True):
        sides = (
            (one.background, one.background_scores, PALETTE[0]),
            (one.signal, one.signal_scores, PALETTE[1]),
        )
        for name, histogram, colour in sides:
            heights, errors = histogram.normalised()
            steps(panel, histogram.edges, heights, errors, color=colour, label=name)
        is_cut = result.accuracy is None
        panel.set(
            yscale="log",
            xlabel="Score" if is_cut else f"D = p({one.signal}) / [p({one.signal}) + p({one.background})]",
        )
        panel.set_xlim(one.signal_scores.edges[0], one.signal_scores.edges[-1])
        panel.set_ylabel("Density")
        panel.margins(y=0.25)
        if np.isfinite(one.working_point.threshold):
            panel.axvline(one.working_point.threshold, color="black", linewidth=1, linestyle="--")
        panel.legend(loc="upper center", ncols=2)
    put_titles(axes, label, [result.name for result, _ in shown])
    signal, background = shown[0][1].signal, shown[0][1].background
    return Drawing(
        name=f"scores_{pair}",
        title=f"Score distributions, {signal} and {background}",
        figure=figure,
        caption="Each class is normalised to 1; bands are the statistical errors √Σw². The dashed line is "
        "the cut at the working point. Of a cut-based tagger the score itself is drawn, jets below its range "
        "in the first bin.",
    )


def confusion_drawing(results: Sequence[Result], label: str) -> Drawing | None:
    """Which class the jets of a class are taken for, one panel a run."""
    shown = [result for result in results if result.confusion is not None]
    if not shown:
        return None
    size = 2.6 + 0.75 * len(shown[0].classes)
    figure, axes = panels(len(shown), (size, size * 0.95))
    for panel, result in zip(axes, shown, strict=True):
        _draw_confusion(panel, result)
    put_titles(axes, label, [result.name for result in shown])
    return Drawing(
        name="confusion",
        title="Confusion matrix",
        figure=figure,
        caption="Rows: true class. Columns: the most probable class. Each row sums to 100 %; errors are "
        "binomial (Wilson, 68 %).",
    )


def calibration_drawing(results: Sequence[Result], label: str) -> Drawing | None:
    """Observed fraction against predicted probability, and the gap between them."""
    shown = [result for result in results if result.calibration is not None]
    if not shown:
        return None
    figure, upper, lower = stacked()
    look = looks(results)
    for result in shown:
        curve, style = result.calibration, look[result.name]
        assert curve is not None
        bars = np.abs(np.stack([curve.observed_K - curve.low_K, curve.high_K - curve.observed_K]))
        drawn: dict[str, Any] = {
            "color": style.colour,
            "marker": style.marker,
            "markersize": 4.5,
            "elinewidth": 1.1,
            "linewidth": 1,
        }
        ece = f"{result.name} (ECE {100 * result.ece.value:.2g} %)" if result.ece else result.name
        upper.errorbar(curve.predicted_K, curve.observed_K, bars, linestyle=style.line, label=ece, **drawn)
        gap = curve.observed_K - curve.predicted_K
        lower.errorbar(curve.predicted_K, gap, bars, linestyle=style.line, **drawn)
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    lower.axhline(0, color=GREY, linewidth=1)
    two = len(shown[0].classes) == 2
    signal = shown[0].pairs[0].signal
    upper.set(
        xlim=(0, 1), ylim=(0, 1.02), ylabel=f"Fraction of {signal}" if two else "Fraction classified rightly"
    )
    lower.set(xlabel=f"Predicted p({signal})" if two else "Largest predicted probability", ylabel="Gap")
    upper.legend(loc="upper left")
    put_label(upper, label)
    what = f"P({signal})" if two else "the largest probability"
    return Drawing(
        name="calibration",
        title="Calibration",
        figure=figure,
        caption=f"How often a jet is what it was said to be, in bins of equal width of {what}; on the "
        "diagonal a probability means what it says. Errors are Wilson intervals (68 %). The "
        "ECE in the legend is the "
        "top-label one. Below: observed minus predicted.",
    )


def _draw_confusion(panel: Axes, result: Result) -> None:
    assert result.confusion is not None
    fractions, errors = result.confusion.fraction_CC, result.confusion.error_CC
    panel.imshow(np.nan_to_num(fractions), cmap="Blues", vmin=0, vmax=1)
    many = len(result.classes) > 5
    for (row, column), fraction in np.ndenumerate(fractions):
        text = (
            f"{100 * fraction:.1f}" if many else f"{100 * fraction:.1f}\n±{100 * errors[row, column]:.1f} %"
        )
        colour = "white" if fraction > 0.6 else "black"
        panel.text(column, row, text, ha="center", va="center", color=colour, fontsize=9 if many else 13)
    ticks = range(len(result.classes))
    panel.set_xticks(ticks, result.classes, rotation=45 if many else 0)
    panel.set_yticks(ticks, result.classes)
    panel.tick_params(which="both", length=0)
    panel.minorticks_off()
    panel.set(xlabel="Predicted", ylabel="True")
