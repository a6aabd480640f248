"""The tagger of a run: all members' best epochs, a card, and a few jets to replay."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import jettagger
from jettagger import metrics
from jettagger.batch import Feature
from jettagger.data.batches import Batches
from jettagger.data.columns import Columns
from jettagger.data.containers.base import Source
from jettagger.data.prepared import Prepared
from jettagger.data.reader import opening_of, source_of
from jettagger.data.schema import DataConfig
from jettagger.tagger import BATCH, CHECK_JETS, Scores, Tagger, save
from jettagger.training import checkpoints
from jettagger.training.recipe import Recipe, member_folder, new_model
from jettagger.training.sides import Sides
from jettagger.training.targets import scaling_of

FIRST_EVENTS = 256
"""Events among which the check jets are looked for."""
WORKING_POINTS = (0.3, 0.5, 0.8)
"""Efficiencies of a class for which the card gives thresholds."""


def bundle(recipe: Recipe, sides: Sides, output: Path) -> Tagger:
    """The tagger of all members' best epochs, saved and loaded again."""
    members = []
    for member in range(recipe.ensemble.members):
        model = new_model(recipe, sides, 0)
        model.load_state_dict(checkpoints.load_weights(member_folder(output, member) / checkpoints.BEST))
        members.append(model.eval())
    bare = Tagger(recipe.data, tuple(members), {})
    card = _card(recipe, sides, output) | _validation_figures(bare, sides)
    return save(
        output / "tagger",
        tagger=Tagger(recipe.data, tuple(members), card),
        document=recipe.document,
        check_jets=_check_jets(recipe.data, sides.train),
    )


def _card(recipe: Recipe, sides: Sides, output: Path) -> dict[str, Any]:
    spec, folds = sides.train.spec, recipe.data.data.folds
    folders = [member_folder(output, k) for k in range(recipe.ensemble.members)]
    return {
        "name": output.resolve().name,
        "classes": list(recipe.data.classes),
        **({"targets": _targets(recipe.data, sides)} if recipe.data.targets else {}),
        "inputs": {
            "jet": [_described(feature) for feature in spec.jet],
            **{c.name: [_described(feature) for feature in c.features] for c in spec.collections},
        },
        "units": _units(recipe.data),
        "data": {
            "keys": sides.keys,
            "files": {
                record.identity: Path(record.path).name
                for prepared in (sides.train, sides.validation)
                for record in prepared.records
            },
            "training_jets": len(sides.train_rows),
            "validation_jets": len(sides.validation_rows),
            "counts": sides.train.counts,
            "skipped": [
                one._asdict() for one in dict.fromkeys((*sides.train.skipped, *sides.validation.skipped))
            ],
        },
        **({} if folds is None else {"fold": {"k": folds.k, "by": folds.by, "fold": recipe.fold}}),
        "seed": recipe.training.seed,
        "trainings": [json.loads((folder / "result.json").read_text(encoding="utf-8")) for folder in folders],
        "versions": {
            "jettagger": jettagger.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "awkward", "uproot")},
        },
        "licence": "not stated",
    }


def _targets(data: DataConfig, sides: Sides) -> dict[str, Any]:
    """What each regression target is, and how it was normalised for the networks (of one split)."""
    scaling = scaling_of(sides.train, sides.train_rows)
    return {
        name: {
            "value": section.value,
            "loss": section.loss.name,
            "shift": float(scaling.shift_T[number]),
            "scale": float(scaling.scale_T[number]),
        }
        for number, (name, section) in enumerate(data.targets.items())
    }


def _units(data: DataConfig) -> str:
    units = data.data.units
    if units == "GeV":
        return "GeV, mm, rad, as in the files"
    said = units if isinstance(units, str) else ", ".join(f"{name} in {unit}" for name, unit in units.items())
    return f"GeV, mm, rad; in the files {said}"


def _described(feature: Feature) -> dict[str, Any]:
    return {
        "name": feature.name,
        "normalise": feature.normalise,
        "clip": feature.clip,
        "missing": feature.missing,
    }


def _validation_figures(tagger: Tagger, sides: Sides) -> dict[str, Any]:
    """Figures and working points on the validation jets: a first look, since these jets chose the epoch."""
    rows = sides.validation_rows
    batches = Batches(sides.validation, rows, BATCH, inputs=tagger.members[0].inputs)
    scores = tagger.run(batch.inputs for batch in batches.epoch(0))
    labels_J, weights_J = sides.validation.labels_J[rows], sides.validation.weights_J[rows]
    figures = _target_figures(scores, sides, rows, weights_J)
    if not tagger.classes:
        return {"validation": figures, "working_points": {}}
    probabilities_JC = scores.decomposition.probabilities_NC
    working_points: dict[str, dict[str, float]] = {}
    for index, name in enumerate(tagger.classes):
        ranking = metrics.rank(probabilities_JC[:, index], labels_J == index, weights_J)
        points = metrics.roc_points(ranking, WORKING_POINTS)
        figures[f"auc {name} against the rest"] = metrics.auc(ranking).value
        working_points[name] = {
            f"{efficiency:g}": float(threshold)
            for efficiency, threshold in zip(WORKING_POINTS, points.threshold_G, strict=True)
        }
    figures["nll"] = metrics.nll(probabilities_JC, labels_J, weights_J).value
    return {"validation": figures, "working_points": working_points}


def _target_figures(
    scores: Scores, sides: Sides, rows: NDArray[np.int64], weights_J: NDArray[np.floating[Any]]
) -> dict[str, float]:
    """Bias and resolution of each target, where there are jets to measure them on."""
    figures = {}
    truths = sides.validation.targets
    for name, predicted in scores.targets.items():
        truth_J = truths[name][rows]
        known_J = np.isfinite(truth_J)
        if known_J.any():
            found = metrics.residuals((predicted.value_N - truth_J)[known_J], weights_J[known_J])
            figures[f"bias {name}"], figures[f"resolution {name}"] = (
                found.bias.value,
                found.resolution.value,
            )
    return figures


def _check_jets(data: DataConfig, prepared: Prepared) -> dict[str, Any]:
    """The raw branches of the first jets of each class's first file."""
    found: dict[str, Any] = {}
    records = {record.sample: record for record in reversed(prepared.records)}
    per_file = max(CHECK_JETS // len(records), 1)
    parts = []
    for record in records.values():
        source = source_of(record.path, opening_of(data))
        columns = Columns(data)
        branches = columns.input_branches(source.branches, where=record.path)
        parts.append(_with_jets(columns, source, branches, per_file))
    # Where files order their branches differently, one may stand for a collection here and another there.
    for name in sorted(set.intersection(*(set(part) for part in parts))):
        found[name] = _concatenated([part[name] for part in parts])
    return found


def _with_jets(columns: Columns, source: Source, branches: frozenset[str], jets: int) -> Mapping[str, Any]:
    """The first entries of a file that hold so many jets; an event may hold none."""
    if columns.config.data.jets is None:
        return source.read(branches, 0, min(jets, source.entries)).branches
    chunk = source.read(branches, 0, min(FIRST_EVENTS, source.entries))
    entry_J = columns.layout.jets(chunk.branches, where=source.location).entry_J
    entries = int(entry_J[:jets][-1]) + 1 if len(entry_J) else 0
    return {name: array[:entries] for name, array in chunk.branches.items()}


def _concatenated(arrays: Sequence[Any]) -> Any:
    import awkward as ak

    if all(isinstance(array, np.ndarray) and array.shape[1:] == arrays[0].shape[1:] for array in arrays):
        joined: NDArray[Any] = np.concatenate(arrays)
        return joined
    return ak.to_packed(ak.concatenate(arrays))
