"""Optimisers and schedules against values worked out by hand."""

import copy
import math
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from jettagger.training.averages import start_average, update_average
from jettagger.training.optimiser_schema import OptimiserName, OptimiserSection, ScheduleName, ScheduleSection
from jettagger.training.optimisers import build_optimiser, optimiser_over, step_with_rates
from jettagger.training.schedules import Plateau, rate
from jettagger.training.step import clip_gradients

GRADIENTS = (0.5, -1.0, 0.25)
MANY = (0.5, -1.0, 0.25, 0.7, -0.1, 0.3, 0.9, 1.2, -0.4, 0.05)
"""Beyond the step from which RAdam trusts its mean of squares, and beyond lookahead's first."""


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


def run(options: dict[str, Any], gradients: Sequence[float] = GRADIENTS) -> tuple[float, float]:
    """A weight and a bias, both 2.0 at first, after a step for each gradient."""
    layer, optimiser = started(options)
    follow_gradients(layer, optimiser, gradients)
    return layer.weight.item(), layer.bias.item()


def started(options: dict[str, Any]) -> tuple[nn.Linear, torch.optim.Optimizer]:
    layer = nn.Linear(1, 1).double()
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 2.0)
    return layer, build_optimiser(layer, OptimiserSection.model_validate(options))


def follow_gradients(layer: nn.Linear, optimiser: torch.optim.Optimizer, gradients: Sequence[float]) -> None:
    for gradient in gradients:
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimiser.step()


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


def radam(x: float, lr: float, decay: float, betas: tuple[float, float], epsilon: float, k: int = 0) -> float:
    """arXiv:1908.03265, algorithm 2, with decoupled decay; k: lookahead (arXiv:1907.08610, algorithm 1), share 0.5."""
    m = v = 0.0
    slow = x
    longest = 2 / (1 - betas[1]) - 1
    for t, g in enumerate(MANY, start=1):
        x -= lr * decay * x
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        length = longest - 2 * t * betas[1] ** t / (1 - betas[1] ** t)
        step = m / (1 - betas[0] ** t)
        if length > 5:
            top = (length - 4) * (length - 2) * longest
            bottom = (longest - 4) * (longest - 2) * length
            step *= math.sqrt(top / bottom) * math.sqrt(1 - betas[1] ** t) / (math.sqrt(v) + epsilon)
        x -= lr * step
        if k and t % k == 0:
            x = slow = slow + 0.5 * (x - slow)
    return x


def lion(x: float, lr: float, decay: float, betas: tuple[float, float]) -> float:
    """arXiv:2302.06675, algorithm 2."""
    m = 0.0
    for g in MANY:
        direction = float(np.sign(betas[0] * m + (1 - betas[0]) * g))
        x -= lr * (direction + decay * x)
        m = betas[1] * m + (1 - betas[1]) * g
    return x


def adadelta(x: float, lr: float, decay: float, rho: float, epsilon: float) -> float:
    """arXiv:1212.5701, algorithm 1."""
    squares = steps = 0.0
    for gradient in MANY:
        g = gradient + decay * x
        squares = rho * squares + (1 - rho) * g * g
        step = math.sqrt(steps + epsilon) / math.sqrt(squares + epsilon) * g
        steps = rho * steps + (1 - rho) * step * step
        x -= lr * step
    return x


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_radam(decay: float) -> None:
    weight, bias = run({"name": "radam", "lr": 0.1, "weight_decay": decay, "betas": [0.8, 0.95]}, MANY)
    assert weight == pytest.approx(radam(2.0, 0.1, decay, (0.8, 0.95), 1e-8), abs=1e-12)
    assert bias == pytest.approx(radam(2.0, 0.1, 0.0, (0.8, 0.95), 1e-8), abs=1e-12)


def test_ranger_is_radam_with_lookahead() -> None:
    weight, bias = run({"name": "ranger", "lr": 0.1, "weight_decay": 0.1}, MANY)
    assert weight == pytest.approx(radam(2.0, 0.1, 0.1, (0.95, 0.999), 1e-5, k=6), abs=1e-12)
    assert bias == pytest.approx(radam(2.0, 0.1, 0.0, (0.95, 0.999), 1e-5, k=6), abs=1e-12)
    assert weight != pytest.approx(radam(2.0, 0.1, 0.1, (0.95, 0.999), 1e-5), abs=1e-3)
    options = {"name": "radam", "betas": [0.95, 0.999], "epsilon": 1e-5, "lookahead": {}}
    assert run({**options, "lr": 0.1, "weight_decay": 0.1}, MANY) == (weight, bias)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lion(decay: float) -> None:
    weight, bias = run({"name": "lion", "lr": 0.1, "weight_decay": decay, "betas": [0.6, 0.8]}, MANY)
    assert weight == pytest.approx(lion(2.0, 0.1, decay, (0.6, 0.8)), abs=1e-12)
    assert bias == pytest.approx(lion(2.0, 0.1, 0.0, (0.6, 0.8)), abs=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adadelta(decay: float) -> None:
    weight, bias = run({"name": "adadelta", "lr": 2.0, "weight_decay": decay, "rho": 0.8}, MANY)
    assert weight == pytest.approx(adadelta(2.0, 2.0, decay, 0.8, 1e-6), abs=1e-12)
    assert bias == pytest.approx(adadelta(2.0, 2.0, 0.0, 0.8, 1e-6), abs=1e-12)


def test_lookahead_by_hand() -> None:
    """Descent with gradient 1 from 2: 1, 0, then half of the way back to 2, and so again."""
    options = {"name": "sgd", "lr": 1.0, "momentum": 0.0, "lookahead": {"steps": 2, "share": 0.25}}
    assert run(options, (1.0,))[0] == 1.0
    assert run(options, (1.0, 1.0))[0] == 2.0 - 0.25 * 2
    assert run(options, (1.0, 1.0, 1.0))[0] == 0.5
    assert run(options, (1.0, 1.0, 1.0, 1.0))[0] == 1.0


def test_lookahead_goes_on_from_its_state() -> None:
    options = {"name": "ranger", "lr": 0.1}
    layer, optimiser = started(options)
    follow_gradients(layer, optimiser, MANY[:4])
    other, resumed = started(options)
    other.load_state_dict(layer.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    follow_gradients(layer, optimiser, MANY[4:])
    follow_gradients(other, resumed, MANY[4:])
    assert other.weight.item() == layer.weight.item() == run(options, MANY)[0]


ALL: list[dict[str, Any]] = [
    {"name": "adamw", "lr": 0.03},
    {"name": "adam", "lr": 0.03},
    {"name": "sgd", "lr": 0.03},
    {"name": "sgd", "lr": 0.03, "nesterov": True},
    {"name": "sgd", "lr": 0.1, "momentum": 0.0},
    {"name": "radam", "lr": 0.03},
    {"name": "ranger", "lr": 0.1},
    {"name": "lion", "lr": 0.01},
    {"name": "adadelta", "lr": 0.3, "epsilon": 1e-3},
    {"name": "adamw", "lr": 0.05, "lookahead": {"steps": 3, "share": 0.8}},
]
EACH = pytest.mark.parametrize("options", ALL, ids=lambda o: "-".join(map(str, o.values())))


def test_all_names_are_tested() -> None:
    assert {options["name"] for options in ALL} == set(get_args(OptimiserName))


@EACH
def test_a_convex_valley_is_descended(options: dict[str, Any]) -> None:
    """Curvatures 1 and 10, lowest at 0: from (1, -1) to within 0.1."""
    x = nn.Parameter(torch.tensor([[1.0, -1.0]]))
    optimiser = optimiser_over([x], [False], OptimiserSection.model_validate(options))
    for _ in range(500):
        optimiser.zero_grad()
        ((x.square() * torch.tensor([1.0, 10.0])).sum() / 2).backward()
        optimiser.step()
    assert x.abs().max().item() < 0.1


@EACH
def test_stacked_networks_step_as_alone(options: dict[str, Any]) -> None:
    """Elementwise: three networks' weights in one tensor make the same steps."""
    section = OptimiserSection.model_validate({"weight_decay": 0.1, **options})
    start = torch.randn(3, 4, 5, generator=seeded(1)).double()
    gradients = torch.randn(8, 3, 4, 5, generator=seeded(2)).double()
    together = steps_of(start, gradients, section)
    for m in range(3):
        # Not to the last bit: the ends of a tensor are computed without the processor's vectors.
        alone = steps_of(start[m], gradients[:, m], section)
        torch.testing.assert_close(together[m], alone, rtol=1e-13, atol=1e-14)


@EACH
def test_a_rate_for_each_of_stacked_networks(options: dict[str, Any]) -> None:
    section = OptimiserSection.model_validate({"weight_decay": 0.1, **options})
    start = torch.randn(3, 4, 5, generator=seeded(1)).double()
    gradients = torch.randn(8, 3, 4, 5, generator=seeded(2)).double()
    rates = torch.tensor([1e-3, 0.02, 0.5])
    x = nn.Parameter(start.clone())
    optimiser = optimiser_over([x], [True], section)
    for gradient in gradients:
        x.grad = gradient.clone()
        step_with_rates(optimiser, rates)
    for m, lr in enumerate(rates.tolist()):
        alone = steps_of(start[m], gradients[:, m], section.model_copy(update={"lr": lr}))
        torch.testing.assert_close(x.detach()[m], alone, rtol=1e-10, atol=1e-10)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def steps_of(start: torch.Tensor, gradients: torch.Tensor, section: OptimiserSection) -> torch.Tensor:
    x = nn.Parameter(start.clone())
    optimiser = optimiser_over([x], [True], section)
    for gradient in gradients:
        x.grad = gradient.clone()
        optimiser.step()
    return x.detach()


@pytest.mark.parametrize(
    ("name", "decay"), [("adamw", 0.01), ("adam", 0.0), ("sgd", 0.0), ("lion", 0.1), ("radam", 0.0)]
)
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


def test_step() -> None:
    assert rates(8, name="step") == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    values = rates(10, name="step", milestones=[0.4], factor=0.5, warm_up=0.2, initial=0.0)
    assert values == pytest.approx([0, 0.5, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])


def test_flat_then_decay() -> None:
    values = rates(1000, name="flat_then_decay")
    assert values[:701] == [1.0] * 701
    assert values[701] < 1.0
    assert values[-1] == pytest.approx(0.01)
    assert values[700 + 150] / values[700 + 149] == pytest.approx(0.01 ** (1 / 299)), "exponential"
    assert rates(5, name="flat_then_decay", flat=0.0, final=0.0625) == pytest.approx(
        [1, 0.5, 0.25, 0.125, 0.0625]
    )
    warm = rates(10, name="flat_then_decay", warm_up=0.2, initial=0.0)
    assert warm == pytest.approx([0, 0.5, 1, 1, 1, 1, 1, 1, 0.1, 0.01])


@pytest.mark.parametrize("name", get_args(ScheduleName))
def test_schedules_rise_to_the_top_and_never_again(name: str) -> None:
    values = rates(200, name=name, warm_up=0.1, initial=0.2)
    assert values[0] == pytest.approx(0.2)
    assert values[20] == 1.0
    assert np.all(np.diff(values[:21]) > 0)
    assert np.all(np.diff(values[20:]) <= 0)
    ends = {"one_cycle": 1e-3, "cosine": 1e-3, "flat_then_decay": 1e-2, "step": 1e-2}
    assert values[-1] == pytest.approx(ends.get(name, 1.0))


@pytest.mark.parametrize("name", get_args(ScheduleName))
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("warm_up", [0.0, 0.5])
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
    strict = section.model_copy(update={"min_delta": 0.2})
    hard = Plateau()
    for loss in (1.0, 0.9, 0.85, 0.7):
        hard.observe(loss, strict)
    assert (hard.factor, hard.best) == (0.5, 0.7)
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
