"""Residuals and pulls of regression targets."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jettagger.evaluation.regression import TargetResult
from jettagger.evaluation.results import Result
from jettagger.report.style import GREY, Drawing, looks, put_label, single, steps

MOST_RUNS = 6
"""With more runs than this the others are in the table only."""


def residual_drawings(results: Sequence[Result], label: str) -> list[Drawing]:
    """For each target the distribution of prediction - truth, one line a run."""
    drawings = []
    for target in _targets(results):
        figure, axes = single()
        for result, one, style in _shown(results, target):
            heights, errors = one.residual_spectrum.normalised()
            words = f"{result.name} (resolution {one.residuals.resolution.value:.3g})"
            steps(axes, one.residual_spectrum.edges, heights, errors, label=words, **style)
        axes.axvline(0, color=GREY, linewidth=1)
        axes.set(xlabel=f"Predicted - true {target}", ylabel="Density")
        axes.margins(y=0.25)
        axes.legend(loc="upper left")
        put_label(axes, label)
        drawings.append(
            Drawing(
                name=f"residuals_{target}",
                title=f"Residuals of {target}",
                figure=figure,
                caption="Each run is normalised to 1 in what is drawn, five resolutions around its bias; bands are "
                "the statistical errors √Σw². The resolution is half the width of the central 68 % of all jets.",
            )
        )
    return drawings


def pull_drawings(results: Sequence[Result], label: str) -> list[Drawing]:
    """For each target the distribution of (prediction - truth) / error beside the Gaussian that it should be."""
    drawings = []
    for target in _targets(results):
        shown = [one for one in _shown(results, target) if one[1].pull_spectrum is not None]
        if not shown:
            continue
        figure, axes = single()
        for result, one, style in shown:
            assert one.pull_spectrum is not None
            assert one.pulls is not None
            heights, errors = one.pull_spectrum.normalised()
            words = f"{result.name} (width {one.pulls.width.value:.3g})"
            steps(axes, one.pull_spectrum.edges, heights, errors, label=words, **style)
        x = np.linspace(-5, 5, 201)
        axes.plot(x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), color="black", linewidth=1, linestyle="--")
        axes.set(xlabel=f"Pull of {target}", ylabel="Density", xlim=(-5, 5))
        axes.margins(y=0.25)
        axes.legend(loc="upper left")
        put_label(axes, label)
        drawings.append(
            Drawing(
                name=f"pulls_{target}",
                title=f"Pulls of {target}",
                figure=figure,
                caption="(Predicted - true) / error; dashed: the Gaussian of width 1 that right errors give. The error "
                "is what a Gaussian loss has learned, with the spread between networks; where none is learned it is "
                "that spread alone, which knows nothing of noise and is too small.",
            )
        )
    return drawings


def _targets(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(one.name for result in results for one in result.targets))


def _shown(results: Sequence[Result], target: str) -> list[tuple[Result, TargetResult, dict[str, Any]]]:
    look = looks(results)
    found = [
        (result, one, {"color": look[result.name].colour, "linestyle": look[result.name].line})
        for result in results
        for one in result.targets
        if one.name == target
    ]
    return found[:MOST_RUNS]
