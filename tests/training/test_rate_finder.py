"""The learning-rate finder: it rises, stops where the loss diverges, and suggests what then trains well."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from jettagger.errors import JettaggerError
from jettagger.models import build
from jettagger.models.particle_cnn import Config as ParticleCnn
from jettagger.randomness import torch_generator
from jettagger.training.device import Hardware
from jettagger.training.loop import train_member
from jettagger.training.loss import cross_entropy, summed
from jettagger.training.rate_copies import Copies, side_by_side_scan, suggest_of_copies
from jettagger.training.rate_finder import (
    FEWEST,
    RunningMean,
    ScanRange,
    endless,
    losses_of_steps,
    rising_scan,
    suggest_rising,
)
from jettagger.training.training import Training
from memory import SPEC, make_jets, make_model, make_training


def training(folder: Path, **options: Any) -> Training:
    jets = options.pop("train", None) or make_jets(640, batch_size=64)
    model = make_model(dropout=0.1, widths=[16])
    return make_training(folder, model, train=jets, **{"optimiser": {"name": "adamw"}, **options})


def test_the_mean_is_that_of_the_losses() -> None:
    mean = RunningMean()
    for loss in (2.0, 4.0, 1.0):
        mean.add(loss)
    weights = [0.9**2, 0.9, 1.0]
    assert mean.history[0] == 2.0
    assert mean.history[2] == pytest.approx((0.81 * 2 + 0.9 * 4 + 1) / sum(weights))


def test_losses_below_zero_diverge_where_they_rise_far() -> None:
    mean = RunningMean()
    for loss in [-1.0] * FEWEST + [-2.0] * 50:
        mean.add(loss)
        assert not mean.diverged
    mean.add(15.0)
    assert not mean.diverged, f"{mean.history[-1]}"
    mean.add(30.0)
    assert mean.diverged
    mean = RunningMean()
    mean.add(float("nan"))
    assert mean.diverged


def test_a_scan_rises_until_the_loss_diverges(tmp_path: Path) -> None:
    scan = rising_scan(training(tmp_path), ScanRange(1e-5, 100.0, 150))
    assert scan.steps == len(scan.rates_S) == len(scan.losses_S) == len(scan.smoothed_S) < 150
    np.testing.assert_allclose(scan.rates_S, np.geomspace(1e-5, 100, 150)[: scan.steps])
    assert scan.ended == f"the loss rose above 3 times its start at a rate of {scan.rates_S[-1]:.3g}"
    assert scan.smoothed_S[-1] > 3 * scan.smoothed_S[FEWEST - 1] >= scan.smoothed_S[-2]
    assert scan.suggestion.rate is not None
    assert 1e-3 < scan.suggestion.rate < 0.3
    assert list(tmp_path.iterdir()) == []
    again = rising_scan(training(tmp_path), ScanRange(1e-5, 100.0, 150))
    assert again.losses_S.tolist() == scan.losses_S.tolist()


def test_the_suggested_rate_trains_well(tmp_path: Path) -> None:
    rate = rising_scan(training(tmp_path), ScanRange(1e-5, 100.0, 150)).suggestion.rate
    assert rate is not None

    def loss_at(lr: float) -> float:
        options: dict[str, Any] = {"optimiser": {"lr": lr}, "epochs": 3}
        return train_member(training(tmp_path / f"{lr}", **options)).best_loss

    chosen = loss_at(rate)
    assert chosen < loss_at(rate / 100)
    assert chosen < loss_at(rate * 300)


def test_rates_reach_the_optimiser(tmp_path: Path) -> None:
    """Plain descent of the same network by hand: the loss of each step is that of the weights so far."""
    jets = make_jets(64, batch_size=64)
    jets.seed = None
    options: dict[str, Any] = {"optimiser": {"name": "sgd", "lr": 1.0, "momentum": 0.0}}
    chosen = ScanRange(0.01, 1.0, 20)
    model = make_model(dropout=0.0, norm="none")
    scan = rising_scan(make_training(tmp_path, model, train=jets, **options), chosen)
    other = make_model(dropout=0.0, norm="none")
    batch = next(jets.epoch(0))
    for rate, loss in zip(chosen.rates(20), scan.losses_S, strict=True):
        found = summed(cross_entropy(other(batch.inputs), batch.labels_B), batch.weights_B)
        assert loss == pytest.approx((found.losses / found.weights).item(), rel=1e-5)
        other.zero_grad()
        found.step.backward()
        for parameter in other.parameters():
            parameter.data -= float(rate) * parameter.grad


def test_a_loss_that_is_not_finite_ends_a_scan(tmp_path: Path) -> None:
    scan = rising_scan(training(tmp_path, optimiser={"name": "sgd", "lr": 1.0}), ScanRange(1e-3, 1e30, 60))
    assert "at a rate of" in scan.ended
    assert all(x is None or math.isfinite(x) for x in scan.document()["losses"])


def test_batches_in_parts(tmp_path: Path) -> None:
    """The rate finder passes large batches in parts, as a training does: with masks of the whole batch."""
    options: dict[str, Any] = {
        "model": make_model(dropout=0.3, norm="none"),
        "train": make_jets(64, batch_size=64),
    }
    whole = rising_scan(make_training(tmp_path, **options), ScanRange(1e-4, 0.1, 20))
    options["model"] = make_model(dropout=0.3, norm="none")
    parts = rising_scan(make_training(tmp_path, accumulate=3, **options), ScanRange(1e-4, 0.1, 20))
    np.testing.assert_allclose(parts.losses_S, whole.losses_S, rtol=1e-4)


def test_broken_data_are_no_matter_of_the_rate(tmp_path: Path) -> None:
    jets = make_jets(64, batch_size=64)
    jets.weights_J[3] = float("nan")
    with pytest.raises(JettaggerError, match="not finite in epoch 1, batch 1"):
        rising_scan(training(tmp_path, train=jets), ScanRange())


def test_weights_that_cancel(tmp_path: Path) -> None:
    jets = make_jets(64, batch_size=64)
    jets.weights_J = -jets.weights_J
    with pytest.raises(JettaggerError, match=r"a batch add up to -.* needs a larger training.batch_size"):
        rising_scan(training(tmp_path, train=jets), ScanRange())


RATES = np.geomspace(1e-5, 10, 121)


def test_suggestions() -> None:
    """A loss that falls around 1e-3, is lowest at 0.1 and then rises."""
    x = np.log10(RATES)
    valley = 0.7 - 0.4 / (1 + np.exp(-4 * (x + 3))) + np.where(x > -1, (x + 1) ** 2, 0.0)
    found = suggest_rising(RATES, valley, diverged=True)
    assert found.rate == pytest.approx(1e-3, rel=0.15)
    assert "falls fastest at 0.00" in found.reason
    assert found.reason.endswith("from 0.699): the former")
    cliff = np.where(x < -2, 0.7, np.where(x < -1.9, 0.2, 2.0))
    found = suggest_rising(RATES, cliff, diverged=True)
    assert found.rate is not None
    assert found.rate <= 0.013 / 3 * 1.1
    assert found.reason.endswith("a third of the latter")


def test_no_suggestion_without_a_fall() -> None:
    flat = np.full(121, 0.7)
    assert suggest_rising(RATES, flat, diverged=False) == (
        None,
        "the loss fell from 0.7 to 0.7 only: nothing can be read from it; try a higher --highest or more --steps",
    )
    assert "try a lower --lowest" in suggest_rising(RATES, flat, diverged=True).reason


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (ScanRange(0.0, 1.0, 50), r"--lowest 0 --highest 1: rates must be above 0 and rise"),
        (ScanRange(0.1, 0.1, 50), r"rates must be above 0 and rise"),
        (ScanRange(0.1, math.inf, 50), r"rates must be above 0 and rise"),
        (ScanRange(0.1, 1.0, 5), r"--steps 5: a scan needs 20 steps at least"),
    ],
)
def test_ranges_that_are_none(tmp_path: Path, chosen: ScanRange, message: str) -> None:
    with pytest.raises(JettaggerError, match=message):
        rising_scan(training(tmp_path), chosen)


ODD: dict[str, dict[str, Any]] = {
    "adamw": {"optimiser": {"name": "adamw", "weight_decay": 0.1}},
    "ranger": {"optimiser": "ranger", "l1": 1e-3},
    "momentum, clipped": {"optimiser": {"name": "sgd", "lr": 1.0}, "gradient_clip": 0.5},
}


@pytest.mark.parametrize("options", ODD.values(), ids=ODD)
def test_each_copy_is_trained_as_alone(tmp_path: Path, options: dict[str, Any]) -> None:
    """Same batches, masks and statistics: the losses of every step are those of a network at that rate alone."""
    chosen, rates = ScanRange(1e-4, 0.1, 20), np.geomspace(1e-4, 0.1, 3)
    together = Copies(training(tmp_path, **options), rates)
    found = [together.step(batch) for batch in endless(together.training, chosen.steps)]
    for m, lr in enumerate(rates):
        alone = replace(training(tmp_path, **options), rates=lambda step, lr=lr: float(lr))
        expected = list(losses_of_steps(alone, chosen.steps))
        np.testing.assert_allclose([losses[m] for losses in found], expected, rtol=2e-4)
    assert found[-1][0] != pytest.approx(found[-1][2], rel=0.01)


def test_a_scan_side_by_side(tmp_path: Path) -> None:
    scan = side_by_side_scan(training(tmp_path), ScanRange(1e-5, 10.0, 60), 7)
    assert scan.side_by_side
    assert len(scan.rates_S) == len(scan.losses_S) == len(scan.smoothed_S) == 7
    assert scan.rates_S[[0, -1]].tolist() == pytest.approx([1e-5, 10.0])
    assert scan.suggestion.rate is not None
    assert 1e-3 <= scan.suggestion.rate <= 0.1
    assert "ended lowest at 0.0" in scan.suggestion.reason
    assert scan.document()["kind"] == "side by side"


def test_particles_side_by_side(tmp_path: Path) -> None:
    config = ParticleCnn(widths=[8], dense=[8], dropout=0.1, norm="batch")
    model = build(config, SPEC, 2, torch_generator(1, "initialisation", 0))
    model.fit_inputs(make_jets().batch(torch.arange(96)).inputs)
    scan = side_by_side_scan(make_training(tmp_path, model), ScanRange(1e-4, 0.1, 20), 2)
    assert np.isfinite(scan.smoothed_S).all()


def test_a_copy_that_diverges_leaves_the_others(tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimiser": {"name": "sgd", "lr": 1.0}}
    scan = side_by_side_scan(training(tmp_path, **options), ScanRange(1e-2, 1e30, 30), 2)
    assert np.isfinite(scan.smoothed_S).tolist() == [True, False]
    assert scan.ended == "2 copies made 30 steps each, 1 of them diverged"
    assert scan.document()["losses"][1] is None


def test_the_start_is_the_loss_that_all_copies_share(tmp_path: Path) -> None:
    """Not that of a copy whose loss rises at once, but does not end."""
    first = next(losses_of_steps(training(tmp_path), 60))
    scan = side_by_side_scan(training(tmp_path), ScanRange(1e-3, 100.0, 60), 6)
    assert scan.smoothed_S[-1] > 2 * first
    assert f", from {first:.4g})" in scan.suggestion.reason


def test_what_cannot_be_scanned_side_by_side(tmp_path: Path) -> None:
    with pytest.raises(JettaggerError, match="--side-by-side 1: two rates at least"):
        side_by_side_scan(training(tmp_path), ScanRange(), 1)
    model = make_model()
    model.memory = nn.LSTM(3, 3)
    with pytest.raises(JettaggerError, match="recurrent layers cannot be run for several networks at once"):
        side_by_side_scan(make_training(tmp_path, model), ScanRange(), 2)
    with pytest.raises(JettaggerError, match="batches pass whole, not in parts: write a smaller batch_size"):
        side_by_side_scan(training(tmp_path, accumulate=2), ScanRange(), 2)
    half = make_training(tmp_path, hardware=Hardware(torch.device("cpu"), bfloat16=False, float16=True))
    with pytest.raises(JettaggerError, match="float16 needs a scale for each network"):
        side_by_side_scan(half, ScanRange(), 2)
    jets = make_jets(64, batch_size=64)
    jets.weights_J[3] = float("nan")
    with pytest.raises(JettaggerError, match="not finite in the first step, at any rate"):
        side_by_side_scan(training(tmp_path, train=jets), ScanRange(), 2)


def test_suggestions_of_copies() -> None:
    rates, losses = np.geomspace(1e-4, 1.0, 5), np.array([0.6, 0.5, 0.4, 0.405, np.nan])
    found = suggest_of_copies(rates, losses, 0.7)
    assert found.rate == 0.01
    assert (
        found.reason
        == "the smoothed loss ended lowest at 0.01 (0.4, from 0.7), and within 2 % of it from 0.01 to 0.1"
    )
    assert suggest_of_copies(rates, losses[::-1], 0.7).rate == 0.01
    rising = suggest_of_copies(rates, np.array([0.4, 0.5, 0.6, 0.6, 0.6]), 0.7)
    assert rising.reason.endswith("; a lower --lowest may do better")
    assert suggest_of_copies(rates, np.full(5, 0.7), 0.7).rate is None
    assert suggest_of_copies(rates, np.full(5, -0.99), -1.0).rate is None
    assert suggest_of_copies(rates, np.array([-1.0, -1.2, -1.5, -1.4, 3.0]), -1.0).rate == 0.01
    assert suggest_of_copies(rates, np.full(5, np.nan), 0.7).rate is None
