"""How figures look: mplhep's ROOT style at a size for the page, a colour-blind-safe palette, the label.

Figures are made with matplotlib's object interface: no pyplot figure, no global state is touched.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jettagger.evaluation.results import Result

Floats = NDArray[np.float64]

PALETTE = ("#3f90da", "#bd1f01", "#ffa90e", "#832db6", "#a96b59", "#e76300", "#717581", "#92dadd", "#b9ac70")
"""Distinguishable with any colour vision and in grey (Petroff, arXiv:2107.02270)."""
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
GREY = "#94a4a2"
_RC: dict[str, Any] = {
    "figure.dpi": 100,
    "font.size": 14,
    "axes.linewidth": 1.2,
    "axes.labelpad": 5,
    "lines.linewidth": 1.8,
    "legend.fontsize": 11.5,
    "legend.handlelength": 2.2,
    "xtick.labelsize": 12.5,
    "ytick.labelsize": 12.5,
    "xtick.major.size": 7,
    "xtick.minor.size": 3.5,
    "ytick.major.size": 7,
    "ytick.minor.size": 3.5,
    "mathtext.fallback": "stixsans",
    "svg.hashsalt": "jettagger",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


class Drawing(NamedTuple):
    """A figure with its place in the report."""

    name: str
    """File name without suffix, and anchor on the page."""
    title: str
    """Heading."""
    figure: Figure
    """What is drawn."""
    caption: str
    """One or two sentences: what is shown, by which convention."""


class Look(NamedTuple):
    """How one run is drawn in every figure."""

    colour: str
    """One for each run or group."""
    line: Any
    """matplotlib's line style, one for each seed of a group."""
    marker: str
    """One for each run."""
    leads: bool
    """First of its group; the others go without bands where many would overlap."""


@contextmanager
def hep_style() -> Iterator[None]:
    """mplhep's ROOT style within the block, for drawing and for saving."""
    settings: dict[Any, Any] = {**mplhep.style.ROOT, **_RC}
    with matplotlib.rc_context(settings):
        yield


def looks(results: Sequence[Result]) -> dict[str, Look]:
    """By run: groups of seeds share a colour and differ in their line."""
    units: dict[str, list[str]] = {}
    for result in results:
        units.setdefault(result.group or result.name, []).append(result.name)
    order = [result.name for result in results]
    return {
        run: Look(
            PALETTE[u % len(PALETTE)],
            LINES[(k + u // len(PALETTE)) % len(LINES)],
            MARKERS[order.index(run) % len(MARKERS)],
            k == 0,
        )
        for u, runs in enumerate(units.values())
        for k, run in enumerate(runs)
    }


def single(size: tuple[float, float] = (7.0, 6.0)) -> tuple[Figure, Axes]:
    """A figure with one panel."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def stacked(size: tuple[float, float] = (7.0, 7.2), ratio: float = 2.6) -> tuple[Figure, Axes, Axes]:
    """A figure with a main panel and a lower one that shares its x axis."""
    figure = Figure(figsize=size, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[ratio, 1])
    return figure, upper, lower


def panels(count: int, size: tuple[float, float] = (4.6, 4.2), columns: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels, at most `columns` beside each other."""
    across = 2 if count == 4 else min(count, columns)
    down = -(-count // across)
    figure = Figure(figsize=(max(size[0] * across, 7.0), size[1] * down + 0.3), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, axes[:count]


def put_label(axes: Axes, text: str) -> None:
    """Words above the left end of a panel: the first one bold, the rest italic."""
    _put(axes, text, 6)


def put_titles(axes: Sequence[Axes], text: str, titles: Sequence[str]) -> None:
    """A title over each panel, and the label over the first one's."""
    for panel, title in zip(axes, titles, strict=True):
        panel.annotate(
            title, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=12.5
        )
    _put(axes[0], text, 27)


def _put(axes: Axes, text: str, height: float) -> None:
    first, _, rest = text.partition(" ")
    place: dict[str, Any] = {"textcoords": "offset points", "va": "baseline"}
    bold = axes.annotate(first, (0, 1), (0, height), xycoords="axes fraction", weight="bold", **place)
    axes.annotate(
        rest, (1, 1), (6, height), xycoords=(bold, axes.transAxes), style="italic", fontsize=12.5, **place
    )


def steps(axes: Axes, edges: Floats, heights: Floats, errors: Floats, **style: Any) -> None:
    """A histogram as a line, its errors as a band of the same colour."""
    drawn = axes.stairs(heights, edges, linewidth=1.6, **style)
    low, high = np.maximum(heights - errors, 0.0), heights + errors
    axes.fill_between(
        np.repeat(edges, 2)[1:-1],
        np.repeat(low, 2),
        np.repeat(high, 2),
        color=drawn.get_edgecolor(),
        alpha=0.22,
        linewidth=0,
    )


def freeze(figure: Figure) -> None:
    """Settles the layout once; without this every saved format would compute it again."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def axis_label(variable: str) -> str:
    """`Jet pT [GeV]` for the usual spectators, else the name as it stands."""
    known = {
        "jet_pt": "Jet $p_\\mathrm{T}$ [GeV]",
        "jet_sdmass": "Soft-drop mass [GeV]",
        "jet_mass": "Jet mass [GeV]",
        "jet_energy": "Jet energy [GeV]",
        "jet_eta": "Jet $\\eta$",
    }
    return known.get(variable, variable)


def rendered(figure: Figure, suffix: str, dpi: int = 150) -> bytes:
    """The figure as `svg`, `pdf` or `png`; the same bytes for the same figure."""
    stream = io.BytesIO()
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with hep_style():
        figure.savefig(stream, format=suffix, dpi=dpi, metadata=dates.get(suffix))
    return stream.getvalue()
