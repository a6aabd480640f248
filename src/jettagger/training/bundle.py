"""The tagger of a run: all members' best epochs, a card, and a few jets to replay."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import jettagger
from jettagger import metrics
from jettagger.batch import Feature
from jettagger.data.columns import Columns
from jettagger.data.containers.base import Source
from jettagger.data.prepared import Prepared
from jettagger.data.reader import opening_of, source_of
from jettagger.data.schema import DataConfig
from jettagger.models.parts.model import JetModel
from jettagger.tagger import CHECK_JETS, Network, Tagger, save
from jettagger.training import checkpoints, cost, outcome
from jettagger.training.health import ScoredValidation, scored_validation
from jettagger.training.outcome import Piece, Standing
from jettagger.training.recipe import Recipe, member_folder, new_model
from jettagger.training.sides import Sides
from jettagger.training.targets import scaling_of
from jettagger.training.varied import jets_differ, member_sides

FIRST_EVENTS = 256
"""Events among which the check jets are looked for."""
WORKING_POINTS = (0.3, 0.5, 0.8)
"""Efficiencies of a class for which the card gives thresholds."""


def bundle(
    recipe: Recipe,
    sides: Mapping[int | None, Sides],
    output: Path,
    standing: Standing,
    say: Callable[[str], None] = print,
) -> Tagger:
    """The tagger of the best epochs of all trainings that have ended, saved and loaded again.

    `sides` are those of each fold. A network that is not sound is part of it, and is named: see `health`.
    """
    members = []
    for fold, member in standing.ended:
        model = new_model(recipe, sides[fold], 0)
        best = member_folder(output, member, fold) / checkpoints.BEST
        model.load_state_dict(checkpoints.load_weights(best))
        members.append(model.eval())
    networks = tuple(Network(member, fold) for fold, member in standing.ended)
    bare = Tagger(recipe.data, tuple(members), {}, networks=networks)
    seen = scored_validation(recipe, bare, sides)
    for problem in seen.problems:
        say(problem)
    figures = _validation_figures(bare.classes, seen)
    remarks = [*_remarks(recipe), *_remarks_on(figures["validation"], bare.classes)]
    for remark in remarks:
        say(remark)
    card = _card(recipe, bare, sides, output, standing) | figures | {"remarks": remarks}
    return save(
        output / "tagger",
        tagger=replace(bare, card=card),
        document=recipe.document,
        check_jets=_check_jets(bare, next(iter(sides.values())).train),
    )


def _card(
    recipe: Recipe, tagger: Tagger, sides: Mapping[int | None, Sides], output: Path, standing: Standing
) -> dict[str, Any]:
    one = next(iter(sides.values()))
    folds = recipe.data.data.folds
    return {
        "name": output.resolve().name,
        "classes": list(recipe.data.classes),
        **({"targets": _targets(recipe, sides)} if recipe.data.targets else {}),
        "inputs": {
            "jet": [_described(feature) for feature in one.train.spec.jet],
            **{c.name: [_described(feature) for feature in c.features] for c in one.train.spec.collections},
        },
        "units": _units(recipe.data),
        "data": _data(recipe, sides),
        **({} if folds is None else {"folds": {"k": folds.k, "by": folds.by}}),
        "seed": recipe.training.seed,
        "trainings": [
            _training(output, piece)
            | _own(recipe._replace(fold=piece.fold), sides[piece.fold], piece.member, model)
            for piece, model in zip(standing.ended, tagger.members, strict=True)
        ],
        "cost": _cost(output, standing.ended),
        "failed": [failure._asdict() for failure in standing.failed],
        "missing": [piece._asdict() for piece in standing.missing],
        "versions": {
            "jettagger": jettagger.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "awkward", "uproot")},
        },
        "licence": "not stated",
    }


def _targets(recipe: Recipe, sides: Mapping[int | None, Sides]) -> dict[str, Any]:
    """What each regression target is, and how it was normalised: see `_in_common`."""
    scalings = [scaling_of(side.train, side.train_rows) for side in sides.values()]
    shifts, scales = ([part[which].tolist() for part in scalings] for which in (0, 1))
    found, own = {}, jets_differ(recipe)
    for number, (name, section) in enumerate(recipe.data.targets.items()):
        found[name] = {
            "value": section.value,
            "loss": section.loss.name,
            "shift": _in_common(sides, [one[number] for one in shifts], own=own),
            "scale": _in_common(sides, [one[number] for one in scales], own=own),
        }
    return found


def _in_common(sides: Mapping[int | None, Sides], values: Sequence[Any], *, own: bool) -> Any:
    """A number of all trainings; with folds a list, fold after fold; None where each member has its `own`."""
    if own:
        return None
    return values[0] if None in sides else list(values)


def _own(recipe: Recipe, sides: Sides, member: int, model: JetModel) -> dict[str, Any]:
    """The jets of one training, and how its targets were normalised."""
    own = member_sides(recipe, sides, member)
    jets = {"training_jets": len(own.train_rows), "validation_jets": len(own.validation_rows)}
    if not recipe.data.targets:
        return jets
    both = zip(model.target_shift.tolist(), model.target_scale.tolist(), strict=True)
    targets = {
        name: {"shift": shift, "scale": scale}
        for name, (shift, scale) in zip(recipe.data.targets, both, strict=True)
    }
    return jets | {"targets": targets}


def _data(recipe: Recipe, sides: Mapping[int | None, Sides]) -> dict[str, Any]:
    """The files and jets of the trainings."""
    one = next(iter(sides.values()))
    training = [len(side.train_rows) for side in sides.values()]
    validation = [len(side.validation_rows) for side in sides.values()]
    both = (one.train, one.validation)
    return {
        "keys": one.keys,
        "files": {
            record.identity: Path(record.path).name for prepared in both for record in prepared.records
        },
        "validation_files": [record.identity for record in one.validation.records]
        if isinstance(recipe.data.data.validation, dict)
        else [],
        "training_jets": _in_common(sides, training, own=jets_differ(recipe)),
        "validation_jets": _in_common(sides, validation, own="split" in recipe.ensemble.vary),
        "counts": one.train.counts,
        "skipped": [skip._asdict() for skip in dict.fromkeys((*one.train.skipped, *one.validation.skipped))],
    }


def _training(output: Path, piece: Piece) -> dict[str, Any]:
    path = member_folder(output, piece.member, piece.fold) / outcome.RESULT
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    spent = cost.recorded(path.parent)
    fold = {} if piece.fold is None else {"fold": piece.fold}
    return {**fold, **result, "cost": None if spent is None else spent._asdict()}


def _remarks(recipe: Recipe) -> list[str]:
    """What a reader of the card must know of its figures."""
    if "split" not in recipe.ensemble.vary or recipe.ensemble.members == 1:
        return []
    return [
        "for the figures and working points on the validation jets each jet is scored by the networks whose validation "
        "jet it is, by their mean where there are several: others were trained on it (ensemble.vary: split). The mean "
        "of all networks scores otherwise, so set thresholds on test jets"
    ]


def _cost(output: Path, pieces: Sequence[Piece]) -> dict[str, Any] | None:
    """Of all trainings together; None where one has no record."""
    costs = [cost.recorded(member_folder(output, piece.member, piece.fold)) for piece in pieces]
    known = [one for one in costs if one is not None]
    return cost.total(known)._asdict() if len(known) == len(costs) else None


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


def _validation_figures(classes: Sequence[str], seen: ScoredValidation) -> dict[str, Any]:
    """Figures and working points on the validation jets: a first look, since these jets chose the epoch.

    There are none of a class that cannot be ranked against the rest.
    """
    figures = _target_figures(seen)
    working_points: dict[str, dict[str, float]] = {}
    for index, name in enumerate(classes):
        if not metrics.rankable(seen.labels_J == index, seen.weights_J):
            continue
        ranking = metrics.rank(seen.probabilities_JC[:, index], seen.labels_J == index, seen.weights_J)
        points = metrics.roc_points(ranking, WORKING_POINTS)
        figures[_auc_of(name)] = metrics.auc(ranking).value
        working_points[name] = {
            f"{efficiency:g}": float(threshold)
            for efficiency, threshold in zip(WORKING_POINTS, points.threshold_G, strict=True)
        }
    if classes:
        figures["nll"] = metrics.nll(seen.probabilities_JC, seen.labels_J, seen.weights_J).value
    return {"validation": figures, "working_points": working_points, "problems": list(seen.problems)}


def _remarks_on(figures: Mapping[str, float], classes: Sequence[str]) -> list[str]:
    """Of what event weights do to the AUC: that it is not defined, or not between 0 and 1."""
    remarks = []
    for name in map(_auc_of, classes):
        if name not in figures:
            remarks.append(
                f"no {name} and no working points: the event weights of the validation jets on one side do not add up"
                " to more than 0"
            )
        elif (words := metrics.beyond(f"{name} of the validation jets", figures[name])) is not None:
            remarks.append(words)
    return remarks


def _auc_of(name: str) -> str:
    return f"auc {name} against the rest"


def _target_figures(seen: ScoredValidation) -> dict[str, float]:
    """Bias and resolution of each target, where there are jets to measure them on."""
    figures: dict[str, float] = {}
    for name, residual_J in seen.residuals.items():
        known_J = np.isfinite(residual_J)
        if known_J.any():
            found = metrics.residuals(residual_J[known_J], seen.weights_J[known_J])
            figures |= {f"bias {name}": found.bias.value, f"resolution {name}": found.resolution.value}
    return figures


def _check_jets(tagger: Tagger, prepared: Prepared) -> dict[str, Any]:
    """The raw branches of the first jets of each class's first file."""
    found: dict[str, Any] = {}
    records = {record.sample: record for record in reversed(prepared.records)}
    per_file = max(CHECK_JETS // len(records), 1)
    parts = []
    for record in records.values():
        source = source_of(record.path, opening_of(tagger.config))
        branches = tagger.branches(source.branches, where=record.path)
        parts.append(_with_jets(Columns(tagger.config), source, branches, per_file))
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
