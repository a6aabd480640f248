"""What `training.py` measures of jettagger; started by it, once for each figure.

Told as JSON: `kind` (jettagger, bare loop or export), `network`, `samples`, `prepared`, `batch_size`, `steps`,
`threads`, `precision`.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from jettagger.batch import Batch, Inputs
from jettagger.data.batches import Batches
from jettagger.data.prepared import Prepared, prepare
from jettagger.data.schema import DataConfig
from jettagger.models import build, config_class
from jettagger.models.parts.dropout import set_dropout_generator
from jettagger.models.parts.model import JetModel
from jettagger.models.parts.normalisation import InputNormalisation
from jettagger.randomness import torch_generator
from jettagger.training.device import Precision, choose_hardware
from jettagger.training.loop import train_member
from jettagger.training.progress import Progress
from jettagger.training.schema import TrainingSection
from jettagger.training.training import Training
from measuring.inputs import LENGTH
from measuring.networks import NETWORKS, data_config
from measuring.processes import started
from measuring.stopwatch import measured

RATE = 1e-3
CHECKED = 24
"""Jets whose logits are compared."""


class Timed:
    """The first `steps` batches of each epoch; the second epoch is measured."""

    def __init__(self, batches: Batches, steps: int, size: int) -> None:
        self.batches = batches
        self.steps = min(steps, batches.steps)
        self.jets = min(self.steps * size, batches.jets)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        if epoch != 1:
            yield from islice(self.batches.epoch(epoch, start), self.steps - start)
            return
        with measured("steps") as figures:
            figures["jets"] = self.jets
            yield from islice(self.batches.epoch(epoch, start), self.steps - start)


def main() -> None:
    told = json.loads(sys.argv[1])
    torch.set_num_threads(told["threads"])
    config = DataConfig.model_validate(data_config(told["samples"], told["prepared"]))
    prepared = prepare(config, config.data.train, role="data.train", executor=started(1))
    model = make_model(told["network"], prepared)
    rows_R = np.arange(len(prepared))
    batches = Batches(prepared, rows_R, told["batch_size"], shuffle=(1, 0), inputs=model.inputs)
    if told["kind"] == "export":
        export(model, next(Batches(prepared, rows_R, CHECKED, shuffle=(1, 0)).epoch(0)), told["path"])
        return
    timed = Timed(batches, told["steps"], told["batch_size"])
    if told["kind"] == "bare loop":
        train_bare(model, timed, told["precision"])
    else:
        few = Batches(prepared, rows_R[:: len(rows_R) // 64], 64, inputs=model.inputs)
        train(model, timed, few, told["threads"], told["precision"])


def make_model(name: str, prepared: Prepared) -> JetModel:
    section = NETWORKS[name].model
    config = config_class(section["architecture"]).model_validate(section)
    return build(config, prepared.spec, len(prepared.classes), torch_generator(1, "initialisation", 0))


def train(model: JetModel, batches: Timed, validation: Batches, threads: int, precision: Precision) -> None:
    """With jettagger's own loop."""
    document = {"epochs": 2, "checkpoint_seconds": None, "threads": threads, "schedule": "constant"}
    with tempfile.TemporaryDirectory() as folder:
        training = Training(
            model=model,
            train=batches,
            validation=validation,
            section=TrainingSection.model_validate(document | {"optimiser": {"name": "adamw", "lr": RATE}}),
            directory=Path(folder),
            hardware=choose_hardware("cpu", precision),
            config={},
            progress=Progress("benchmark", 2, quiet=True),
        )
        train_member(training)


def bare_step(model: JetModel, precision: Precision) -> Callable[[Batch], None]:
    """Forward, cross-entropy, backward, AdamW, and nothing else."""
    model.train()
    set_dropout_generator(model, torch.Generator())
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    hardware = choose_hardware("cpu", precision)

    def step(batch: Batch) -> None:
        with hardware.autocast():
            logits_BC = model(batch.inputs)
        loss = functional.cross_entropy(logits_BC.float(), batch.labels_B)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def train_bare(model: JetModel, batches: Timed, precision: Precision) -> None:
    """With a bare loop."""
    step = bare_step(model, precision)
    for epoch in range(2):
        for batch in batches.epoch(epoch):
            step(batch)


def export(model: JetModel, batch: Batch, path: str) -> None:
    """Weights in the order of the layers, padded and normalised jets, and their logits in double precision."""
    generator = torch_generator(1, "export")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_var.mul_(1 + torch.rand(module.running_var.shape, generator=generator))
    model.double()
    inputs = batch.inputs.each(lambda x: x.double() if x.is_floating_point() else x)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.BatchNorm1d)]
    weights = [value.clone() for layer in layers for value in layer.state_dict().values()]
    logits = {"eval": model.eval()(inputs), "train": in_training(model, inputs)}
    normalise = model.normalise
    assert isinstance(normalise, InputNormalisation)
    x = normalise(inputs).collections["particles"].dense(LENGTH)  # type: ignore[union-attr]
    arrays = {"features": x.features_BPF, "mask": x.mask_BP, "points": x.coordinates_BPK[..., :2]}
    arrays |= {f"logits_{mode}": values_BC.detach() for mode, values_BC in logits.items()}
    arrays |= {f"weight_{number:03}": value for number, value in enumerate(weights)}
    np.savez(path, **{name: value.numpy() for name, value in arrays.items()})


def in_training(model: JetModel, inputs: Inputs) -> Tensor:
    """Logits with the statistics of the batch, without dropout."""
    model.train()
    for module in model.modules():
        if not isinstance(module, nn.BatchNorm1d):
            module.training = False
    return model(inputs)


if __name__ == "__main__":
    main()
