"""Real trainings that go wrong in a known way, and what is said of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jettagger.training.loop import train_member
from jettagger.training.training import MemberResult
from memory import MemoryBatches, make_jets, make_model, make_training


def verdicts(folder: Path, **options: Any) -> list[str]:
    return [one.verdict for one in result_of(folder, **options).advice]


def result_of(folder: Path, **options: Any) -> MemberResult:
    model = options.pop("model", None) or make_model(dropout=0.0, norm="none", widths=[32, 32])
    return train_member(make_training(folder, model, **{"classes": 2, "schedule": "constant", **options}))


def quiet_jets(jets: int = 400) -> MemoryBatches:
    """One batch an epoch: without noise from step to step."""
    return make_jets(jets, batch_size=jets)


def test_a_tiny_set_is_overfitted(tmp_path: Path) -> None:
    jets = make_jets(32, batch_size=8)
    jets.labels_J[:8] = 1 - jets.labels_J[:8]
    options = {"train": jets, "validation": make_jets(400, stream="validation"), "epochs": 40}
    result = result_of(tmp_path, optimiser={"lr": 0.01}, **options)
    assert result.advice[0].verdict == "overfitting"
    assert result.advice[0].sentence.startswith("Overfitting from epoch ")


def test_a_rate_too_high(tmp_path: Path) -> None:
    options = {"optimiser": {"name": "sgd", "lr": 5.0, "momentum": 0.9}, "epochs": 12}
    assert verdicts(tmp_path, **options)[0] == "learning rate too high"


def test_a_rate_too_low(tmp_path: Path) -> None:
    options = {"train": quiet_jets(), "optimiser": {"name": "adamw", "lr": 1e-5}, "epochs": 20}
    assert verdicts(tmp_path / "low", **options)[0] == "learning rate too low"
    options["optimiser"] = {"name": "adamw", "lr": 0.02}
    assert verdicts(tmp_path / "well", **options)[0] != "learning rate too low"


def test_a_training_too_short(tmp_path: Path) -> None:
    options = {"train": quiet_jets(), "validation": quiet_jets(), "optimiser": {"lr": 2e-3}}
    assert verdicts(tmp_path / "3", epochs=3, **options) == ["too short"]
    assert verdicts(tmp_path / "20", epochs=20, **options)[0] == "still improving"


def test_nothing_to_learn(tmp_path: Path) -> None:
    jets = make_jets(800, batch_size=100)
    jets.labels_J = torch.randint(0, 2, (800,), generator=torch.Generator().manual_seed(3))
    model = make_model(dropout=0.0, norm="none", widths=[1])
    assert verdicts(tmp_path, model=model, train=jets, epochs=8, optimiser={"lr": 0.01})[0] == "underfitting"


@pytest.mark.parametrize(("limit", "said"), [(1e-3, True), (1e3, False)])
def test_clipping_all_the_time(tmp_path: Path, limit: float, said: bool) -> None:
    result = result_of(tmp_path, gradient_clip=limit, epochs=6)
    assert ("always clipped" in [one.verdict for one in result.advice]) is said
    assert all(record.clipped == float(said) for record in result.history)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["clipped"] for row in rows] == [float(said)] * 6
