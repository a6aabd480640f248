"""Distributions of the uncertainties, and error against coverage."""

from collections.abc import Sequence

from jettagger.evaluation.mistakes import MEASURES
from jettagger.evaluation.results import Result
from jettagger.report.style import (
    LINES,
    PALETTE,
    Drawing,
    looks,
    panels,
    put_label,
    put_titles,
    single,
    steps,
)

_SHOWN = ("std", "mutual_information", "expected_entropy")


def uncertainty_drawings(results: Sequence[Result], label: str) -> list[Drawing]:
    """For each run (of a group the first) with several networks: spread, mutual information, label noise."""
    drawings, look = [], looks(results)
    for number, result in enumerate(results):
        shown = [name for name in _SHOWN if name in result.uncertainty]
        if not shown or result.samples < 2 or not look[result.name].leads:
            continue
        figure, axes = panels(len(shown))
        for panel, name in zip(axes, shown, strict=True):
            one = result.uncertainty[name]
            for histogram, colour, words in (
                (one.right, PALETTE[0], "right"),
                (one.wrong, PALETTE[1], "wrong"),
            ):
                heights, errors = histogram.normalised()
                if heights.any():
                    steps(panel, histogram.edges, heights, errors, color=colour, label=words)
            panel.set(yscale="log", xlabel=_short(name), ylabel="Density")
            panel.set_xlim(one.right.edges[0], one.right.edges[-1])
            panel.legend(loc="upper right", title="classified")
        put_titles(axes, label, [result.name] + [""] * (len(axes) - 1))
        drawings.append(
            Drawing(
                name=f"uncertainty_{number}",
                title=f"Uncertainties of {result.name}",
                figure=figure,
                caption=f"{result.samples} networks or dropout passes. Standard deviation and mutual "
                "information: between trainings (epistemic in ML terms; the lecture's statistical part). "
                "Expected entropy: label noise (aleatoric). Jets classified rightly and wrongly are "
                "normalised to 1 each.",
            )
        )
    return drawings


def coverage_drawing(results: Sequence[Result], label: str) -> Drawing | None:
    """Error of the jets that are kept when the least certain are left out."""
    shown = [result for result in results if result.uncertainty]
    if not shown:
        return None
    figure, axes = single()
    look = looks(results)
    for result in shown:
        for name, line in (("total_entropy", look[result.name].line), ("mutual_information", None)):
            if name not in result.uncertainty or (line is None and len(shown) > 2):
                continue
            one = result.uncertainty[name]
            words = "total entropy" if name == "total_entropy" else "between trainings"
            axes.plot(
                100 * one.coverage.coverage_G,
                100 * one.coverage.risk_G,
                color=look[result.name].colour,
                linestyle=line if line is not None else LINES[2],
                label=f"{result.name}: {words}, AURC {100 * one.coverage.area:.2g} %",
            )
    axes.set(xlim=(0, 100), xlabel="Coverage: jets kept [%]", ylabel="Error among them [%]")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")
    put_label(axes, label)
    return Drawing(
        name="coverage",
        title="Error against coverage",
        figure=figure,
        caption="Jets are kept in order of rising uncertainty; the error is the weighted fraction whose most "
        "probable class is wrong. The lower the curve on the left, the better the uncertainty finds the "
        "mistakes. AURC: area under the curve.",
    )


def _short(name: str) -> str:
    return {
        "std": "Largest std. dev. of p",
        "mutual_information": "Mutual information [nats]",
        "expected_entropy": "Expected entropy [nats]",
    }.get(name, MEASURES.get(name, name))
