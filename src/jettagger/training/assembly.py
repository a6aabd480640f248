"""The training of a member before its first step: its network, its jets in batches, and what tells it apart."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jettagger.batch import InputSpec
from jettagger.data.batches import POOL_BYTES, Batches, bytes_per_jet
from jettagger.data.resident import Resident
from jettagger.data.spectra import TrainingWeightsResult, loss_weights, weights_of
from jettagger.errors import JettaggerError
from jettagger.tagger import BATCH
from jettagger.training.augmentation import Mirror
from jettagger.training.device import Hardware
from jettagger.training.distribution import Ranks
from jettagger.training.feeding import kept_on
from jettagger.training.outcome import piece_name
from jettagger.training.progress import Progress
from jettagger.training.recipe import Recipe, fold_folder, guessing_classes, member_folder, new_model
from jettagger.training.sharing import DropoutRows
from jettagger.training.sides import Sides
from jettagger.training.targets import beside, normalised, scaling_of
from jettagger.training.training import Training
from jettagger.training.varied import jets_differ, member_sides

NORMALISATION_JETS = 20_000
"""Training jets on which shifts and scales are measured: more than their precision needs."""


class Group(NamedTuple):
    """What the members of an ensemble have in common."""

    recipe: Recipe
    sides: Sides
    weights: TrainingWeightsResult
    output: Path
    hardware: Hardware
    say: Callable[[str], None]
    ranks: Ranks

    def folder(self, member: int) -> Path:
        """Where a member lies."""
        return member_folder(self.output, member, self.recipe.fold)

    @property
    def home(self) -> Path:
        """Where the members lie side by side."""
        return fold_folder(self.output, self.recipe.fold)


def assembled(group: Group, members: Sequence[int], *, quiet: bool = False) -> list[Training]:
    """The members' trainings at their start. Jets that they have in common are held once."""
    recipe, apart, ranks, found = group.recipe, jets_differ(group.recipe), group.ranks, []
    vary, held = recipe.ensemble.vary, None
    for member in members:
        sides = member_sides(recipe, group.sides, member)
        stream = member if "batches" in vary else 0
        model = new_model(recipe, sides, member if "initialisation" in vary else 0)
        weights = training_weights(recipe, sides) if apart else group.weights
        if held is None or apart:
            held = _Held.of(recipe, sides, weights, model.inputs, group.hardware, ranks)
        section = recipe.training.for_jets(held.train.jets)
        for warning in model.fit_inputs(held.train.sample(NORMALISATION_JETS, section.seed)):
            if not quiet:
                group.say(f"  {warning}")
        found.append(
            Training(
                model=model,
                train=held.kept.reshuffled((section.seed, stream)),
                validation=held.validation,
                section=section,
                directory=group.folder(member),
                hardware=group.hardware,
                config=identity(recipe, sides),
                progress=Progress(piece_name(recipe.fold, member), section.epochs, quiet=not ranks.first),
                member=member,
                stream=stream,
                mirror=Mirror(section.reflections, sides.train.spec) if section.reflections else None,
                ranks=ranks,
                rows=DropoutRows(model, model.inputs) if ranks.world > 1 else None,
                whole=batches(recipe, sides, weights, stream, model.inputs) if ranks.world > 1 else None,
                classes=guessing_classes(recipe),
            )
        )
    return found


class _Held(NamedTuple):
    """Jets of one or several members."""

    train: Batches
    kept: Batches | Resident
    """The same, on the device where they fit."""
    validation: Batches

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        sides: Sides,
        weights: TrainingWeightsResult,
        inputs: InputSpec,
        hardware: Hardware,
        ranks: Ranks,
    ) -> "_Held":
        """Those of a split."""
        train, validation = batches(recipe, sides, weights, 0, inputs, ranks)
        kept = kept_on(train, hardware.device) if recipe.training.accumulate == 1 else train
        return cls(train, kept, validation)


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
