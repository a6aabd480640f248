"""`jettagger evaluate`: runs score test jets, are measured and compared, and become a report.

DIR/report.html, DIR/report.json, DIR/figures/*.pdf and *.png, DIR/predictions.root (or .h5, .parquet)
"""

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jettagger.errors import JettaggerError
from jettagger.evaluation.comparison import compare
from jettagger.evaluation.held_out import parts_of
from jettagger.evaluation.output import check_suffix, write_scores
from jettagger.evaluation.predictions import Predictions
from jettagger.evaluation.runs import open_runs, predict_all
from jettagger.evaluation.schema import EvaluationSection
from jettagger.evaluation.table import format_table
from jettagger.files import check_writable
from jettagger.report.page import write_report
from jettagger.uncertainty.columns import target_columns


def evaluate_runs(
    paths: Sequence[Path],
    output: Path,
    *,
    data: Sequence[str] = (),
    mc_dropout: int | None = None,
    reference: str | None = None,
    container: str = "root",
    device: str = "cpu",
    mean_over_folds: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Evaluates runs and bundles side by side and returns the path of the page.

    Runs with folds are judged on their whole training sample, each jet by networks that never saw it, and, where
    their configs have data.test, on that as well: in a report of its own in `output`/test.

    `data` are test files (`FILES` or `SAMPLE=FILES`) in place of those of the configs. How things are measured
    is taken from the first run's config; `reference` is the run or group that others are compared with.
    `container` of the predictions: root, h5 or parquet. Raises JettaggerError for whatever does not fit together.
    """
    if output.exists() and not output.is_dir():
        raise JettaggerError(f"--output {output} is a file; a report is a folder")
    scores = output / f"predictions.{container}"
    check_suffix(scores)
    check_writable(output / "report.html")
    runs = open_runs(paths, device=device, mean_over_folds=mean_over_folds)
    settings = EvaluationSection.model_validate(runs[0].document.get("evaluation") or {})
    if reference is not None:
        settings = settings.model_copy(update={"reference": reference})
    passes = settings.mc_dropout if mc_dropout is None else mc_dropout
    first, *others = parts_of(runs, data)
    pages = []
    for part, folder in ((first, output), *((part, output / part) for part in others)):
        predictions = predict_all(runs, data, mc_dropout=passes or 0, part=part, say=say)
        evaluation = compare(predictions, settings)
        say(format_table(evaluation.results))
        pages.append(write_report(evaluation, folder))
        write_scores(folder / scores.name, _columns(predictions))
    for page in pages[1:]:
        say(f"report on data.test: {page}")
    return pages[0]


def _prefixes(names: Sequence[str]) -> list[str]:
    """The names as parts of branch names, each once: a-b and a_b are two runs."""
    prefixes: list[str] = []
    for name in names:
        plain = "".join(c if c.isalnum() else "_" for c in name).strip("_")
        numbered = (f"{plain}_{number}" for number in count(2))
        prefixes.append(plain if plain not in prefixes else next(n for n in numbered if n not in prefixes))
    return prefixes


def _columns(predictions: Sequence[Predictions]) -> dict[str, NDArray[Any]]:
    """One row a jet: what it is, and what each run says of it."""
    first = predictions[0]
    columns: dict[str, NDArray[Any]] = {
        **({"label": first.labels_N} if first.classes else {}),
        "weight": first.weights_N,
        **{f"true_{name}": values_N for name, values_N in first.truths.items()},
        **first.spectators,
    }
    for run, name in zip(predictions, _prefixes([run.name for run in predictions]), strict=True):
        if run.scores_N is not None:
            columns[f"{name}_score"] = run.scores_N
        if run.decomposition is not None:
            for index, label in enumerate(run.classes):
                columns[f"{name}_{label}"] = np.ascontiguousarray(
                    run.decomposition.probabilities_NC[:, index]
                )
                columns[f"{name}_std_{label}"] = np.ascontiguousarray(run.decomposition.std_NC[:, index])
            columns[f"{name}_mutual_information"] = run.decomposition.mutual_information_N
        for target, predicted in run.targets.items():
            columns |= {f"{name}_{key}": x for key, x in target_columns(target, predicted).items()}
    return columns
