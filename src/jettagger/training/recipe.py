"""What a training is made of, and where its parts lie in a run directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jettagger import models
from jettagger.baselines import BaselinesSection
from jettagger.data.schema import DataConfig
from jettagger.models.parts.model import JetModel
from jettagger.randomness import torch_generator
from jettagger.schema import Section
from jettagger.training.schema import EnsembleSection, TrainingSection
from jettagger.training.sides import Sides


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


def new_model(recipe: Recipe, sides: Sides, stream: int) -> JetModel:
    """A network as it is before its training."""
    generator = torch_generator(recipe.training.seed, "initialisation", stream)
    return models.build(recipe.model, sides.train.spec, len(sides.train.classes), generator)
