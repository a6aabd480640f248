"""Means of the weights: equal shares, statistics measured anew, what is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from jettagger.training import loop
from jettagger.training import step as step_module
from jettagger.training.averages import enters, measure_statistics
from jettagger.training.checkpoints import load_weights
from jettagger.training.device import Hardware
from jettagger.training.loop import train_member
from jettagger.training.schema import SwaSection
from jettagger.training.validation import validate
from memory import equal, make_jets, make_model, make_training

CPU = Hardware(torch.device("cpu"), bfloat16=False)


def test_which_weights_enter() -> None:
    def entering(steps: int, **options: Any) -> list[int]:
        return [step for step in range(steps) if enters(step, steps, SwaSection(**options))]

    assert entering(8) == [6, 7]
    assert entering(8, start=0.0, every=3) == [1, 4, 7]
    assert entering(8, start=0.99, every=100) == [] == entering(8, start=0.95)
    assert entering(10, start=0.5, every=100) == [9], "those after the last step always"


@pytest.mark.parametrize("swa", [{"start": 0.5}, {"start": 0.3, "every": 4}])
def test_the_mean_is_the_arithmetic_mean(
    tmp_path: Path, swa: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def make_step(training: Any, state: Any, batch: Any) -> None:
        step_module.make_step(training, state, batch)
        if enters(state.step - 1, training.steps, training.section.swa):
            seen.append({name: p.detach().double() for name, p in training.model.named_parameters()})

    monkeypatch.setattr(loop, "make_step", make_step)
    training = make_training(tmp_path, swa=swa, optimiser={"lr": 0.05}, schedule="constant")
    weights = load_weights(train_member(training).weights)
    assert len(seen) == (9 if swa["start"] == 0.5 else 4)
    for name in seen[0]:
        mean = torch.stack([one[name] for one in seen]).mean(0)
        torch.testing.assert_close(weights[name].double(), mean, rtol=1e-6, atol=1e-7)
    assert equal(training.model.state_dict(), weights)


def test_what_is_kept_is_the_mean_with_its_own_loss(tmp_path: Path) -> None:
    training = make_training(tmp_path, swa={"start": 0.5}, optimiser={"lr": 0.05}, epochs=4)
    result = train_member(training)
    found = validate(training.model.eval(), training.validation.epoch(0), CPU, training.objective)
    assert result.mean_loss == pytest.approx(found.loss, rel=1e-6)
    assert (result.mean_auc, result.mean_accuracy) == (found.auc, found.accuracy)
    assert result.best_loss == min(record.validation_loss for record in result.history)
    plain = make_training(tmp_path / "plain", optimiser={"lr": 0.05}, epochs=4)
    other = train_member(plain)
    assert (other.mean_loss, other.mean_auc, other.mean_accuracy) == (None, None, None)
    losses = [[record.validation_loss for record in one.history] for one in (result, other)]
    assert losses[0] == losses[1], "the mean does not disturb the training"
    assert not equal(training.model.state_dict(), plain.model.state_dict())


def test_statistics_are_those_of_the_mean() -> None:
    """In one batch of all jets, BatchNorm has exactly that batch's mean and variance."""
    model = make_model(widths=[8], dropout=0.5)
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm1d))
    entered: list[torch.Tensor] = []
    norm.register_forward_hook(lambda module, inputs, output: entered.append(inputs[0]))
    jets = make_jets(96, batch_size=96)
    measure_statistics(model, jets.epoch(0), CPU)
    assert not model.training
    assert not norm.training
    assert norm.momentum == 0.1
    torch.testing.assert_close(norm.running_mean, entered[0].mean(0))
    torch.testing.assert_close(norm.running_var, entered[0].var(0))
    entered.clear()
    measure_statistics(model, make_jets(96, batch_size=32).epoch(0), CPU)
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean(0) for x in entered]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var(0) for x in entered]).mean(0))


def test_a_mean_of_no_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        loop.JettaggerError, match=r"no weights enter the mean: none of 18 steps is after 0\.99 of them"
    ):
        train_member(make_training(tmp_path, swa={"start": 0.99}))
