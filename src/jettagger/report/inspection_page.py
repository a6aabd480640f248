"""The page of an inspection: one HTML file that needs nothing else, inspection.json, and the figures."""

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from jettagger import __version__
from jettagger.files import check_writable, written_aside
from jettagger.inspection.comparison import Comparison
from jettagger.inspection.document import to_json
from jettagger.inspection.findings import Finding
from jettagger.inspection.inspect import Inspection
from jettagger.inspection.overlaps import Overlaps
from jettagger.inspection.targets import Target
from jettagger.inspection.words import (
    classifier_words,
    comparison_rows,
    cut_rows,
    number_of,
    probability,
    yield_rows,
)
from jettagger.report.inspection_figures import draw
from jettagger.report.page import figure_html, whole_page
from jettagger.report.style import Drawing, rendered
from jettagger.report.tables import html_table

MOST_FILES = 200
"""Files whose yields stand on the page; all are in inspection.json."""
MOST_GAPS = 12


def write_inspection(inspection: Inspection, directory: Path) -> Path:
    """Writes inspection.html, inspection.json and figures/*.png, *.pdf; returns the page.

    Everything is drawn before the first file is written, and each file is whole or absent, the page last.
    """
    page = directory / "inspection.html"
    check_writable(page)
    drawings = draw(inspection)
    contents: dict[Path, bytes] = {}
    images: dict[str, str] = {}
    for drawing in drawings:
        picture = rendered(drawing.figure, "png", dpi=100)
        images[drawing.name] = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        contents[directory / "figures" / f"{drawing.name}.png"] = picture
        contents[directory / "figures" / f"{drawing.name}.pdf"] = rendered(drawing.figure, "pdf")
    document = json.dumps(to_json(inspection), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    contents[directory / "inspection.json"] = document.encode()
    contents[page] = to_html(inspection, drawings, images).encode()
    for path, content in contents.items():
        with written_aside(path) as aside:
            aside.write_bytes(content)
    return page


def to_html(inspection: Inspection, drawings: Sequence[Drawing], images: dict[str, str]) -> str:
    """The page, with figures inside."""
    sections = [
        ("findings", "Findings", _findings(inspection.findings), ()),
        ("yields", "Yields", _yields(inspection), ()),
        ("inputs", "Inputs", _variables(inspection), ("inputs_",)),
        ("targets", "Targets", _targets(inspection.targets), ("targets_",)),
        ("overlaps", "Duplicates and leakage", _overlaps(inspection.overlaps), ()),
        ("weights", "Weights", _weights(inspection), ("weights_",)),
        ("correlations", "Correlations", "", ("correlations_",)),
        ("compared", "Samples compared", "".join(map(_comparison, inspection.comparisons)), ("compared_",)),
    ]
    parts, links = [], []
    for anchor, heading, words, prefixes in sections:
        shown = [d for d in drawings if prefixes and d.name.startswith(prefixes)]
        if not words and not shown:
            continue
        links.append(f'<a href="#{anchor}">{heading}</a>')
        figures = "\n".join(figure_html(drawing, images[drawing.name]) for drawing in shown)
        inside = f'{words}\n<div class="figures">\n{figures}\n</div>' if shown else words
        parts.append(f'<section id="{anchor}">\n<h2>{heading}</h2>\n{inside}\n</section>')
    title = f"Inspection of {inspection.name}"
    errors = sum(finding.severity == "error" for finding in inspection.findings)
    warnings = len(inspection.findings) - errors
    wrong = f"{number_of(errors, 'error')}, {number_of(warnings, 'warning')}"
    lead = f"{number_of(len(inspection.files), 'file')}; {wrong}."
    opening = (
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{lead}</p>\n</header>\n'
        f'<nav aria-label="Sections">{"".join(links)}</nav>'
    )
    closing = (
        f"<footer>Written by jettagger {escape(__version__)}. Numbers: inspection.json. Figures as PNG and PDF: "
        "figures/.</footer>"
    )
    return whole_page(title, "\n".join([opening, *parts, closing]))


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return "<p>Nothing is wrong.</p>"
    parts = []
    for finding in findings:
        advice = f"<br>Write: <code>{escape(finding.advice)}</code>" if finding.advice else ""
        files = ", ".join(escape(file) for file in finding.files[:5])
        more = f" and {len(finding.files) - 5} more" if len(finding.files) > 5 else ""
        place = f'<br><span class="small">In {files}{more}</span>' if files else ""
        message = escape(finding.message).replace("\n", "<br>")
        parts.append(
            f'<p class="note {finding.severity}"><strong>{finding.severity.capitalize()}: '
            f"{escape(finding.where)}.</strong> {message}{advice}{place}</p>"
        )
    return "\n".join(parts)


def _yields(inspection: Inspection) -> str:
    parts = ["<h3>Sides and classes</h3>", html_table(yield_rows(inspection))]
    parts += ["<h3>Cut flow</h3>", html_table(cut_rows(inspection))]
    parts.append('<p class="small">Jets that pass a cut and all cuts before it.</p>')
    classes = [["sample, class", "all", *inspection.cuts]]
    sums: dict[str, list[int]] = {}
    for flow in inspection.files:
        for name, numbers in flow.of_class.items():
            total = sums.setdefault(f"{flow.role}.{flow.sample}, {name}", [0] * len(numbers))
            sums[f"{flow.role}.{flow.sample}, {name}"] = [a + b for a, b in zip(total, numbers, strict=True)]
    classes += [[name, *map(str, numbers)] for name, numbers in sums.items() if numbers[0]]
    if any(len(flow.of_class) > 1 for flow in inspection.files):  # else all jets are one group
        parts += ["<h3>Cut flow of the classes</h3>", html_table(classes)]
    rows = [["file", "sample", "entries", "jets", "selected", "sum of weights"]]
    for flow in inspection.files[:MOST_FILES]:
        entries = "–" if flow.entries is None else str(flow.entries)
        state = "" if flow.complete else " (not all of it was read)"
        counts = entries, str(flow.read), str(flow.selected), f"{flow.sum_of_weights:.6g}"
        rows.append([flow.file + state, f"{flow.role}.{flow.sample}", *counts])
    parts += ["<h3>Files</h3>", html_table(rows)]
    if len(inspection.files) > MOST_FILES:
        parts.append(f'<p class="small">And {len(inspection.files) - MOST_FILES} more: inspection.json.</p>')
    return "\n".join(parts)


def _variables(inspection: Inspection) -> str:
    rows = [
        ["variable", "values", "missing", "min", "1 %", "median", "99 %", "max", "mean", "std", "clipped"]
    ]
    for variable in inspection.variables:
        s, q = variable.summary, variable.quantiles
        missing = (s.nan + s.infinite) / s.values if s.values else 0.0
        numbers = (s.minimum, q["0.01"], q["0.5"], q["0.99"], s.maximum, s.mean, s.std)
        clipped = "–" if variable.treated is None else f"{variable.treated.clipped:.2%}"
        rows.append([s.name, str(s.values), f"{missing:.2%}", *(f"{x:.4g}" for x in numbers), clipped])
    used = ", ".join(f"{u.jets} of {u.selected} of {u.role}.{u.sample}" for u in inspection.used)
    particles = max((u.particle_jets for u in inspection.used), default=0)
    return (
        html_table(rows)
        + '<p class="small">Missing: NaN, infinite or a listed sentinel. Values, missing, extremes, mean and standard '
        "deviation: all selected jets. Quantiles, clipped, and all figures: a random part of the jets "
        f"({escape(used)}), for particles at most {particles} jets a sample.</p>"
    )


def _targets(targets: Sequence[Target]) -> str:
    if not targets:
        return ""
    rows = [
        ["target", "class", "jets", "NaN", "infinite", "min", "1 %", "median", "99 %", "max", "mean", "std"]
    ]
    for target in targets:
        for label, variable in target.of_class.items():
            s, q = variable.summary, variable.quantiles
            numbers = (s.minimum, q["0.01"], q["0.5"], q["0.99"], s.maximum, s.mean, s.std)
            unknown = (f"{count} ({count / max(s.values, 1):.2%})" for count in (s.nan, s.infinite))
            rows.append([target.name, label, str(s.values), *unknown, *(f"{x:.4g}" for x in numbers)])
    meant = "; ".join(f"{escape(t.name)} = {escape(t.value)} ({escape(t.loss)})" for t in targets)
    return (
        html_table(rows)
        + f'<p class="small">{meant}. A jet for which one is NaN or infinite does not enter its loss. Quantiles and '
        "figures: the training jets among those that were drawn; all else: all selected jets.</p>"
    )


def _overlaps(overlaps: Overlaps) -> str:
    rows = [["side", "jets", "equal to an earlier jet", "of the same event", "held by several samples"]]
    for one in overlaps.repeats:
        event = "–" if one.same_event is None else str(one.same_event)
        rows.append([one.side, str(one.jets), str(one.repeated), event, str(one.between_samples)])
    leaks = [["sides", "jets on both", "of the same event", "event numbers on both"]]
    for leak in overlaps.leaks:
        event = "–" if leak.same_event is None else str(leak.same_event)
        numbers = "–" if leak.events is None else str(leak.events)
        leaks.append([f"{leak.first} and {leak.second}", str(leak.jets), event, numbers])
    words = (
        '<p class="small">Jets are equal when all their inputs and spectators are. Equal event numbers alone are no '
        "fault: each production counts from its start.</p>"
    )
    return "\n".join([html_table(rows), html_table(leaks) if len(leaks) > 1 else "", words])


def _weights(inspection: Inspection) -> str:
    weights = inspection.weights
    if weights is None:
        return ""
    rows = [["class", "share of event weights", "share with training weights"]]
    rows += [[n, f"{a:.2%}", f"{b:.2%}"] for n, (a, b) in weights.class_share.items()]
    if not weights.asked:
        return "<p>The config asks for no training weights.</p>"
    largest = "–" if weights.largest is None else f"{weights.largest:.3g}"
    return (
        html_table(rows)
        + f"<p>Method: {escape(weights.method)}. Largest weight over the mean of its class: {largest}; "
        f"{weights.capped} jets lowered to the cap, {weights.outside} outside of the edges.</p>"
    )


def _comparison(comparison: Comparison) -> str:
    rows = [["first", "second", comparison.reference, comparison.other, "significance"]]
    for gap in comparison.correlation_gaps[:MOST_GAPS]:
        numbers = f"{gap.reference:.3f}", f"{gap.other:.3f}", f"{gap.significance:+.1f} σ"
        rows.append([gap.first, gap.second, *numbers])
    parts = [
        f"<h3>{escape(comparison.other)} and {escape(comparison.reference)}</h3>",
        f"<p>{escape(classifier_words(comparison))}</p>",
        html_table(comparison_rows(comparison)),
        "<h3>Correlations that differ most</h3>",
        html_table(rows),
    ]
    test = comparison.classifier
    if test is not None:
        told = [["variable", "fall of the AUC when shuffled", "error"]]
        told += [[v.name, f"{v.loss:.4f}", f"{v.error:.4f}"] for v in test.variables[:MOST_GAPS]]
        parts += [f"<h3>What the trees look at (p = {probability(test.p_value)})</h3>", html_table(told)]
    return "\n".join(parts)
