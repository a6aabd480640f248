"""`jettagger spread`: how much each source makes trainings differ: initial weights, batches, split, finite sample.

An ensemble is trained with each source alone, one with all of them, and all score the same test jets.

Shapes: M members, J test jets, C classes.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from jettagger import metrics
from jettagger.baselines import BaselinesSection
from jettagger.data import splits
from jettagger.data.batches import Batches
from jettagger.data.prepared import Prepared, prepare
from jettagger.errors import JettaggerError
from jettagger.files import write_json
from jettagger.tagger import BATCH, load
from jettagger.training import run
from jettagger.training.launch import found_ranks
from jettagger.training.recipe import Recipe
from jettagger.training.schema import Varied
from jettagger.training.sides import extras_of

Floats = NDArray[np.float64]

SOURCES: tuple[Varied, ...] = get_args(Varied)
TOGETHER = "all together"
EFFICIENCY = 0.5
"""Of the signal, where rejections are compared."""


class Spread(NamedTuple):
    """A figure of M networks."""

    mean: float
    std: float
    """ddof = 1."""
    std_error: float
    """Of the standard deviation, std / √(2(M - 1)): that of a normal distribution."""


class SourceSpread(NamedTuple):
    """What one source contributes."""

    source: str
    members: int
    """Networks that were trained to the end."""
    figures: dict[str, Spread]
    """`auc`, `nll`, `accuracy`, for two classes `rejection`; and `score`: see `figures_of`."""


class SpreadTable(NamedTuple):
    """The sources one by one, and together."""

    rows: tuple[SourceSpread, ...]
    left_out: dict[str, str]
    """Sources that the config does not have, and why."""
    jets: int

    def quadrature(self) -> dict[str, float]:
        """Root of the sum of the sources' variances: independent sources give that of all together."""
        alone = [row for row in self.rows if row.source != TOGETHER]
        return {
            name: math.sqrt(sum(row.figures[name].std ** 2 for row in alone)) for name in alone[0].figures
        }

    def __str__(self) -> str:
        names = list(self.rows[0].figures)
        head = f"{'std between trainings':<24}" + "".join(f"{_TITLES[name]:>26}" for name in names)
        lines = [head]
        for row in self.rows:
            found = (f"{s.std:.3g} ± {s.std_error:.2g}" for s in row.figures.values())
            lines.append(f"{f'{row.source} ({row.members})':<24}" + "".join(f"{text:>26}" for text in found))
        together = self.quadrature()
        lines.append(f"{'alone, in quadrature':<24}" + "".join(f"{together[name]:>26.3g}" for name in names))
        lines += [f"{source} is left out: {why}" for source, why in self.left_out.items()]
        return "\n".join(lines)


_TITLES = {
    "auc": "AUC",
    "nll": "NLL",
    "accuracy": "accuracy",
    "rejection": f"R({EFFICIENCY:g})",
    "score": "score of a jet (mean)",
}


def measure_spread(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> SpreadTable:
    """Trains the ensembles into folders of `output` named after their sources, and writes `spread.json`.

    Raises JettaggerError for fewer than two members, for folds, without classes, and without common test jets.
    """
    found_ranks().check_alone("spread")
    members = recipe.ensemble.members
    if members < 2:
        raise JettaggerError(
            f"ensemble.members: {members} network has no spread: --set ensemble.members=5, for example (the spread"
            " of 5 is known to a third, that of 20 to a sixth)"
        )
    if recipe.data.data.folds is not None:
        raise JettaggerError("data.folds: the spread is measured on common test jets: leave folds out")
    if not recipe.data.classes:
        raise JettaggerError("classes: the spread is measured on scores of classes, and the config has none")
    sources, left_out = _sources(recipe)
    prepared, rows = _test_jets(recipe, say)
    _check_ranked(recipe, prepared, rows)
    table = []
    varied: list[tuple[str, list[Varied]]] = [*((name, [name]) for name in sources), (TOGETHER, sources)]
    for source, vary in varied:
        folder = output / source.replace(" ", "_")
        say(f"{source}: {members} networks")
        run.train(_with(recipe, vary), folder, resume=resume, overwrite=overwrite, say=say)
        table.append(_spread_of(source, folder, prepared, rows))
    found = SpreadTable(tuple(table), left_out, len(rows))
    write_json(output / "spread.json", document(found))
    for line in str(found).splitlines():
        say(line)
    return found


def document(table: SpreadTable) -> dict[str, object]:
    """What `spread.json` holds."""
    return {
        "test_jets": table.jets,
        "signal_efficiency": EFFICIENCY,
        "sources": {
            row.source: {
                "members": row.members,
                **{name: _plain(spread._asdict()) for name, spread in row.figures.items()},
            }
            for row in table.rows
        },
        "quadrature": _plain(table.quadrature()),
        "left_out": table.left_out,
    }


def spread_of(values_M: Floats) -> Spread:
    """Mean and standard deviation of a figure; NaN where it is not defined for a network, or there is only one."""
    if len(values_M) < 2:
        return Spread(float(np.mean(values_M)), math.nan, math.nan)
    std = float(np.std(values_M, ddof=1))
    return Spread(float(np.mean(values_M)), std, std / math.sqrt(2 * (len(values_M) - 1)))


def figures_of(
    probabilities_MJC: Floats, labels_J: NDArray[np.int64], weights_J: Floats
) -> dict[str, Spread]:
    """The spread of each figure over members, and the mean over jets of the spread of a jet's score.

    The score is the probability of the last of two classes; of more, the mean over the classes is taken.
    """
    values: dict[str, list[float]] = {"auc": [], "nll": [], "accuracy": []}
    two = probabilities_MJC.shape[2] == 2
    signals = [1] if two else list(range(probabilities_MJC.shape[2]))
    if two:
        values["rejection"] = []
    for probabilities_JC in probabilities_MJC:
        rankings = [metrics.rank(_odds(probabilities_JC, c), labels_J == c, weights_J) for c in signals]
        values["auc"].append(metrics.macro_auc(rankings).value)
        values["nll"].append(metrics.nll(probabilities_JC, labels_J, weights_J).value)
        values["accuracy"].append(
            float(np.average(probabilities_JC.argmax(1) == labels_J, weights=weights_J))
        )
        if two:
            passed = metrics.rejection(rankings[0], EFFICIENCY).value
            values["rejection"].append(math.nan if passed is None else passed)
    found = {name: spread_of(np.asarray(x)) for name, x in values.items()}
    number = len(probabilities_MJC)
    std_JC = probabilities_MJC[:, :, signals].std(0, ddof=1) if number > 1 else np.full((1, 1), np.nan)
    std = float(np.average(std_JC.mean(1), weights=weights_J if number > 1 else None))
    mean = float(np.average(probabilities_MJC[:, :, signals].mean((0, 2)), weights=weights_J))
    found["score"] = Spread(mean, std, std / math.sqrt(2 * max(number - 1, 1)))
    return found


def _odds(probabilities_JC: Floats, c: int) -> Floats:
    """ln(p_c / rest): ranks as p_c does, without its ties where p_c was rounded to 1; 0 is taken as 1e-300."""
    rest_J = np.delete(probabilities_JC, c, axis=1).sum(1)
    odds_J: Floats = np.log(np.maximum(probabilities_JC[:, c], 1e-300)) - np.log(np.maximum(rest_J, 1e-300))
    return odds_J


def _sources(recipe: Recipe) -> tuple[list[Varied], dict[str, str]]:
    """The sources that can be varied, and why others cannot."""
    if isinstance(recipe.data.data.validation, float):
        return list(SOURCES), {}
    return [name for name in SOURCES if name != "split"], {
        "split": "data.validation is not a random fraction"
    }


def _with(recipe: Recipe, vary: list[Varied]) -> Recipe:
    """The same training, varied so; without baselines, which have no part in it."""
    section = recipe.ensemble.model_copy(update={"vary": list(vary)})
    kept: Mapping[str, object] = {key: x for key, x in recipe.document.items() if key != "baselines"}
    changed = {**kept, "ensemble": section.model_dump(mode="json")}
    return recipe._replace(ensemble=section, baselines=BaselinesSection(), document=changed)


def _test_jets(recipe: Recipe, say: Callable[[str], None]) -> tuple[Prepared, NDArray[np.int64]]:
    """The jets that no training sees, whatever is varied."""
    test = recipe.data.data.test
    if isinstance(test, dict) and test:
        prepared = prepare(recipe.data, test, role="data.test", extras={}, say=say)
        return prepared, np.arange(len(prepared))
    if isinstance(test, dict):
        raise JettaggerError(
            "data.test: the spread is measured on test jets that are common to all: name some"
        )
    extras = extras_of(recipe.data, BaselinesSection())
    prepared = prepare(recipe.data, recipe.data.data.train, role="data.train", extras=extras, say=say)
    return prepared, splits.split(prepared, recipe.data.data).test


def _check_ranked(recipe: Recipe, prepared: Prepared, rows: NDArray[np.int64]) -> None:
    """Raises JettaggerError, before anything is trained, for test jets among which some class has no AUC."""
    labels_J, weights_J = prepared.labels_J[rows], prepared.weights_J[rows]
    for c, name in enumerate(recipe.data.classes):
        if not metrics.rankable(labels_J == c, weights_J):
            raise JettaggerError(
                f"data.test: the event weights of class {name}, or of the others, do not add up to more than 0 among"
                f" {len(rows)} test jets: there is no AUC to compare"
            )


def _spread_of(source: str, folder: Path, prepared: Prepared, rows: NDArray[np.int64]) -> SourceSpread:
    tagger = load(folder)
    batches = Batches(prepared, rows, BATCH, inputs=tagger.members[0].inputs)
    scores = tagger.run(batch.inputs for batch in batches.epoch(0))
    assert scores.members_MJC is not None, "only MC dropout keeps no members"
    labels_J = prepared.labels_J[rows].astype(np.int64)
    weights_J = prepared.weights_J[rows].astype(np.float64)
    found = figures_of(scores.members_MJC.astype(np.float64), labels_J, weights_J)
    return SourceSpread(source, len(scores.members_MJC), found)


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """NaN is null in JSON."""
    return {name: x if math.isfinite(x) else None for name, x in values.items()}
