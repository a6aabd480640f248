"""The network as it runs in a training: as it is, compiled by torch.compile, or recorded as CUDA graphs.

Both are tried on a batch before the first step. Where one fails it is said, and the network runs without. Which it was
decides the last bits of the result, so that a checkpoint names it.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from jettagger.batch import Inputs
from jettagger.models.parts.dropout import dropout_layers, set_dropout_generator
from jettagger.models.parts.model import JetModel
from jettagger.training.device import Hardware
from jettagger.training.schema import TrainingSection

Network = Callable[[Inputs], Tensor]
Mode = Literal["eager", "compiled", "recorded"]


class Runner(NamedTuple):
    """How the network runs in training."""

    network: Network
    mode: Mode
    remark: str | None
    """Why it does not run as the config asks for."""


def runner_of(model: JetModel, section: TrainingSection, hardware: Hardware, sample: Inputs) -> Runner:
    """The network as `training.compile` and `training.cuda_graphs` want it, tried on `sample` (on the device)."""
    if section.cuda_graphs:
        return _recorded(model, hardware, sample)
    if section.compile:
        return _compiled(model, hardware, sample)
    return Runner(model, "eager", None)


def _compiled(model: JetModel, hardware: Hardware, sample: Inputs) -> Runner:
    # Batches have as many particles as they happen to have: sizes are left open.
    network: Network = torch.compile(model, dynamic=True)
    try:
        _try(network, model, hardware, sample)
    except Exception as error:  # compilers fail in many ways, a missing C++ compiler among them
        torch._dynamo.reset()
        return Runner(
            model, "eager", f"torch.compile failed ({_first_line(error)}): the network runs as it is"
        )
    return Runner(network, "compiled", None)


def _recorded(model: JetModel, hardware: Hardware, sample: Inputs) -> Runner:
    obstacle = _obstacle(model, hardware)
    if obstacle is None:
        try:
            return Runner(_graphed(model, hardware, sample), "recorded", None)
        except RuntimeError as error:
            obstacle = f"recording failed ({_first_line(error)})"
    return Runner(model, "eager", f"no CUDA graphs: {obstacle}; the network runs as it is")


def _obstacle(model: JetModel, hardware: Hardware) -> str | None:
    if hardware.device.type != "cuda":
        return f"they are for CUDA devices, not {hardware.device}"
    if model.inputs.collections:
        return "each batch has another number of particles"
    if any(layer.p > 0 for _, layer in dropout_layers(model)):
        return "dropout draws anew in each step"
    return None


def _graphed(model: JetModel, hardware: Hardware, sample: Inputs) -> Network:
    """The network recorded for batches of the sample's size; others, such as an epoch's last, run as they are."""
    assert sample.jet_BF is not None
    size = sample.jet_BF.shape

    class OfJets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, jet_BF: Tensor) -> Tensor:
            logits_BC: Tensor = model(Inputs(jet_BF, {}))
            return logits_BC

    buffers = copy.deepcopy(dict(model.named_buffers()))  # warming up moves the statistics of BatchNorm
    with hardware.autocast(cache=False):
        replayed = torch.cuda.make_graphed_callables(OfJets().train(), (sample.jet_BF.clone(),))
    assert isinstance(replayed, nn.Module)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    model.zero_grad()

    def network(inputs: Inputs) -> Tensor:
        if inputs.jet_BF is None or inputs.jet_BF.shape != size:
            return model(inputs)
        logits_BC: Tensor = replayed(inputs.jet_BF)
        return logits_BC

    return network


def _try(network: Network, model: JetModel, hardware: Hardware, sample: Inputs) -> None:
    """One pass forwards and backwards, of which nothing stays in the model."""
    before = copy.deepcopy(dict(model.named_buffers()))
    training = model.training
    set_dropout_generator(model, torch.Generator(hardware.device).manual_seed(0))
    model.train()
    try:
        with warnings.catch_warnings(), hardware.autocast():
            warnings.simplefilter("ignore")  # compilers remark on themselves
            outputs = network(sample)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs.float().square().mean().backward()  # type: ignore[no-untyped-call]
    finally:
        model.zero_grad()
        model.train(training)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
