"""The report: one HTML file that needs nothing else, `report.json`, and the figures as PDF and PNG."""

import base64
import json
from collections.abc import Callable, Collection, Sequence
from html import escape
from pathlib import Path

from jettagger import __version__
from jettagger.evaluation.document import to_json
from jettagger.evaluation.results import Evaluation
from jettagger.evaluation.table import format_measurement
from jettagger.files import check_writable, written_aside
from jettagger.metrics import Measurement
from jettagger.report import tables
from jettagger.report.figures import draw, drawn_pairs
from jettagger.report.style import Drawing, Floats, rendered
from jettagger.report.training_figures import training_words

LARGEST_SVG = 3_300_000
"""Bytes of all figures as SVG above which the page holds PNGs, to stay below 5 MB."""
_SECTIONS = (
    ("roc", "Efficiency and rejection", ("roc_", "significance_")),
    ("scores", "Scores and classes", ("scores_", "confusion")),
    ("calibration", "Calibration", ("calibration",)),
    ("jets", "Against pT and mass", ("pt_", "mass_")),
    ("regression", "Regression", ("residuals_", "pulls_")),
    ("training", "Training", ("training",)),
    ("uncertainty", "Uncertainty", ("uncertainty_", "coverage")),
)
_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 78rem; padding: 1.5rem 1.25rem 4rem; background: #fff; color: #1c2126;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .8rem; padding-top: .8rem; border-top: 2px solid #1c2126; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; }
p, li, dd { max-width: 46rem; }
a { color: #1a5fa8; }
nav { font-size: .95rem; margin: 0 0 1.6rem; }
nav a { display: inline-block; margin: 0 1rem .25rem 0; }
.lead { color: #4a545e; margin: 0 0 1.2rem; }
.wide { overflow-x: auto; margin: .6rem 0 .4rem; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .45rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #dde2e6; }
thead th { border-bottom: 2px solid #1c2126; }
tbody tr { background: #fff; }
tbody tr:nth-child(even) { background: #f6f8f9; }
th:first-child { text-align: left; position: sticky; left: 0; background: inherit; }
thead th:first-child { background: #fff; }
figure { margin: 0 0 2rem; }
figure img { display: block; width: 100%; height: auto; }
figcaption, .small { font-size: .9rem; color: #4a545e; max-width: 46rem; }
.figures { display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
.narrow { max-width: 38rem; }
.panels { grid-column: 1 / -1; }
.note { border-left: 4px solid #ffa90e; background: #fff8ea; padding: .5rem .9rem; margin: .6rem 0;
  overflow-wrap: anywhere; }
.note.error { border-color: #bd1f01; background: #fdf0ed; }
dt { font-weight: 600; margin-top: .7rem; }
dd { margin: 0; }
footer { margin-top: 3rem; font-size: .85rem; color: #4a545e; }
@media (max-width: 40rem) {
  body { padding: 1rem .8rem 3rem; }
  th, td { padding: .3rem .5rem; }
  figure .wide img { width: 52rem; }
}
@media print {
  body { max-width: none; font-size: 10pt; }
  nav { display: none; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .figures { display: block; }
  .wide { overflow: visible; }
  table { font-size: 7.5pt; }
}
"""
_DEFINITIONS = (
    (
        "R(ε)",
        "Background rejection 1/ε_B at signal efficiency ε, on the exact step ROC: the "
        "highest threshold whose "
        "signal efficiency is at least ε. Its error is binomial, σ_R/R ≈ 1/√(n ε_B). “> x”: "
        "no background jet "
        "is left, lower limit at 68 % confidence.",
    ),
    (
        "AUC",
        "Area under the ROC, ties counted half; its error follows DeLong. For more than two "
        "classes the mean of "
        "each class against the rest.",
    ),
    (
        "Accuracy",
        "Fraction of jets whose most probable class is the true one; the error is binomial (Wilson).",
    ),
    ("NLL, Brier", "Mean −ln p(true class) in nats; mean of Σ(p−y)² over all classes, from 0 to 2."),
    (
        "ECE",
        "Calibration error of the most probable class in 15 bins of equal width, unless set "
        "otherwise; beside "
        "it what a perfectly calibrated tagger would show from fluctuations alone.",
    ),
    (
        "Uncertainties",
        "Between trainings (epistemic in ML terms; the lecture's statistical part): standard deviation and "
        "mutual information of the members or dropout passes. Label noise (aleatoric): the mean entropy of "
        "their predictions. Mutual information and label noise add up to the total entropy, "
        "but for the factor "
        "M/(M−1) that corrects the mutual information for the number of members.",
    ),
    (
        "Regression",
        "Residual: prediction − truth. Bias: its mean; resolution: half the width of its central 68 %. Pull: residual "
        "over the error that the network gives; its width is 1 where errors are right. 68 %, 95 %: fraction of jets "
        "within 1 and 1.96 errors, or between the quantiles of that distance.",
    ),
    ("Weights", "Event weights enter every figure, errors use Σw². Training weights enter none."),
)


def write_report(evaluation: Evaluation, directory: Path | str, *, title: str = "Tagger evaluation") -> Path:
    """Writes `report.html`, `report.json` and `figures/*.pdf, *.png` into `directory`; returns the page.

    Everything is drawn before the first file is written, and each file is whole or absent, the page last.
    """
    directory = Path(directory)
    page = directory / "report.html"
    check_writable(page)
    drawings = draw(evaluation)
    contents: dict[Path, bytes] = {}
    for drawing in drawings:
        for suffix in ("pdf", "png"):
            contents[directory / "figures" / f"{drawing.name}.{suffix}"] = rendered(drawing.figure, suffix)
    document = json.dumps(to_json(evaluation), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    contents[directory / "report.json"] = document.encode()
    contents[page] = to_html(evaluation, drawings, title).encode()
    for path, content in contents.items():
        with written_aside(path) as aside:
            aside.write_bytes(content)
    return page


def to_html(evaluation: Evaluation, drawings: Sequence[Drawing], title: str) -> str:
    """The page, with figures inside."""
    images = _images(drawings)
    sections: dict[str, str] = {}
    for anchor, heading, names in _SECTIONS:
        shown = [drawing for drawing in drawings if drawing.name.startswith(names)]
        before = _EXTRAS[anchor](evaluation) if anchor in _EXTRAS else ""
        if shown or before:
            figures = "\n".join(figure_html(drawing, images[drawing.name]) for drawing in shown)
            inside = f'{before}\n<div class="figures">\n{figures}\n</div>'
            sections[anchor] = f'<section id="{anchor}">\n<h2>{heading}</h2>\n{inside}\n</section>'
    parts = [_opening(evaluation, title, sections), _headline(evaluation), *sections.values()]
    terms = "\n".join(f"<dt>{escape(term)}</dt><dd>{escape(words)}</dd>" for term, words in _DEFINITIONS)
    parts.append(f'<section id="definitions">\n<h2>Definitions</h2>\n<dl>{terms}</dl>\n</section>')
    parts.append(
        f"<footer>Written by jettagger {escape(__version__)}. Numbers: report.json. Figures as PDF and PNG: "
        "figures/.</footer>"
    )
    return whole_page(title, "\n".join(parts))


def whole_page(title: str, body: str) -> str:
    """A page that needs nothing else around `body`."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _opening(evaluation: Evaluation, title: str, anchors: Collection[str]) -> str:
    first = evaluation.results[0]
    counts = ", ".join(
        f"{count:,} {name}".replace(",", "\u202f")
        for name, count in zip(first.classes, first.n_jets_of_class, strict=True)
    )
    counts = counts or f"{first.n_jets:,}".replace(",", "\u202f")
    links = "".join(
        f'<a href="#{anchor}">{heading}</a>' for anchor, heading, _ in _SECTIONS if anchor in anchors
    )
    return (
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{len(evaluation.results)} '
        f"{'run' if len(evaluation.results) == 1 else 'runs'}; test jets: {escape(counts)}.</p>\n</header>\n"
        f'<nav aria-label="Sections">{links}<a href="#definitions">Definitions</a></nav>'
    )


def _headline(evaluation: Evaluation) -> str:
    parts = []
    headline = evaluation.results[0].headline if evaluation.results[0].classes else None
    if headline is None:
        parts.append(tables.targets_table(evaluation.results))
    else:
        parts.append(tables.headline_table(evaluation))
        parts.append(
            f'<p class="small">R(ε): rejection of {escape(headline.background)} at a {escape(headline.signal)} '
            "efficiency of ε. Errors are one standard deviation from the finite test sample, figures rounded to "
            "two digits of their error.</p>"
        )
    parts.extend(f'<p class="note">{escape(note)}</p>' for note in evaluation.notes)
    for result in evaluation.results:
        parts.extend(f'<p class="note">{escape(result.name)}: {escape(note)}</p>' for note in result.notes)
    if evaluation.differences and headline is not None:
        reference = evaluation.differences[0].reference
        parts.append(f"<h3>Compared with {escape(reference)}</h3>")
        parts.append(tables.differences_table(evaluation.differences, headline.name))
        parts.append(
            f'<p class="small">Paired bootstrap with {evaluation.settings.bootstrap} replicas of the test '
            "jets that all runs share, so that common fluctuations cancel. Groups of seeds enter with their "
            "mean.</p>"
        )
    if evaluation.seeds:
        parts.append("<h3>Spread over seeds</h3>")
        parts.append(tables.seeds_table(evaluation.seeds))
    return f'<section id="headline">\n{"".join(parts)}\n</section>'


def _roc_words(evaluation: Evaluation) -> str:
    parts = []
    if any(len(result.pairs) > 1 for result in evaluation.results):
        parts.append(tables.pairs_table(evaluation.results))
        names = {pair.name for result in evaluation.results for pair in result.pairs}
        left_out = len(names) - len(drawn_pairs(evaluation.results))
        if left_out > 0:
            parts.append(
                f'<p class="small">{left_out} further pairs of classes are in the table only; '
                "<code>evaluation.signal</code> and <code>evaluation.background</code> choose what is "
                "drawn.</p>"
            )
    for result in evaluation.results:
        if not result.pairs:
            continue
        pair = result.headline
        if len(pair.member_auc_M) > 1:
            single = format_measurement(_mean_and_std(pair.member_auc_M))
            parts.append(
                f"<p>{escape(result.name)}, {escape(pair.signal)} against {escape(pair.background)}: AUC "
                f"{format_measurement(pair.auc)} of the mean of {len(pair.member_auc_M)} members; one member "
                f"alone has {single} (mean and standard deviation over members).</p>"
            )
    return "\n".join(parts)


def _calibration_words(evaluation: Evaluation) -> str:
    with_probabilities = [result for result in evaluation.results if result.ece is not None]
    return tables.calibration_table(with_probabilities) if with_probabilities else ""


def _training_words(evaluation: Evaluation) -> str:
    items = [
        f"<li><strong>{escape(run)}.</strong> {escape(' '.join(sentences))}</li>"
        for run, sentences in training_words(evaluation.results)
    ]
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _uncertainty_words(evaluation: Evaluation) -> str:
    measured = [result for result in evaluation.results if result.uncertainty]
    return tables.uncertainty_table(measured) if measured else ""


def _regression_words(evaluation: Evaluation) -> str:
    beside = any(result.classes and result.targets for result in evaluation.results)
    return tables.targets_table(evaluation.results) if beside else ""


_EXTRAS: dict[str, Callable[[Evaluation], str]] = {
    "regression": _regression_words,
    "roc": _roc_words,
    "calibration": _calibration_words,
    "training": _training_words,
    "uncertainty": _uncertainty_words,
}


def _mean_and_std(values: Floats) -> Measurement:
    return Measurement(float(values.mean()), float(values.std(ddof=1)))


def figure_html(drawing: Drawing, source: str) -> str:
    """A figure with its heading and caption; `source` is its address."""
    # One panel fits a phone; several beside each other are scrolled there.
    kind, box = ("narrow", "one") if drawing.figure.get_figwidth() < 8 else ("panels", "wide")
    return (
        f'<figure id="figure-{escape(drawing.name)}" class="{kind}">\n<h3>{escape(drawing.title)}</h3>\n'
        f'<div class="{box}"><img src="{source}" alt="{escape(drawing.title)}" style="max-width: '
        f'{6 * drawing.figure.get_figwidth():.0f}rem"></div>\n'
        f"<figcaption>{escape(drawing.caption)}</figcaption>\n</figure>"
    )


def _images(drawings: Sequence[Drawing]) -> dict[str, str]:
    """Data addresses: SVG, or PNG where the SVGs together are too large for a page."""
    pictures, kind = {one.name: rendered(one.figure, "svg") for one in drawings}, "svg+xml"
    if sum(len(picture) for picture in pictures.values()) > LARGEST_SVG:
        pictures, kind = {one.name: rendered(one.figure, "png", dpi=100) for one in drawings}, "png"
    return {
        name: f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
        for name, picture in pictures.items()
    }
