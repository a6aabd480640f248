"""float16 with a scaled loss: steps that are left out are counted, its state is part of a checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch

from jettagger.errors import JettaggerError
from jettagger.training import device, scaling
from jettagger.training.checkpoints import LAST, load_weights
from jettagger.training.device import Hardware, choose_hardware
from jettagger.training.loop import train_member
from memory import equal, make_jets, make_model, make_training

HALF = Hardware(torch.device("cpu"), bfloat16=False, float16=True)
"""No CPU is asked to train in float16, but PyTorch can do it: the scaling is tested for real."""


def state_of(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / LAST, weights_only=True)["content"]["state"]
    return state


def test_float16_learns_what_float32_learns(tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimiser": {"lr": 0.02}, "epochs": 10}
    single = train_member(make_training(tmp_path / "single", **options))
    half = train_member(make_training(tmp_path / "half", hardware=HALF, **options))
    assert half.best_loss == pytest.approx(single.best_loss, abs=0.05)
    assert half.best_loss != single.best_loss
    assert half.history[-1].gradient_norm == pytest.approx(single.history[-1].gradient_norm, rel=0.3)
    assert all(x.dtype == torch.float32 for x in load_weights(half.weights).values() if x.is_floating_point())


@pytest.mark.parametrize("optimiser", ["adamw", "sgd", "radam", "ranger"])
def test_infinite_steps_are_left_out_and_counted(
    tmp_path: Path, optimiser: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scale of 2**24 overflows float16 until it has been halved often enough."""
    options: dict[str, Any] = {
        "optimiser": {"name": optimiser, "lr": 0.01},
        "schedule": "constant",
        "epochs": 4,
    }
    training = make_training(tmp_path, hardware=HALF, train=make_jets(batch_size=8), **options)
    training.progress.quiet = False

    def large(hardware: Hardware, optimiser: torch.optim.Optimizer) -> torch.amp.GradScaler:
        assert scaling.scaler_of(hardware, optimiser) is not None
        return torch.amp.GradScaler("cpu", init_scale=2.0**24)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jettagger.training.beginning.scaler_of", large)
        history = train_member(training).history
    left_out = sum(record.left_out for record in history)
    assert 0 < history[0].left_out < 12
    assert state_of(tmp_path)["scaler"]["scale"] == 2.0 ** (24 - left_out)
    assert 0 < history[0].gradient_norm < 100
    assert f", {history[0].left_out} of the steps left out (float16)" in capsys.readouterr().err
    steps = {int(x["step"]) for x in state_of(tmp_path)["optimiser"]["state"].values() if "step" in x}
    assert steps <= {48 - left_out}, "the optimiser knows nothing of them"


def test_a_gradient_that_stays_infinite_ends_the_training(tmp_path: Path) -> None:
    jets = make_jets(batch_size=2)
    model = make_model(dropout=0.0, norm="none")
    model.head[0].linear.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        JettaggerError, match=r"not finite in epoch 1, batch 40 of 48 .*gradient norm (nan|inf)"
    ):
        train_member(make_training(tmp_path, model, hardware=HALF, train=jets))
    assert scaling.MOST_IN_A_ROW == 40


def test_a_broken_jet_is_no_overflow(tmp_path: Path) -> None:
    jets = make_jets()
    jets.jet_JF[17, 1] = 1.0e30
    with pytest.raises(JettaggerError, match=r"\(jets 17\)"):
        train_member(make_training(tmp_path, hardware=HALF, train=jets))


def test_the_scale_goes_on_where_it_was(tmp_path: Path) -> None:
    options: dict[str, Any] = {"hardware": HALF, "checkpoint_seconds": 1.0e-9}
    alone = train_member(make_training(tmp_path / "alone", **options))
    cut = make_training(tmp_path / "cut", **options)
    whole = cut.train.epoch

    def broken(epoch: int, start: int = 0) -> Any:
        for number, batch in enumerate(whole(epoch, start), start):
            if (epoch, number) == (1, 3):
                raise JettaggerError("the disk is gone")
            yield batch

    cut.train.epoch = broken  # type: ignore[method-assign]
    with pytest.raises(JettaggerError, match="the disk is gone"):
        train_member(cut)
    assert state_of(tmp_path / "cut")["scaler"]["scale"] < 2.0**16
    resumed = train_member(make_training(tmp_path / "cut", **options), resume=True)
    assert equal(load_weights(resumed.weights), load_weights(alone.weights))
    assert state_of(tmp_path / "cut")["scaler"] == state_of(tmp_path / "alone")["scaler"]


def test_a_resumed_training_keeps_its_precision(tmp_path: Path) -> None:
    train_member(make_training(tmp_path, hardware=HALF, epochs=1))
    with pytest.raises(JettaggerError, match="precision in use: 'float16' → 'float32'"):
        train_member(make_training(tmp_path, epochs=1), resume=True)


@pytest.mark.parametrize(
    ("precision", "needed"),
    [
        ("float16", r"it needs a CUDA device of compute capability 7\.0"),
        ("tf32", r"it needs a CUDA device of compute capability 8\.0"),
    ],
)
def test_a_cpu_has_neither(precision: Any, needed: str) -> None:
    with pytest.raises(
        JettaggerError, match=rf"precision: {precision} asked for, but cpu .* has none \({needed}\)"
    ):
        choose_hardware("cpu", precision)


@pytest.mark.parametrize(
    ("capability", "precision", "allowed"),
    [((7, 0), "float16", True), ((6, 1), "float16", False), ((7, 5), "tf32", False), ((8, 6), "tf32", True)],
)
def test_what_a_gpu_has(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: Any, allowed: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    if not allowed:
        with pytest.raises(JettaggerError, match=rf"{precision} asked for, but cuda:0 \(Some GPU\) has none"):
            device.choose_hardware("cuda", precision)
        return
    hardware = device.choose_hardware("cuda", precision)
    assert hardware.precision == precision
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with hardware.products():
        assert (
            torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is (precision == "tf32")
        )
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
