"""Initial weights, drawn from an explicit generator and matched to the activation that follows."""

import math
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from jettagger.models.parts.layers import activation_layer

Initialisation = Literal["auto", "he", "xavier", "lecun"]

_XAVIER = {"linear", "tanh", "sigmoid"}


def initialise(model: nn.Module, generator: torch.Generator, scheme: Initialisation = "auto") -> None:
    """Redraws every weight, layer after layer; biases become 0, recurrent matrices orthogonal.

    auto: normal with variance gain² / fan, where the gain keeps the second moment in a deep stack and fan is
    the number of inputs (He, arXiv:1502.01852; LeCun for selu, arXiv:1706.02515), or the mean of inputs and
    outputs for tanh, sigmoid and linear layers (Xavier, Glorot and Bengio 2010).
    """
    for module in model.modules():
        if isinstance(module, nn.LSTM):
            _initialise_lstm(module, generator)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            _draw(module.weight, vars(module).get("followed_by", "linear"), generator, scheme)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@cache
def gain(activation: str) -> float:
    """The g for which E[activation(g z)²] = 1 with normal z: sqrt(2) for relu, 1 for linear and selu.

    tanh and sigmoid stay below 1 for every g; there it is 1 / sqrt(E[activation(z)²]), which lets the inputs
    of the activation keep their second moment.
    """
    if activation in ("tanh", "sigmoid"):
        return 1 / math.sqrt(_second_moment(activation, 1.0))
    low, high = 0.5, 4.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _second_moment(activation, middle) < 1 else (low, middle)
    return low


def _second_moment(activation: str, scale: float) -> float:
    z = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    density = torch.exp(-z.square() / 2)
    values = activation_layer(activation)(scale * z)
    return float((values.square() * density).sum() / density.sum())


def _draw(weight: Tensor, activation: str, generator: torch.Generator, scheme: Initialisation) -> None:
    fan_in = weight[0].numel()
    fan_out = weight.numel() // weight.shape[1]
    mean_fan = (fan_in + fan_out) / 2
    if scheme == "auto":
        std = gain(activation) / math.sqrt(mean_fan if activation in _XAVIER else fan_in)
    else:
        std = {"he": math.sqrt(2 / fan_in), "xavier": mean_fan**-0.5, "lecun": fan_in**-0.5}[scheme]
    with torch.no_grad():
        weight.normal_(0, std, generator=generator)


def _initialise_lstm(lstm: nn.LSTM, generator: torch.Generator) -> None:
    for name, parameter in lstm.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
            continue
        for gate in parameter.detach().chunk(4):
            if "weight_hh" in name:
                nn.init.orthogonal_(gate, generator=generator)
            else:
                _draw(gate, "linear", generator, "auto")
