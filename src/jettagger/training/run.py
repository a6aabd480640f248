"""`jettagger train`: from a config to a run directory with a tagger in it.

RUN/config.yaml       the resolved config
RUN/run.json          what the run was: the tagger's card, hardware, time; written last
RUN/member_K/         checkpoints, metrics.jsonl and result.json of member K
RUN/baselines/        what the config asks for under `baselines`
RUN/tagger/           the bundle
"""

import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import jettagger
from jettagger import metrics, models, yaml_source
from jettagger.baselines import BaselinesSection, fit_trees
from jettagger.batch import Feature, InputSpec
from jettagger.data import splits
from jettagger.data.batches import Batches
from jettagger.data.columns import Columns
from jettagger.data.containers.base import Source
from jettagger.data.prepared import Prepared
from jettagger.data.reader import opening_of, source_of
from jettagger.data.schema import DataConfig
from jettagger.data.spectra import TrainingWeightsResult, loss_weights, weights_of
from jettagger.errors import JettaggerError
from jettagger.files import check_writable, write_json, written_aside
from jettagger.models.parts.model import JetModel
from jettagger.randomness import torch_generator
from jettagger.schema import Section
from jettagger.tagger import BATCH, CHECK_JETS, Tagger, save
from jettagger.training import checkpoints
from jettagger.training.augmentation import Mirror
from jettagger.training.device import Hardware, choose_hardware, threads
from jettagger.training.feeding import kept_on
from jettagger.training.loop import MemberResult, Training, train_member
from jettagger.training.progress import Progress
from jettagger.training.schema import EnsembleSection, TrainingSection
from jettagger.training.sides import Filling, Sides, prepare_sides

NORMALISATION_JETS = 20_000
"""Training jets on which shifts and scales are measured: more than their precision needs."""
FIRST_EVENTS = 256
"""Events among which the check jets are looked for."""
WORKING_POINTS = (0.3, 0.5, 0.8)
"""Efficiencies of a class for which the card gives thresholds."""


class Recipe(NamedTuple):
    """The parts of a config that a training needs."""

    data: DataConfig
    model: Section
    training: TrainingSection
    ensemble: EnsembleSection
    baselines: BaselinesSection
    document: Mapping[str, Any]
    """The whole resolved config, as plain values."""
    fold: int | None = None
    """Which of data.folds is held out."""


@dataclass(frozen=True)
class RunSummary:
    """What `train` did."""

    directory: Path
    tagger: Path | None
    """None while members are missing."""
    members: tuple[MemberResult, ...]
    seconds: float


def train(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    member: int | None = None,
    fold: int | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> RunSummary:
    """Trains all members (or one) and writes the bundle once all are there; without the jets of `fold`.

    `workers` processes prepare the data (default: one a processor).

    Raises JettaggerError for what is wrong with config, data or output, before the first step where it can.
    """
    began = time.monotonic()
    splits.check_fold(recipe.data.data, fold)
    recipe = recipe._replace(fold=fold)
    members = range(recipe.ensemble.members)
    if member is not None and member not in members:
        raise JettaggerError(
            f"--member {member}: ensemble.members is {len(members)}; members are counted from 0"
        )
    chosen = list(members) if member is None else [member]
    hardware = choose_hardware(recipe.training.device, recipe.training.precision)
    _check_output(output, chosen, resume=resume, overwrite=overwrite)
    with threads(recipe.training.threads):
        say(f"training on {hardware.description}")
        sides = prepare_sides(recipe.data, recipe.baselines, say, Filling(workers=workers), fold=fold)
        weights = _weights(recipe, sides)
        for note in weights.notes:
            say(f"  {note}")
        _check_finished(recipe, sides, output, [k for k in members if not (overwrite and k in chosen)])
        if overwrite:
            _clear(output, None if member is None else chosen)
        _fit_baselines(recipe, sides, weights, output, say)
        results = [_train_member(recipe, sides, weights, output, k, hardware, resume, say) for k in chosen]
        missing = [k for k in members if not (_folder(output, k) / "result.json").exists()]
        if missing:
            say(f"the tagger waits for members {', '.join(map(str, missing))}")
            return RunSummary(output, None, tuple(results), time.monotonic() - began)
        tagger = _bundle(recipe, sides, output)
    seconds = time.monotonic() - began
    write_json(output / "run.json", {**tagger.card, "hardware": hardware.description, "seconds": seconds})
    say(f"tagger: {output / 'tagger'} ({seconds:.0f} s)")
    return RunSummary(output, output / "tagger", tuple(results), seconds)


def _check_output(output: Path, members: Sequence[int], *, resume: bool, overwrite: bool) -> None:
    """Raises JettaggerError where the run cannot be written, or would be mixed with one that is there."""
    if output.exists() and not output.is_dir():
        raise JettaggerError(f"--output {output} is a file; a run is a folder")
    if any(_folder(output, k).exists() for k in members) and not (resume or overwrite):
        raise JettaggerError(
            f"{output} holds a run already: --resume goes on with it, --overwrite replaces it, "
            "--output puts the new one elsewhere"
        )
    check_writable(output / "run.json")


def _check_finished(recipe: Recipe, sides: Sides, output: Path, members: Sequence[int]) -> None:
    """Raises JettaggerError when a member that is trained already was trained under another config."""
    for member in members:
        folder = _folder(output, member)
        if (folder / "result.json").exists():
            identity = {**_identity(recipe, sides), "member": member}
            # Members may be trained on different machines, and so in different precision.
            checkpoints.load_last(folder, identity, free=["precision in use"])


def _clear(output: Path, members: Sequence[int] | None) -> None:
    """Removes what is to be replaced: all members of the run, or some, and what was made of them."""
    folders = output.glob("member_*") if members is None else [_folder(output, k) for k in members]
    for folder in [*folders, output / "tagger", output / "baselines"]:
        shutil.rmtree(folder, ignore_errors=True)
    for name in ("run.json", "config.yaml"):
        (output / name).unlink(missing_ok=True)


def _write_config(recipe: Recipe, output: Path) -> None:
    """Leaves the resolved config in the run; what members have been trained with stays."""
    if not (output / "config.yaml").exists() or not any(output.glob("member_*")):
        with written_aside(output / "config.yaml") as aside:
            aside.write_text(yaml_source.write(dict(recipe.document)), encoding="utf-8")


def _folder(output: Path, member: int) -> Path:
    return output / f"member_{member}"


def _train_member(
    recipe: Recipe,
    sides: Sides,
    weights: TrainingWeightsResult,
    output: Path,
    member: int,
    hardware: Hardware,
    resume: bool,
    say: Callable[[str], None],
) -> MemberResult:
    """Trains one member, or goes on with it, or reads what came of it."""
    section, folder = recipe.training, _folder(output, member)
    if resume and (folder / "result.json").exists():
        return _read_result(folder)
    vary = recipe.ensemble.vary
    stream = member if "batches" in vary else 0
    model = _new_model(recipe, sides, member if "initialisation" in vary else 0)
    train, validation = _batches(recipe, sides, weights, stream, model.inputs)
    for warning in model.fit_inputs(train.sample(NORMALISATION_JETS, section.seed)):
        say(f"  {warning}")
    _write_config(recipe, output)
    result = train_member(
        Training(
            model=model,
            train=kept_on(train, hardware.device),
            validation=validation,
            section=section,
            directory=folder,
            hardware=hardware,
            config=_identity(recipe, sides),
            progress=Progress(f"member {member}", section.epochs),
            member=member,
            stream=stream,
            mirror=Mirror(section.reflections, sides.train.spec) if section.reflections else None,
        ),
        resume=resume,
    )
    write_json(folder / "result.json", _result_document(result))
    return result


def _identity(recipe: Recipe, sides: Sides) -> dict[str, Any]:
    """All that decides the weights: a checkpoint is only resumed under the same."""
    document = recipe.document
    data: dict[str, Any] = {"key": sides.keys, "validation": document["data"].get("validation")}
    if not isinstance(recipe.data.data.test, dict):
        data["test"] = recipe.data.data.test
    if recipe.fold is not None:
        data |= {"folds": document["data"]["folds"], "fold": recipe.fold}
    kept = {name: document[name] for name in ("classes", "inputs", "model", "training") if name in document}
    return {
        "data": data,
        "ensemble": {"vary": list(recipe.ensemble.vary)},
        **kept,
        "weights": document.get("weights"),
    }


def _weights(recipe: Recipe, sides: Sides) -> TrainingWeightsResult:
    """The training weights, fitted on the training jets."""
    return weights_of(sides.train, sides.train_rows, recipe.data.weights.training, sides.train.classes)


def _batches(
    recipe: Recipe, sides: Sides, weights: TrainingWeightsResult, stream: int, inputs: InputSpec
) -> tuple[Batches, Batches]:
    """Training and validation in batches; jets whose training weight is 0 are left out."""
    trained_R = weights.factor_R > 0
    rows, factor = sides.train_rows[trained_R], weights.factor_R[trained_R]
    sampling = recipe.data.weights.training.method == "sampling"
    train = Batches(
        sides.train,
        rows,
        recipe.training.batch_size,
        weights_R=loss_weights(sides.train, rows, None if sampling else factor),
        factor_R=factor if sampling else None,
        shuffle=(recipe.training.seed, stream),
        inputs=inputs,
    )
    return train, Batches(sides.validation, sides.validation_rows, BATCH, inputs=inputs)


def _new_model(recipe: Recipe, sides: Sides, stream: int) -> JetModel:
    generator = torch_generator(recipe.training.seed, "initialisation", stream)
    return models.build(recipe.model, sides.train.spec, len(sides.train.classes), generator)


def _result_document(result: MemberResult) -> dict[str, Any]:
    return {
        "member": result.member,
        "best_epoch": result.best_epoch,
        "best_loss": result.best_loss,
        "stopped_early": result.stopped_early,
        "seconds": result.seconds,
        "jets": result.jets,
    }


def _read_result(folder: Path) -> MemberResult:
    stored = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return MemberResult(**stored, weights=folder / checkpoints.BEST, history=checkpoints.load_history(folder))


def _fit_baselines(
    recipe: Recipe,
    sides: Sides,
    weights: TrainingWeightsResult,
    output: Path,
    say: Callable[[str], None],
) -> None:
    section = recipe.baselines.boosted_trees
    if section is None:
        return
    began = time.monotonic()
    trained_R = weights.factor_R > 0
    rows = sides.train_rows[trained_R]
    weights_R = loss_weights(sides.train, rows, weights.factor_R[trained_R])
    trees = fit_trees(section, sides.train, rows, weights_R, seed=recipe.training.seed)
    trees.save(output / "baselines" / "boosted_trees.npz")
    say(f"boosted trees: fitted in {time.monotonic() - began:.1f} s")


def _bundle(recipe: Recipe, sides: Sides, output: Path) -> Tagger:
    """The tagger of all members' best epochs, saved and loaded again."""
    members = []
    for member in range(recipe.ensemble.members):
        model = _new_model(recipe, sides, 0)
        model.load_state_dict(checkpoints.load_weights(_folder(output, member) / checkpoints.BEST))
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
    folders = [_folder(output, k) for k in range(recipe.ensemble.members)]
    return {
        "name": output.resolve().name,
        "classes": list(sides.train.classes),
        "inputs": {
            "jet": [_described(feature) for feature in spec.jet],
            **{c.name: [_described(feature) for feature in c.features] for c in spec.collections},
        },
        "units": "GeV, mm, rad, as in the files",
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
    probabilities_JC = tagger.run(batch.inputs for batch in batches.epoch(0)).decomposition.probabilities_NC
    labels_J, weights_J = sides.validation.labels_J[rows], sides.validation.weights_J[rows]
    figures = {}
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

    if all(isinstance(array, np.ndarray) for array in arrays):
        joined: NDArray[Any] = np.concatenate(arrays)
        return joined
    return ak.to_packed(ak.concatenate(arrays))
