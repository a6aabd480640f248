"""The L1 penalty: its gradient, its size, and what it does."""

from pathlib import Path

import pytest
import torch
from torch import nn

from jettagger.training.l1 import add_l1, l1_penalty
from jettagger.training.loop import train_member
from memory import make_training


def test_gradient_and_size() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 0.5]]))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    add_l1(model, 0.1)
    assert torch.equal(model[0].weight.grad, 1 + 0.1 * torch.tensor([[1.0, -1.0], [0.0, 1.0]]).double())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in (model[0].bias, *model[1].parameters()))
    assert l1_penalty(model, 0.1) == pytest.approx(0.35, abs=1e-15)
    assert l1_penalty(model, 0.0) == 0.0


def test_the_gradient_is_that_of_the_penalty() -> None:
    """Central differences of λ Σ|w|."""
    layer = nn.Linear(3, 2).double()
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    add_l1(layer, 0.3)
    with torch.no_grad():
        for index in ((0, 0), (1, 2)):
            values = []
            for shift in (1e-6, -2e-6):
                layer.weight[index] += shift
                values.append(l1_penalty(layer, 0.3))
            layer.weight[index] += 1e-6
            difference = (values[0] - values[1]) / 2e-6
            assert layer.weight.grad[index].item() == pytest.approx(difference, abs=1e-7)


def test_weights_become_small_and_the_losses_stay_those_of_the_data(tmp_path: Path) -> None:
    options = {"epochs": 10, "optimiser": {"name": "sgd", "lr": 0.1}}
    plain = train_member(make_training(tmp_path / "plain", **options))
    pulled = train_member(make_training(tmp_path / "pulled", l1=0.05, **options))
    assert all(record.l1 == 0.0 for record in plain.history)
    assert pulled.history[-1].l1 < 0.3 * pulled.history[0].l1
    for one, other in zip(plain.history[:2], pulled.history, strict=False):
        assert other.train_loss == pytest.approx(one.train_loss, abs=0.05), "without the penalty of 2"
        assert other.l1 > 1.5
