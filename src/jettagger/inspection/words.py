"""An inspection in words, for a terminal."""

from collections.abc import Iterator, Sequence

from jettagger.inspection.comparison import Comparison
from jettagger.inspection.findings import Finding
from jettagger.inspection.inspect import Inspection

SHOWN = 5
"""Files of a finding, and variables of a comparison, that are named."""


def summary(inspection: Inspection) -> str:
    """Yields, comparisons and findings; what is wrong comes last, where it is seen."""
    lines = [*_yields(inspection), *_cut_flow(inspection)]
    for comparison in inspection.comparisons:
        lines += ["", *_comparison(comparison)]
    errors = sum(finding.severity == "error" for finding in inspection.findings)
    warnings = len(inspection.findings) - errors
    lines.append("")
    for finding in inspection.findings:
        lines += _finding(finding)
    lines.append(f"{number_of(errors, 'error')} that would stop a training, {number_of(warnings, 'warning')}")
    return "\n".join(lines)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of text, the first to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def cut_rows(inspection: Inspection) -> list[list[str]]:
    """For each role and sample: jets read, then what is left after each cut, then what was selected."""
    rows = [["sample", "read", *inspection.cuts, "sum of weights"]]
    samples: dict[tuple[str, str], list[float]] = {}
    for flow in inspection.files:
        sums = samples.setdefault((flow.role, flow.sample), [0.0] * (len(inspection.cuts) + 2))
        for column, number in enumerate((flow.read, *flow.after, flow.sum_of_weights)):
            sums[column] += number
    for (role, sample), sums in samples.items():
        rows.append([f"{role}.{sample}", *(f"{number:.0f}" for number in sums[:-1]), f"{sums[-1]:.6g}"])
    return rows


def yield_rows(inspection: Inspection) -> list[list[str]]:
    """For each side and class: jets and their weights."""
    rows = [["side", "class", "jets", "sum of weights", "effective", "negative"]]
    for one in inspection.yields:
        rows.append(
            [
                one.side,
                one.name,
                str(one.jets),
                f"{one.sum_of_weights:.6g}",
                f"{one.effective:.0f}",
                f"{one.negative:.2%}",
            ]
        )
    return rows


def comparison_rows(comparison: Comparison) -> list[list[str]]:
    """For each variable its distance and significance, the largest distance first."""
    rows = [["variable", "level", "KS", "p (KS)", "χ²/degrees", "p (χ²)"]]
    for gap in comparison.variables:
        chi2 = "–" if gap.chi2 is None else f"{gap.chi2:.1f}/{gap.degrees}"
        p = "–" if gap.chi2_p is None else probability(gap.chi2_p)
        rows.append([gap.name, gap.level, f"{gap.ks:.4f}", probability(gap.ks_p), chi2, p])
    return rows


def probability(value: float) -> str:
    """Two digits; what is tiny as a bound."""
    return "< 1e-15" if value < 1e-15 else f"{value:.2g}"


def classifier_words(comparison: Comparison) -> str:
    """The outcome of the classifier test in a sentence."""
    test = comparison.classifier
    if test is None:
        return "Classifier test: not made, a sample has too few jets or no positive sum of weights."
    told = ", ".join(one.name for one in test.variables[:SHOWN] if one.loss > 2 * one.error)
    by = f"; what tells them apart: {told}" if told and test.p_value < 0.05 else ""
    return (
        f"Classifier test: AUC {test.auc:.4f} ± {test.error:.4f} on {test.jets[0]} and {test.jets[1]} jets "
        f"(0.5: alike), p = {probability(test.p_value)}{by}."
    )


def _yields(inspection: Inspection) -> Iterator[str]:
    if inspection.yields:
        yield ""
        yield from table(yield_rows(inspection))


def _cut_flow(inspection: Inspection) -> Iterator[str]:
    yield ""
    for number, cut in enumerate(inspection.cuts, 1):
        yield f"cut {number}: {cut}"
    rows = cut_rows(inspection)
    head = [rows[0][0], rows[0][1], *(f"cut {n}" for n in range(1, len(inspection.cuts) + 1)), rows[0][-1]]
    yield from table([head, *rows[1:]])


def _comparison(comparison: Comparison) -> Iterator[str]:
    yield (
        f"{comparison.other} ({comparison.jets[1]} jets) compared with {comparison.reference} "
        f"({comparison.jets[0]} jets), the largest distances first:"
    )
    yield from table(comparison_rows(comparison)[: SHOWN + 1])
    for gap in comparison.correlation_gaps[:SHOWN]:
        if abs(gap.significance) > 5:
            yield (
                f"correlation of {gap.first} and {gap.second}: {gap.reference:.3f} and {gap.other:.3f} "
                f"({gap.significance:+.1f} σ)"
            )
    yield classifier_words(comparison)


def _finding(finding: Finding) -> Iterator[str]:
    yield f"{finding.severity}: {finding.where}: {finding.message}"
    if finding.advice:
        yield f"    write: {finding.advice}"
    for file in finding.files[:SHOWN]:
        yield f"    in {file}"
    if len(finding.files) > SHOWN:
        yield f"    and in {len(finding.files) - SHOWN} more files"


def number_of(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
