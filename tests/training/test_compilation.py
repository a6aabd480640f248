"""torch.compile and CUDA graphs: the same results, or a message and the network as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from jettagger.errors import JettaggerError
from jettagger.models.parts.model import JetModel
from jettagger.training.checkpoints import load_weights
from jettagger.training.compilation import runner_of
from jettagger.training.device import Hardware
from jettagger.training.loop import train_member
from jettagger.training.schema import TrainingSection
from memory import equal, make_jets, make_model, make_training

CPU = Hardware(torch.device("cpu"), bfloat16=False)
GPU = Hardware(torch.device("cuda:0"), bfloat16=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled(tmp_path: Path) -> None:
    """With dropout and BatchNorm, for real; a machine without a C++ compiler says so."""
    alone = train_member(make_training(tmp_path / "alone"))
    training = make_training(tmp_path / "compiled", compile=True)
    said: list[str] = []
    training.progress.say = said.append  # type: ignore[method-assign]
    before = {name: x.clone() for name, x in training.model.named_buffers()}
    compiled = train_member(training)
    if any("torch.compile failed" in line for line in said):
        pytest.skip(said[0])
    first, second = load_weights(alone.weights), load_weights(compiled.weights)
    assert not equal(first, second), "compiled code rounds in another order"
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-3, atol=1e-4)
    assert before.keys() == dict(training.model.named_buffers()).keys()
    with pytest.raises(JettaggerError, match=r"network runs: 'compiled' → None"):
        train_member(make_training(tmp_path / "compiled"), resume=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import torch._inductor.config as settings

    def network() -> JetModel:  # not that of another test: what is compiled already needs no compiler
        return make_model(activation="tanh")

    alone = train_member(make_training(tmp_path / "alone", network()))
    monkeypatch.setattr(settings.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    training = make_training(tmp_path / "compiled", network(), compile=True)
    training.progress.quiet = False
    result = train_member(training)
    said = capsys.readouterr().err
    assert "torch.compile failed (" in said
    assert "): the network runs as it is" in said
    assert equal(load_weights(result.weights), load_weights(alone.weights)), "the trial leaves nothing behind"
    train_member(make_training(tmp_path / "compiled", network()), resume=True)


def recording(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """A stand-in for CUDA graphs: notes what is replayed, and moves the statistics while it warms up."""
    replayed: list[torch.Size] = []

    def graphed(module: nn.Module, samples: tuple[Tensor, ...]) -> nn.Module:
        module(*samples).sum().backward()

        class Replayed(nn.Module):
            def forward(self, x_BF: Tensor) -> Tensor:
                assert x_BF.shape == samples[0].shape, "a graph takes one shape only"
                replayed.append(x_BF.shape)
                result: Tensor = module(x_BF)
                return result

        return Replayed()

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", graphed)
    return replayed


def test_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    replayed = recording(monkeypatch)
    jets = make_jets(40)
    whole, *_, rest = jets.epoch(0)
    model, section = make_model(dropout=0.0), TrainingSection(cuda_graphs=True)
    before = {name: x.clone() for name, x in model.named_buffers()}
    runner = runner_of(model, section, GPU, whole.inputs)
    assert (runner.mode, runner.remark) == ("recorded", None)
    assert all(torch.equal(x, before[name]) for name, x in model.named_buffers())
    assert all(p.grad is None for p in model.parameters())
    model.eval()
    for batch in (whole, rest):
        assert torch.equal(runner.network(batch.inputs), model(batch.inputs))
    assert replayed == [torch.Size([16, 3])], "the smaller last batch runs as it is"


def broken(*given: Any) -> None:
    raise RuntimeError("operation not permitted when stream is capturing\nmore")


@pytest.mark.parametrize(
    ("hardware", "dropout", "graphed", "reason"),
    [
        (CPU, 0.0, None, "they are for CUDA devices, not cpu"),
        (GPU, 0.2, None, "dropout draws anew in each step"),
        (
            GPU,
            0.0,
            broken,
            r"recording failed \(RuntimeError: operation not permitted when stream is capturing\)",
        ),
    ],
)
def test_not_recorded(
    monkeypatch: pytest.MonkeyPatch,
    hardware: Hardware,
    dropout: float,
    graphed: Callable[..., None] | None,
    reason: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", graphed)
    model = make_model(dropout=dropout)
    runner = runner_of(model, TrainingSection(cuda_graphs=True), hardware, next(make_jets().epoch(0)).inputs)
    assert (runner.network, runner.mode) == (model, "eager")
    assert runner.remark is not None
    with pytest.raises(AssertionError, match=rf"no CUDA graphs: {reason}; the network runs as it is"):
        raise AssertionError(runner.remark)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"compile": True, "cuda_graphs": True},
            "compile and cuda_graphs do not go together: take one of them",
        ),
        (
            {"compile": True, "activation_checkpointing": True},
            "compile and activation_checkpointing do not go",
        ),
        ({"cuda_graphs": True, "accumulate": 2}, "cuda_graphs and accumulate do not go together"),
    ],
)
def test_what_does_not_go_together(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingSection.model_validate(given)


@pytest.mark.gpu
def test_recorded_on_cuda(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    hardware = Hardware(torch.device("cuda:0"), bfloat16=False)
    options: dict[str, Any] = {"hardware": hardware, "epochs": 3}
    alone = train_member(make_training(tmp_path / "alone", make_model(dropout=0.0), **options))
    graphs = train_member(
        make_training(tmp_path / "graphs", make_model(dropout=0.0), cuda_graphs=True, **options)
    )
    assert graphs.best_loss == pytest.approx(alone.best_loss, abs=1e-4)
