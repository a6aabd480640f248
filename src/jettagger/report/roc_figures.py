"""Efficiency against rejection, and the significance improvement.

Shapes: G points of the curve.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from jettagger.evaluation.results import Curve, PairResult, Result
from jettagger.report.style import GREY, Drawing, Look, looks, put_label, single, stacked

Floats = NDArray[np.float64]
_BARS_AT = np.arange(0.1, 0.95, 0.1)


def roc_drawing(results: Sequence[Result], pair: str, reference: str, label: str) -> Drawing:
    """Background rejection against signal efficiency of each run, and its ratio to the reference."""
    several = len(results) > 1
    if several:
        figure, upper, lower = stacked()
    else:
        figure, upper = single()
    look = looks(results)
    chosen = {result.name: find_pair(result, pair) for result in results}
    signal, background = _classes(chosen)
    for number, (run, one) in enumerate(chosen.items()):
        if one is not None:
            _draw_rejection(upper, run, one.curve, look[run], (number - (len(results) - 1) / 2) * 0.008)
    upper.set(yscale="log", xlim=(0, 1), ylabel=f"{background} rejection  $1/\\varepsilon_\\mathrm{{B}}$")
    _room_for_legend(upper, len(results))
    put_label(upper, label)
    if several:
        _draw_ratio(lower, chosen, reference, look)
        lower.set_ylabel("Ratio")
    (lower if several else upper).set_xlabel(f"{signal} efficiency  $\\varepsilon_\\mathrm{{S}}$")
    return Drawing(
        name=f"roc_{pair}",
        title=f"{signal} efficiency against {background} rejection",
        figure=figure,
        caption=_roc_caption(chosen, reference if several else None),
    )


def _room_for_legend(axes: Axes, entries: int) -> None:
    """Curves begin at the upper left: beyond a few entries the legend goes above them, in two columns."""
    columns = 1 if entries <= 5 else 2
    rows = -(-entries // columns)
    _, highest = axes.get_ylim()
    axes.set_ylim(1.0, highest * (1.0 if columns == 1 else 10 ** (0.28 * rows)))
    axes.legend(loc="upper right", ncols=columns, columnspacing=1.0)


def significance_drawing(results: Sequence[Result], pair: str, label: str) -> Drawing:
    """Signal efficiency over the square root of the background efficiency."""
    figure, axes = single()
    look = looks(results)
    chosen = {result.name: find_pair(result, pair) for result in results}
    signal, background = _classes(chosen)
    for run, one in chosen.items():
        if one is None:
            continue
        curve = one.curve
        e_b = np.where(curve.background_efficiency_G > 0, curve.background_efficiency_G, np.nan)
        x_G = curve.signal_efficiency_G
        improvement_G = x_G / np.sqrt(e_b)
        error_G = improvement_G * curve.background_error_G / (2 * e_b)
        style = look[run]
        axes.plot(x_G, improvement_G, color=style.colour, linestyle=style.line, label=run)
        if style.leads:
            low_G, high_G = improvement_G - error_G, improvement_G + error_G
            axes.fill_between(x_G, low_G, high_G, color=style.colour, alpha=0.13, linewidth=0)
    axes.axhline(1.0, color=GREY, linewidth=1)
    axes.set(xlim=(0, 1), xlabel=f"{signal} efficiency  $\\varepsilon_\\mathrm{{S}}$")
    axes.set_ylabel("Significance improvement  $\\varepsilon_\\mathrm{S}/\\sqrt{\\varepsilon_\\mathrm{B}}$")
    axes.set_ylim(bottom=0)
    axes.legend(loc="best")
    put_label(axes, label)
    return Drawing(
        name=f"significance_{pair}",
        title=f"Significance improvement, {signal} against {background}",
        figure=figure,
        caption="The factor by which a cut on the score multiplies S/√B, for a background-dominated counting "
        "experiment without systematic uncertainties. Band: binomial error of the background efficiency "
        "(first seed of a group). "
        "The curve ends where no background jet is left.",
    )


def find_pair(result: Result, name: str) -> PairResult | None:
    """The pair called `Top_vs_QCD`, or None if this run has none."""
    return next((pair for pair in result.pairs if pair.name == name), None)


def _classes(chosen: dict[str, PairResult | None]) -> tuple[str, str]:
    one = next(pair for pair in chosen.values() if pair is not None)
    return one.signal, one.background


def _rejection(background_efficiency_G: Floats) -> Floats:
    return 1 / np.where(background_efficiency_G > 0, background_efficiency_G, np.nan)


def _draw_rejection(axes: Axes, run: str, curve: Curve, look: Look, shift: float) -> None:
    x_G = curve.signal_efficiency_G
    rejection_G = _rejection(curve.background_efficiency_G)
    axes.plot(x_G, rejection_G, color=look.colour, linestyle=look.line, label=run)
    if curve.member_low_G is not None and curve.member_high_G is not None:
        low_G, high_G = _rejection(curve.member_high_G), _rejection(curve.member_low_G)
        axes.fill_between(x_G, low_G, high_G, color=look.colour, alpha=0.2, linewidth=0)
    at = np.unique(np.clip(np.searchsorted(x_G, _BARS_AT + shift), 0, len(x_G) - 1))
    at = at[curve.background_efficiency_G[at] > 0]
    error_G = curve.background_error_G * rejection_G**2
    # 1/e has a lopsided error on a logarithmic axis: +-1 sigma of e_b itself.
    low = 1 / (curve.background_efficiency_G[at] + curve.background_error_G[at])
    errors = np.stack([rejection_G[at] - low, error_G[at]])
    axes.errorbar(x_G[at], rejection_G[at], errors, fmt="none", ecolor=look.colour, elinewidth=1.2, capsize=2)


def _draw_ratio(
    axes: Axes, chosen: dict[str, PairResult | None], reference: str, look: dict[str, Look]
) -> None:
    base = chosen.get(reference) or next(pair for pair in chosen.values() if pair is not None)
    base_G = _rejection(base.curve.background_efficiency_G)
    relative_G = base.curve.background_error_G * base_G
    x_G = base.curve.signal_efficiency_G
    axes.fill_between(x_G, 1 - relative_G, 1 + relative_G, color=GREY, alpha=0.3, linewidth=0)
    highest = [1.5]
    for run, one in chosen.items():
        if one is not None:
            ratio_G = _rejection(one.curve.background_efficiency_G) / base_G
            axes.plot(x_G, ratio_G, color=look[run].colour, linestyle=look[run].line)
            inner_G = ratio_G[(x_G > 0.2) & np.isfinite(ratio_G)]
            # Where the reference breaks down the ratio leaves the panel rather than flatten the rest.
            highest.append(float(np.quantile(inner_G, 0.8)) if len(inner_G) else 0.0)
    axes.set_ylim(0, 1.3 * max(highest))


def _roc_caption(chosen: dict[str, PairResult | None], reference: str | None) -> str:
    text = (
        "Exact step curve of the discriminant D = p_S/(p_S + p_B): at each signal efficiency the highest "
        "threshold that reaches it. Error bars: binomial error of the background efficiency (shifted "
        "sideways where runs overlap)."
    )
    members = [len(pair.member_auc_M) for pair in chosen.values() if pair is not None]
    if max(members) > 1:
        count = max(members)
        text += (
            f" Band: smallest to largest of the {count} members, between trainings (epistemic in ML terms; "
            "the lecture's statistical part); a new training falls inside with probability "
            f"{count - 1}/{count + 1}."
        )
    if reference is not None:
        text += f" Below: rejection relative to {reference}, whose binomial error is the grey band."
    return text
