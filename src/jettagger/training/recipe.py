"""What a training is made of, and where its parts lie in a run directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from jettagger import models
from jettagger.baselines import BaselinesSection
from jettagger.data.schema import DataConfig
from jettagger.models.parts.model import JetModel
from jettagger.outputs.description import Outputs, describe
from jettagger.randomness import torch_generator
from jettagger.schema import Section
from jettagger.training.schema import EnsembleSection, TrainingSection
from jettagger.training.sides import Sides
from jettagger.training.targets import scaling_of


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


def fold_folder(output: Path, fold: int | None) -> Path:
    """Where the members that hold out a fold lie in a run: RUN/fold_F; RUN itself without folds."""
    return output if fold is None else output / f"fold_{fold}"


def member_folder(output: Path, member: int, fold: int | None = None) -> Path:
    """Checkpoints, `metrics.jsonl` and `result.json` of a member: RUN/member_K, or RUN/fold_F/member_K."""
    return fold_folder(output, fold) / f"member_{member}"


def outputs_of(data: DataConfig, training: TrainingSection) -> Outputs:
    """What the output columns of a config's networks mean."""
    targets = {name: (section.loss, section.weight) for name, section in data.targets.items()}
    return describe(tuple(data.classes), training.loss, targets)


def new_model(recipe: Recipe, sides: Sides, stream: int) -> JetModel:
    """A network as it is before its training; its targets are scaled by the training jets."""
    generator = torch_generator(recipe.training.seed, "initialisation", stream)
    outputs = outputs_of(recipe.data, recipe.training)
    model = models.build(recipe.model, sides.train.spec, outputs, generator)
    if outputs.targets:
        scaling = scaling_of(sides.train, sides.train_rows)
        model.target_shift.copy_(torch.from_numpy(scaling.shift_T))
        model.target_scale.copy_(torch.from_numpy(scaling.scale_T))
    return model


def guessing_classes(recipe: Recipe) -> int | None:
    """The number of classes where a guess costs ln(classes): with a cross-entropy, and nothing beside it."""
    entropy = recipe.training.loss.name in ("cross_entropy", "binary_cross_entropy")
    alone = not recipe.data.targets and recipe.training.decorrelate is None
    return len(recipe.data.classes) if entropy and alone else None
