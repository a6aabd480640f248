"""Optimisers and schedules against values worked out by hand."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from jettagger.training.optimisers import Plateau, build_optimiser, rate
from jettagger.training.schema import OptimiserSection, ScheduleSection
from jettagger.training.state import start_average, update_average
from jettagger.training.step import clip_gradients

GRADIENTS = (0.5, -1.0, 0.25)


def adam(x: float, lr: float, decay: float, *, decoupled: bool, betas: tuple[float, float]) -> float:
    """arXiv:1412.6980, algorithm 1; decoupled: arXiv:1711.05101, algorithm 2."""
    m = v = 0.0
    for t, gradient in enumerate(GRADIENTS, start=1):
        g = gradient if decoupled else gradient + decay * x
        if decoupled:
            x -= lr * decay * x
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        x -= lr * (m / (1 - betas[0] ** t)) / (math.sqrt(v / (1 - betas[1] ** t)) + 1e-8)
    return x


def sgd(x: float, lr: float, decay: float, momentum: float, *, nesterov: bool) -> float:
    velocity = 0.0
    for gradient in GRADIENTS:
        g = gradient + decay * x
        velocity = momentum * velocity + g
        x -= lr * (g + momentum * velocity if nesterov else velocity)
    return x


def run(options: dict[str, Any]) -> tuple[float, float]:
    """A weight and a bias, both 2.0 at first, after three steps."""
    layer = nn.Linear(1, 1).double()
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 2.0)
    optimiser = build_optimiser(layer, OptimiserSection.model_validate(options))
    for gradient in GRADIENTS:
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimiser.step()
    return layer.weight.item(), layer.bias.item()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw(decay: float) -> None:
    weight, bias = run({"name": "adamw", "lr": 0.1, "weight_decay": decay, "betas": [0.8, 0.95]})
    assert weight == pytest.approx(adam(2.0, 0.1, decay, decoupled=True, betas=(0.8, 0.95)), abs=1e-12)
    assert bias == pytest.approx(adam(2.0, 0.1, 0.0, decoupled=True, betas=(0.8, 0.95)), abs=1e-12)


def test_adam() -> None:
    weight, bias = run({"name": "adam", "lr": 0.1, "weight_decay": 0.1})
    assert weight == pytest.approx(adam(2.0, 0.1, 0.1, decoupled=False, betas=(0.9, 0.999)), abs=1e-12)
    assert bias == pytest.approx(adam(2.0, 0.1, 0.0, decoupled=False, betas=(0.9, 0.999)), abs=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd(nesterov: bool) -> None:
    options = {"name": "sgd", "lr": 0.1, "momentum": 0.7, "weight_decay": 0.1, "nesterov": nesterov}
    weight, bias = run(options)
    assert weight == pytest.approx(sgd(2.0, 0.1, 0.1, 0.7, nesterov=nesterov), abs=1e-12)
    assert bias == pytest.approx(sgd(2.0, 0.1, 0.0, 0.7, nesterov=nesterov), abs=1e-12)


@pytest.mark.parametrize(("name", "decay"), [("adamw", 0.01), ("adam", 0.0), ("sgd", 0.0)])
def test_default_decay_spares_biases_and_normalisations(name: str, decay: float) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    groups = build_optimiser(model, OptimiserSection.model_validate({"name": name, "lr": 0.1})).param_groups
    if decay == 0:
        assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.0, 6)]
    else:
        assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(decay, 2), (0.0, 4)]


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    (group,) = build_optimiser(model, OptimiserSection()).param_groups
    assert group["params"] == [model.bias]


def rates(steps: int, **options: Any) -> list[float]:
    section = ScheduleSection.model_validate(options)
    return [rate(step, steps, section) for step in range(steps)]


def test_one_cycle() -> None:
    values = rates(11, name="one_cycle", warm_up=0.4, initial=0.2, final=0.1)
    # 4 steps of half a cosine from 0.2 to 1, then 7 from 1 to 0.1.
    rising = [0.2 + 0.8 * (1 - math.cos(math.pi * i / 4)) / 2 for i in range(4)]
    falling = [0.1 + 0.9 * (1 + math.cos(math.pi * i / 6)) / 2 for i in range(7)]
    assert values == pytest.approx(rising + falling, abs=1e-15)
    assert (values[0], max(values), values[4], values[-1]) == pytest.approx((0.2, 1.0, 1.0, 0.1))
    assert rates(1000, name="one_cycle").index(1.0) == 300
    assert rates(1000, name="one_cycle")[-1] == pytest.approx(1e-3)


def test_cosine() -> None:
    assert rates(5, name="cosine", final=0.0) == pytest.approx(
        [1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4, 0]
    )
    assert rates(6, name="cosine", warm_up=0.5, initial=0.0)[:4] == pytest.approx([0, 0.25, 0.75, 1])


def test_constant() -> None:
    assert rates(4, name="constant") == [1.0] * 4
    assert rates(4, name="constant", warm_up=0.5, initial=0.5) == pytest.approx([0.5, 0.75, 1.0, 1.0])


@pytest.mark.parametrize("name", ["one_cycle", "cosine", "plateau", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("warm_up", [0.0, 0.5, 0.99])
def test_short_schedules_are_defined(name: str, steps: int, warm_up: float) -> None:
    values = rates(steps, name=name, warm_up=warm_up)
    assert all(0 < value <= 1 for value in values)


def test_plateau() -> None:
    section = ScheduleSection(name="plateau", patience=1, factor=0.5, final=0.2)
    plateau = Plateau()
    factors = []
    for loss in (1.0, 0.9, 0.9, 0.95, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8):
        plateau.observe(loss, section)
        factors.append(plateau.factor)
    assert factors == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]
    untouched = Plateau()
    for loss in (1.0, 2.0, 3.0, 4.0):
        untouched.observe(loss, ScheduleSection(name="cosine"))
    assert untouched == Plateau()


@pytest.mark.parametrize(("limit", "expected"), [(None, [3.0, 4.0]), (10.0, [3.0, 4.0]), (1.0, [0.6, 0.8])])
def test_clipping(limit: float | None, expected: list[float]) -> None:
    model = nn.Linear(1, 1)
    model.weight.grad, model.bias.grad = torch.tensor([[3.0]]), torch.tensor([4.0])
    assert clip_gradients(build_optimiser(model, OptimiserSection()), limit).item() == pytest.approx(5.0)
    assert [model.weight.grad.item(), model.bias.grad.item()] == pytest.approx(expected)


def test_average_of_weights() -> None:
    model = nn.BatchNorm1d(1).double()
    average = start_average(model)
    expected = 1.0
    for step, value in enumerate((3.0, 5.0, 2.0, 8.0)):
        nn.init.constant_(model.weight, value)
        model.running_mean.fill_(value - 1)
        model.num_batches_tracked.fill_(step)
        update_average(average, model, step, decay=0.25)
        d = min(0.25, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * value
    assert average["weight"].item() == pytest.approx(expected, abs=1e-12)
    assert average["num_batches_tracked"].item() == 3
    assert model.weight.item() == 8.0
