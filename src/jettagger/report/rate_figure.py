"""The figure of the learning-rate finder: the loss against the rate."""

import numpy as np

from jettagger.report.style import GREY, PALETTE, Drawing, freeze, hep_style, put_label, single
from jettagger.training.rate_finder import RateScan


def rate_drawing(scan: RateScan, label: str) -> Drawing:
    """Losses as points, the smoothed loss as a line, the suggested rate as a vertical one."""
    with hep_style():
        figure, axes = single()
        last, smoothed = "one step", "smoothed"
        if scan.side_by_side:
            last, smoothed = "last step", f"smoothed, after {scan.steps} steps"
        axes.plot(scan.rates_S, scan.losses_S, ".", color=GREY, markersize=4, label=last)
        marker = "o" if scan.side_by_side else None
        axes.plot(scan.rates_S, scan.smoothed_S, color=PALETTE[0], marker=marker, label=smoothed)
        if scan.suggestion.rate is not None:
            words = f"suggested: {scan.suggestion.rate:.2g}"
            axes.axvline(scan.suggestion.rate, color=PALETTE[1], linestyle="--", label=words)
        axes.set(xlabel="Learning rate", ylabel="Training loss", xscale="log")
        axes.set_ylim(*_limits(scan))
        axes.legend(loc="upper left")
        put_label(axes, label)
        freeze(figure)
    return Drawing(
        name="lr_finder",
        title="Learning rate",
        figure=figure,
        caption=f"{scan.ended[0].upper()}{scan.ended[1:]}. {scan.suggestion.reason}.",
    )


def _limits(scan: RateScan) -> tuple[float, float]:
    """From a little below the lowest smoothed loss to well above the first half's highest."""
    known_S = scan.smoothed_S[np.isfinite(scan.smoothed_S)]
    low, high = float(known_S.min()), float(known_S[: len(known_S) // 2 + 1].max())
    return low - 0.2 * (high - low) - 1e-3 * abs(high), high + 0.8 * (high - low) + 1e-3 * abs(high)
