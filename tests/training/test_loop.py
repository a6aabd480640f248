"""The loop: it learns, stops, repeats itself to the last bit, and writes what it says."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from jettagger.errors import JettaggerError
from jettagger.training.checkpoints import load_history, load_weights
from jettagger.training.device import Hardware, choose_hardware, has_bfloat16
from jettagger.training.loop import train_member
from jettagger.training.progress import Progress
from memory import MemoryBatches, equal, make_jets, make_model, make_training

CPU = Hardware(torch.device("cpu"), bfloat16=False)


def train(folder: Path, **options: Any) -> dict[str, torch.Tensor]:
    return load_weights(train_member(make_training(folder, **options)).weights)


@pytest.mark.parametrize(
    "optimiser",
    [
        {"name": "adamw", "lr": 0.04},
        {"name": "adam", "lr": 0.04},
        {"name": "sgd", "lr": 0.2},
        {"name": "sgd", "lr": 0.1, "nesterov": True},
        {"name": "radam", "lr": 0.2},
        {"name": "ranger", "lr": 0.4},
        {"name": "lion", "lr": 0.01},
        {"name": "adadelta", "lr": 10.0},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_small_set_is_learned_by_heart(tmp_path: Path, optimiser: dict[str, Any]) -> None:
    jets = make_jets(24, batch_size=8)
    model = make_model(widths=[32, 32], dropout=0.0, norm="none")
    training = make_training(
        tmp_path, model, train=jets, validation=jets, epochs=60, optimiser=optimiser, schedule="cosine"
    )
    result = train_member(training)
    assert result.history[-1].train_loss < 0.05
    assert result.history[-1].accuracy == 1.0
    assert result.history[-1].auc == 1.0
    assert result.best_loss == min(record.validation_loss for record in result.history)
    assert result.history[result.best_epoch - 1].validation_loss == result.best_loss
    assert result.jets == 24 * 60


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("one_cycle", 1e-5),
        ("cosine", 1e-5),
        ("flat_then_decay", 1e-4),
        ("step", 1e-4),
        ("plateau", 0.01),
        ("constant", 0.01),
    ],
)
def test_every_schedule_reaches_the_optimiser(tmp_path: Path, schedule: str, expected: float) -> None:
    result = train_member(make_training(tmp_path, schedule=schedule, optimiser={"lr": 0.01}))
    assert result.history[-1].lr == pytest.approx(expected)


def test_the_seed_decides_every_bit(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = train(tmp_path / "first", model=make_model(), ema=0.9)
    torch.manual_seed(2)
    torch.rand(5)
    assert equal(first, train(tmp_path / "second", model=make_model(), ema=0.9))
    assert not equal(first, train(tmp_path / "third", model=make_model(), seed=2, ema=0.9))
    assert not equal(first, train(tmp_path / "fourth", model=make_model(seed=2), ema=0.9))


def test_two_threads_repeat_themselves(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 1, "threads": 2, "train": make_jets(1024, batch_size=512)}
    wide = {"widths": [256]}  # beyond 32768 numbers PyTorch divides the work
    first = train(tmp_path / "first", model=make_model(**wide), **options)
    assert equal(first, train(tmp_path / "second", model=make_model(**wide), **options))


def test_global_random_state_is_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_members_have_their_own_dropout_masks(tmp_path: Path) -> None:
    zero, one = train(tmp_path / "0"), train(tmp_path / "1", member=1, stream=1)
    assert not equal(zero, one)
    assert equal(zero, train(tmp_path / "2", member=1, stream=0))


def test_checkpoints_do_not_change_the_result(tmp_path: Path) -> None:
    rare = train(tmp_path / "rare")
    assert equal(rare, train(tmp_path / "often", checkpoint_seconds=1e-9))


def test_a_doubled_weight_is_a_doubled_jet(tmp_path: Path) -> None:
    jets = make_jets(16, batch_size=32)
    jets.seed = None
    weights_J = torch.ones(16)
    weights_J[[2, 3, 9]] = 2.0
    twice = torch.cat([torch.arange(16), torch.tensor([2, 3, 9])])
    doubled = MemoryBatches(jets.jet_JF, jets.labels_J, weights_J, 32)
    copied = MemoryBatches(jets.jet_JF[twice], jets.labels_J[twice], torch.ones(19), 32)
    options: dict[str, Any] = {"dropout": 0.0, "norm": "none"}
    first = train(tmp_path / "first", model=make_model(**options).double(), train=in_double(doubled))
    second = train(tmp_path / "second", model=make_model(**options).double(), train=in_double(copied))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-10, atol=1e-12)


def in_double(jets: MemoryBatches) -> MemoryBatches:
    return MemoryBatches(jets.jet_JF.double(), jets.labels_J, jets.weights_J.double(), jets.batch_size)


def test_early_stopping(tmp_path: Path) -> None:
    torch.manual_seed(0)
    jets, noise = make_jets(48), make_jets(48, stream="validation")
    noise.labels_J = 1 - noise.labels_J  # the more is learned, the worse it becomes
    options: dict[str, Any] = {"train": jets, "validation": noise, "epochs": 30, "optimiser": {"lr": 0.02}}
    result = train_member(make_training(tmp_path / "a", early_stopping={"patience": 3}, **options))
    assert result.stopped_early
    losses = [record.validation_loss for record in result.history]
    assert len(losses) == result.best_epoch + 3
    assert result.best_loss == min(losses)
    again = train_member(
        make_training(tmp_path / "a", early_stopping={"patience": 3}, **options), resume=True
    )
    assert again.history == result.history
    hard = {"patience": 2, "min_delta": 10.0}
    options["validation"] = make_jets(48, stream="validation")
    result = train_member(make_training(tmp_path / "b", early_stopping=hard, **options))
    assert len(result.history) == 3
    assert result.best_epoch == 1 + result_argmin(result.history), (
        "the best epoch is kept, however little better"
    )


def result_argmin(history: tuple[Any, ...]) -> int:
    losses = [record.validation_loss for record in history]
    return losses.index(min(losses))


def test_the_best_weights_are_kept_and_loaded(tmp_path: Path) -> None:
    training = make_training(tmp_path, epochs=8, optimiser={"lr": 0.1}, ema=0.5)
    result = train_member(training)
    assert equal(training.model.state_dict(), load_weights(result.weights))
    training.model.eval()
    validation = training.validation
    with torch.no_grad():
        losses = weights = 0.0
        for batch in validation.epoch(0):
            losses_B = torch.nn.functional.cross_entropy(
                training.model(batch.inputs), batch.labels_B, reduction="none"
            )
            losses += float((batch.weights_B * losses_B).sum())
            weights += float(batch.weights_B.sum())
    assert losses / weights == pytest.approx(result.best_loss, rel=1e-6)


def test_averaged_weights_differ_from_the_last(tmp_path: Path) -> None:
    assert not equal(train(tmp_path / "plain"), train(tmp_path / "mean", ema=0.9))


def test_label_smoothing_is_not_in_the_validation_loss(tmp_path: Path) -> None:
    jets = make_jets(24, batch_size=8)
    model = make_model(widths=[32, 32], dropout=0.0, norm="none")
    options: dict[str, Any] = {"epochs": 50, "optimiser": {"lr": 0.04}, "schedule": "cosine"}
    result = train_member(
        make_training(tmp_path, model, train=jets, validation=jets, label_smoothing=0.2, **options)
    )
    assert result.history[-1].train_loss == pytest.approx(
        -0.9 * math.log(0.9) - 0.1 * math.log(0.1), abs=0.02
    )
    assert result.history[-1].validation_loss == pytest.approx(-math.log(0.9), abs=0.03)


def test_metrics_are_lines_of_json(tmp_path: Path) -> None:
    result = train_member(make_training(tmp_path, model=make_model(classes=3), epochs=2))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert load_history(tmp_path) == result.history
    assert [row["step"] for row in rows] == [6, 12]
    assert rows[1]["validation_loss"] == result.history[1].validation_loss
    assert rows[0]["auc"] is None, "the third class has no jets"
    assert all(row["seconds"] > 0 and row["gradient_norm"] > 0 for row in rows)


def test_a_line_an_epoch_in_a_batch_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_member(make_training(tmp_path, epochs=2, progress=Progress("member 2/5", 2)))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("member 2/5: epoch 1/2: loss ")
    assert "AUC" in second


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train_member(make_training(tmp_path, epochs=1, tensorboard=True))
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_tensorboard_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(JettaggerError, match=r"TensorBoard is not installed: pip install"):
        train_member(make_training(tmp_path, tensorboard=True))
    train_member(make_training(tmp_path, epochs=1))


def test_no_jets(tmp_path: Path) -> None:
    with pytest.raises(JettaggerError, match="no jets to train on or to validate with"):
        train_member(make_training(tmp_path, validation=make_jets(0)))


def test_weights_that_cancel(tmp_path: Path) -> None:
    jets = make_jets()
    jets.weights_J = -jets.weights_J
    with pytest.raises(JettaggerError, match="weights of the training jets add up to -"):
        train_member(make_training(tmp_path / "a", train=jets))
    with pytest.raises(JettaggerError, match="weights of the validation jets add up to -"):
        train_member(make_training(tmp_path / "b", validation=jets))


def test_bfloat16(tmp_path: Path) -> None:
    if not has_bfloat16(torch.device("cpu")):
        pytest.skip("this processor has no bfloat16")
    hardware = choose_hardware("cpu", "bfloat16")
    options: dict[str, Any] = {"optimiser": {"lr": 0.02}, "epochs": 10}
    single = train_member(make_training(tmp_path / "single", **options))
    half = train_member(make_training(tmp_path / "half", hardware=hardware, **options))
    assert half.best_loss == pytest.approx(single.best_loss, abs=0.05)
    assert half.best_loss != single.best_loss
    weights = load_weights(half.weights)
    assert all(x.dtype == torch.float32 for x in weights.values() if x.is_floating_point())
    assert equal(weights, train(tmp_path / "again", hardware=hardware, **options))
    with pytest.raises(JettaggerError, match="precision in use: 'bfloat16' → 'float32'"):
        train_member(make_training(tmp_path / "half", **options), resume=True)


@pytest.mark.gpu
def test_cuda(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    hardware = choose_hardware("cuda", "float32")
    result = train_member(make_training(tmp_path / "gpu", hardware=hardware, epochs=5))
    alone = train_member(make_training(tmp_path / "cpu", model=make_model(), epochs=5))
    assert result.history[-1].validation_loss == pytest.approx(alone.history[-1].validation_loss, abs=0.1)
    half = choose_hardware("cuda", "auto")
    assert train_member(make_training(tmp_path / "half", hardware=half)).best_loss < 1.0


@pytest.mark.gpu
def test_cuda_names_the_step_that_failed(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    jets = make_jets(batch_size=2)
    jets.jet_JF[17, 1] = float("nan")
    step = next(i for i, batch in enumerate(jets.epoch(0)) if 17 in batch.index_B)
    with pytest.raises(JettaggerError, match=rf"\(step {step}\)"):
        train_member(make_training(tmp_path, train=jets, hardware=choose_hardware("cuda", "float32")))
