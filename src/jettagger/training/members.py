"""The members of an ensemble, each a training of its own."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jettagger.advice import Advice
from jettagger.batch import InputSpec
from jettagger.data.batches import POOL_BYTES, Batches, bytes_per_jet
from jettagger.data.spectra import TrainingWeightsResult, loss_weights, weights_of
from jettagger.errors import JettaggerError
from jettagger.files import write_json
from jettagger.tagger import BATCH
from jettagger.training import checkpoints
from jettagger.training.augmentation import Mirror
from jettagger.training.device import Hardware
from jettagger.training.distribution import Ranks
from jettagger.training.feeding import kept_on
from jettagger.training.loop import train_member
from jettagger.training.outcome import piece_name
from jettagger.training.progress import Progress
from jettagger.training.recipe import Recipe, guessing_classes, member_folder, new_model
from jettagger.training.sharing import DropoutRows
from jettagger.training.sides import Sides
from jettagger.training.targets import beside, normalised, scaling_of
from jettagger.training.training import MemberResult, Training

NORMALISATION_JETS = 20_000
"""Training jets on which shifts and scales are measured: more than their precision needs."""


def train_members(
    recipe: Recipe,
    sides: Sides,
    weights: TrainingWeightsResult,
    output: Path,
    members: Sequence[int],
    hardware: Hardware,
    resume: bool,
    say: Callable[[str], None],
    ranks: Ranks = Ranks(),  # noqa: B008 - it is immutable
) -> list[MemberResult]:
    """Trains the members, or goes on with them, or reads what came of them; each of them by all `ranks`."""
    return [_train_member(recipe, sides, weights, output, k, hardware, resume, say, ranks) for k in members]


def _train_member(
    recipe: Recipe,
    sides: Sides,
    weights: TrainingWeightsResult,
    output: Path,
    member: int,
    hardware: Hardware,
    resume: bool,
    say: Callable[[str], None],
    ranks: Ranks,
) -> MemberResult:
    """Trains one member, or goes on with it, or reads what came of it."""
    section, folder = recipe.training, member_folder(output, member, recipe.fold)
    if resume:
        ended = ranks.first_does(lambda: _read_result(folder) if (folder / "result.json").exists() else None)
        if ended is not None:
            return ended
    vary = recipe.ensemble.vary
    stream = member if "batches" in vary else 0
    model = new_model(recipe, sides, member if "initialisation" in vary else 0)
    train, validation = batches(recipe, sides, weights, stream, model.inputs, ranks)
    section = section.for_jets(train.jets)
    for warning in model.fit_inputs(train.sample(NORMALISATION_JETS, section.seed)):
        say(f"  {warning}")
    result = train_member(
        Training(
            model=model,
            train=kept_on(train, hardware.device) if section.accumulate == 1 else train,
            validation=validation,
            section=section,
            directory=folder,
            hardware=hardware,
            config=identity(recipe, sides),
            progress=Progress(piece_name(recipe.fold, member), section.epochs, quiet=not ranks.first),
            member=member,
            stream=stream,
            mirror=Mirror(section.reflections, sides.train.spec) if section.reflections else None,
            ranks=ranks,
            rows=DropoutRows(model, model.inputs) if ranks.world > 1 else None,
            whole=batches(recipe, sides, weights, stream, model.inputs) if ranks.world > 1 else None,
            classes=guessing_classes(recipe),
        ),
        resume=resume,
    )
    if ranks.first:
        write_json(folder / "result.json", _result_document(result))
    return result


def identity(recipe: Recipe, sides: Sides) -> dict[str, Any]:
    """All that decides the weights: a checkpoint is only resumed under the same."""
    document = recipe.document
    data: dict[str, Any] = {"key": sides.keys, "validation": document["data"].get("validation")}
    if not isinstance(recipe.data.data.test, dict):
        data["test"] = recipe.data.data.test
    if recipe.fold is not None:
        data |= {"folds": document["data"]["folds"], "fold": recipe.fold}
    names = ("classes", "inputs", "model", "training", *(("targets",) if recipe.data.targets else ()))
    kept = {name: document[name] for name in names if name in document}
    return {
        "data": data,
        "ensemble": {"vary": list(recipe.ensemble.vary)},
        **kept,
        "weights": document.get("weights"),
    }


def training_weights(recipe: Recipe, sides: Sides) -> TrainingWeightsResult:
    """Fitted on the training jets."""
    return weights_of(sides.train, sides.train_rows, recipe.data.weights.training, sides.train.classes)


def batches(
    recipe: Recipe,
    sides: Sides,
    weights: TrainingWeightsResult,
    stream: int,
    inputs: InputSpec,
    ranks: Ranks = Ranks(),  # noqa: B008 - it is immutable
) -> tuple[Batches, Batches]:
    """Training and validation in batches, or one rank's part of them; jets whose training weight is 0 are left out."""
    trained_R = weights.factor_R > 0
    rows, factor = sides.train_rows[trained_R], weights.factor_R[trained_R]
    scaling = scaling_of(sides.train, sides.train_rows)
    decorrelate = recipe.training.decorrelate
    variable = None if decorrelate is None else decorrelate.variable
    sampling = recipe.data.weights.training.method == "sampling"
    size = recipe.training.batch_size
    train = Batches(
        sides.train,
        rows,
        max(len(rows), 1) if size == "all" else size,
        weights_R=loss_weights(sides.train, rows, None if sampling else factor),
        factor_R=factor if sampling else None,
        targets_RT=normalised(sides.train, rows, scaling),
        spectator_R=beside(sides.train, rows, variable),
        shuffle=(recipe.training.seed, stream),
        inputs=inputs,
        rank=ranks.rank,
        ranks=ranks.world,
    )
    if size == "all" and train.steps > 1:
        raise JettaggerError(
            f"training.batch_size: all: one step would hold {len(rows)} jets of"
            f" {bytes_per_jet(sides.train, inputs):.0f} bytes, more than the {POOL_BYTES / 2**20:.0f} MiB that are held"
            " at a time; write a number"
        )
    validation = Batches(
        sides.validation,
        sides.validation_rows,
        BATCH,
        targets_RT=normalised(sides.validation, sides.validation_rows, scaling),
        spectator_R=beside(sides.validation, sides.validation_rows, variable),
        inputs=inputs,
        rank=ranks.rank,
        ranks=ranks.world,
    )
    return train, validation


def _result_document(result: MemberResult) -> dict[str, Any]:
    return {
        "member": result.member,
        "best_epoch": result.best_epoch,
        "best_loss": result.best_loss,
        "stopped_early": result.stopped_early,
        "seconds": result.seconds,
        "jets": result.jets,
        "mean_loss": result.mean_loss,
        "advice": [one._asdict() for one in result.advice],
    }


def _read_result(folder: Path) -> MemberResult:
    stored = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    stored["advice"] = tuple(Advice(**one) for one in stored["advice"])
    return MemberResult(**stored, weights=folder / checkpoints.BEST, history=checkpoints.load_history(folder))
