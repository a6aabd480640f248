"""Against the jets' own variables: efficiency and mistag against pT, mass before and after the cut."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from jettagger.evaluation.results import Result
from jettagger.metrics import Efficiency, Histogram
from jettagger.report.roc_figures import find_pair
from jettagger.report.style import (
    PALETTE,
    Drawing,
    Floats,
    Look,
    axis_label,
    looks,
    panels,
    put_label,
    put_titles,
    stacked,
    steps,
)


def pt_drawing(results: Sequence[Result], pair: str, label: str) -> Drawing | None:
    """Efficiency and mistag against pT for one cut on all jets."""
    shown = [
        (result, one)
        for result in results
        if (one := find_pair(result, pair)) is not None and one.pt is not None
    ]
    if not shown:
        return None
    figure, upper, lower = stacked(ratio=1.0)
    look = looks(results)
    for number, (result, one) in enumerate(shown):
        assert one.pt is not None
        shift = (number - (len(shown) - 1) / 2) / (len(shown) + 2)
        _points(upper, one.pt.edges, one.pt.signal, look[result.name], shift, result.name)
        _points(lower, one.pt.edges, one.pt.background, look[result.name], shift, None)
    first = shown[0][1]
    assert first.pt is not None
    upper.axhline(first.working_point.signal_efficiency, color="grey", linewidth=0.8, linestyle=":")
    upper.set(ylabel=f"{first.signal} efficiency", xlim=(first.pt.edges[0], first.pt.edges[-1]))
    lower.set(ylabel=f"{first.background} mistag rate", xlabel=axis_label(first.pt.variable))
    lower.set_ylim(bottom=0)
    _room_for_legend(upper, len(shown))
    put_label(upper, label)
    return Drawing(
        name=f"pt_{pair}",
        title=f"Efficiency and mistag rate against {first.pt.variable}",
        figure=figure,
        caption="One cut for all jets, at an overall signal efficiency of "
        f"{first.working_point.signal_efficiency:.3g} (dotted); bins hold equal weight. Errors are Wilson "
        "intervals (68 %); points of different runs are shifted sideways within their bin.",
    )


def mass_drawing(results: Sequence[Result], pair: str, label: str) -> Drawing | None:
    """Background mass before and after the cut, both normalised."""
    shown = [
        (result, one)
        for result in results
        if (one := find_pair(result, pair)) is not None and one.mass is not None
    ]
    if not shown:
        return None
    figure, axes = panels(len(shown))
    first = shown[0][1]
    for panel, (_, one) in zip(axes, shown, strict=True):
        assert one.mass is not None
        before, after = _merged(one.mass.before, one.mass.after)
        panel.stairs(before.normalised()[0], before.edges, fill=True, color="#d3dade", label="all")
        heights, errors = after.normalised()
        if heights.any():
            steps(panel, after.edges, heights, errors, color=PALETTE[1], label="after the cut")
        panel.set(xlabel=axis_label(one.mass.variable), ylabel="Density [1/GeV]")
        panel.set_xlim(before.edges[0], before.edges[-1])
        panel.set_ylim(0, panel.get_ylim()[1] * 1.35)
        panel.legend(loc="upper right", title=f"{one.background} jets")
    put_titles(axes, label, [result.name for result, _ in shown])
    return Drawing(
        name=f"mass_{pair}",
        title=f"{first.background} mass spectrum before and after the cut",
        figure=figure,
        caption=f"{first.background} jets, each spectrum normalised to 1, the cut at a {first.signal} "
        f"efficiency of {first.working_point.signal_efficiency:.3g}; bands are √Σw², overflow is in the last "
        "bin. "
        + _sculpting(
            [(run.name, one.mass.divergence, one.mass.divergence_floor) for run, one in shown if one.mass]
        ),
    )


def _merged(before: Histogram, after: Histogram) -> tuple[Histogram, Histogram]:
    """Both with neighbouring bins joined until the survivors fill them with about four jets on average."""
    squares = after.sumw2.sum()
    survivors = after.sumw.sum() ** 2 / squares if squares > 0 else 0.0
    while len(after.sumw) % 2 == 0 and len(after.sumw) > 10 and survivors < 4 * len(after.sumw):
        before, after = (
            Histogram(one.edges[::2], *(part.reshape(-1, 2).sum(1) for part in (one.sumw, one.sumw2)))
            for one in (before, after)
        )
    return before, after


def _points(
    axes: Axes, edges: Floats, efficiency: Efficiency, look: Look, shift: float, name: str | None
) -> None:
    known = efficiency.entries > 0
    width = np.diff(edges)
    x = (edges[:-1] + width * (0.5 + shift))[known]
    y = efficiency.value[known]
    bars = np.abs(np.stack([y - efficiency.low[known], efficiency.high[known] - y]))
    axes.errorbar(x, y, bars, fmt=look.marker, color=look.colour, markersize=4.5, elinewidth=1.2, label=name)
    axes.hlines(y, edges[:-1][known], edges[1:][known], color=look.colour, linewidth=0.8, alpha=0.6)


def _room_for_legend(axes: Axes, entries: int) -> None:
    low, high = axes.get_ylim()
    rows = -(-entries // 2)
    axes.set_ylim(max(0.0, low - 0.05), high + (high - low) * (0.14 + 0.11 * rows))
    axes.legend(loc="upper left", ncols=2, columnspacing=1.0)


def _sculpting(found: list[tuple[str, float, float]]) -> str:
    known = [
        f"{name} {divergence:.3f} (as many random jets: {floor:.3f})"
        for name, divergence, floor in found
        if np.isfinite(divergence) and np.isfinite(floor)
    ]
    if not known:
        return "No jet passes the cut."
    return (
        "Jensen-Shannon divergence of the two spectra, in bits, 0 for no sculpting: " + "; ".join(known) + "."
    )
