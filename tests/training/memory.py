"""Jets in memory, in batches: what the trainer is tested on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jettagger.batch import Batch, CollectionInput, Feature, Inputs, InputSpec, Packed
from jettagger.models import build
from jettagger.models.mlp import Config as MlpConfig
from jettagger.models.parts.model import JetModel
from jettagger.randomness import torch_generator
from jettagger.training.device import Hardware
from jettagger.training.progress import Progress
from jettagger.training.schema import TrainingSection
from jettagger.training.training import Training

SPEC = InputSpec(
    jet=(Feature("pt", "none"), Feature("mass", "none"), Feature("girth", "none")),
    collections=(CollectionInput("particles", (Feature("d0", "none"), Feature("z0", "none")), 5),),
)


@dataclass
class MemoryBatches:
    """Implements `training.training.Batches`; shuffled if `seed` is given."""

    jet_JF: Tensor
    labels_J: Tensor
    weights_J: Tensor
    batch_size: int
    seed: int | None = None

    @property
    def jets(self) -> int:
        return len(self.labels_J)

    @property
    def steps(self) -> int:
        return -(-self.jets // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        order_J = torch.arange(self.jets)
        if self.seed is not None:
            order_J = torch.randperm(self.jets, generator=torch_generator(self.seed, "batches", 0, epoch))
        for index_B in order_J.split(self.batch_size)[start:]:
            yield self.batch(index_B)

    def batch(self, index_B: Tensor) -> Batch:
        lengths_B = index_B % 3
        values_N = torch.arange(int(lengths_B.sum()), dtype=torch.float32)
        particles = Packed(torch.stack([values_N / 100, values_N.sin()], 1), lengths_B)
        inputs = Inputs(self.jet_JF[index_B], {"particles": particles})
        return Batch(inputs, self.labels_J[index_B], self.weights_J[index_B], index_B)


def make_jets(jets: int = 96, classes: int = 2, stream: str = "train", batch_size: int = 16) -> MemoryBatches:
    """Classes that differ in all three variables; weights between 0.5 and 1.5."""
    generator = torch_generator(7, stream)
    labels_J = torch.arange(jets) % classes
    jet_JF = torch.randn(jets, 3, generator=generator) + labels_J[:, None] * torch.tensor([1.0, -0.5, 0.7])
    weights_J = 0.5 + torch.rand(jets, generator=generator)
    return MemoryBatches(jet_JF, labels_J, weights_J, batch_size, seed=3 if stream == "train" else None)


def make_model(seed: int = 1, classes: int = 2, **options: Any) -> JetModel:
    """A small mlp with dropout and batch norm."""
    config = MlpConfig(**{"widths": [8, 8], "dropout": 0.2, "norm": "batch", **options})
    model = build(config, SPEC, classes, torch_generator(seed, "initialisation", 0))
    model.fit_inputs(make_jets().batch(torch.arange(96)).inputs)
    return model


def make_training(directory: Path, model: JetModel | None = None, **options: Any) -> Training:
    """A training of few short epochs; `options` are those of the section, or fields of `Training`."""
    fields = {name: options.pop(name) for name in list(options) if name in Training.__dataclass_fields__}
    section = TrainingSection.model_validate({"epochs": 3, "checkpoint_seconds": None, **options})
    defaults: dict[str, Any] = {
        "model": make_model() if model is None else model,
        "train": make_jets(),
        "validation": make_jets(40, stream="validation"),
        "section": section,
        "directory": directory,
        "hardware": Hardware(torch.device("cpu"), bfloat16=False),
        "config": {"training": section.model_dump()},
        "progress": Progress("member 1/1", section.epochs, quiet=True),
    }
    return Training(**{**defaults, **fields})


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two networks are the same to the last bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
