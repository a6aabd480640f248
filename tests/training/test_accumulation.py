"""A batch in parts gives the step of the whole batch, to rounding: same masks, same reflections, same weights."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from jettagger.batch import Batch, CollectionInput, Feature, InputSpec
from jettagger.errors import JettaggerError
from jettagger.models import build, config_class
from jettagger.models.parts.model import JetModel
from jettagger.randomness import torch_generator
from jettagger.training import beginning, loop, shortage
from jettagger.training.accumulation import cuts, even_sizes, part_of
from jettagger.training.augmentation import Mirror
from jettagger.training.checkpoints import load_weights
from jettagger.training.loop import train_member
from memory import equal, make_jets, make_model, make_training

SPEC = InputSpec(
    jet=(Feature("pt", "none"), Feature("mass", "none"), Feature("girth", "none")),
    collections=(CollectionInput("particles", (Feature("d0", "none"), Feature("z0", "none")), 5),),
)


def make_network(architecture: str) -> JetModel:
    """With dropout of particles and of jets, without BatchNorm."""
    if architecture == "mlp":
        return make_model(norm="none")
    options: dict[str, Any] = {"widths": [8, 8], "dense": [8], "dropout": {"particles": 0.3, "dense": 0.2}}
    config = config_class(architecture).model_validate({"architecture": architecture, **options})
    model = build(config, SPEC, 2, torch_generator(1, "initialisation", 0))
    model.fit_inputs(make_jets().batch(torch.arange(96)).inputs)
    return model


@pytest.mark.parametrize("architecture", ["mlp", "particle_cnn"])
@pytest.mark.parametrize("parts", [2, 5])
def test_parts_give_the_step_of_the_whole(tmp_path: Path, architecture: str, parts: int) -> None:
    options: dict[str, Any] = {
        "gradient_clip": 0.5,
        "label_smoothing": 0.1,
        "optimiser": {"name": "sgd", "lr": 0.05},
        "mirror": Mirror({"phi": ["jet.girth", "particles.d0"]}, SPEC),
    }
    whole = train_member(make_training(tmp_path / "whole", make_network(architecture), **options))
    result = train_member(
        make_training(tmp_path / "parts", make_network(architecture), accumulate=parts, **options)
    )
    first, second = load_weights(whole.weights), load_weights(result.weights)
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-4, atol=1e-6)
    for one, other in zip(whole.history, result.history, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-6)
        assert other.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-5)


def test_more_parts_than_jets(tmp_path: Path) -> None:
    jets = make_jets(7, batch_size=3)
    train_member(make_training(tmp_path, make_network("particle_cnn"), train=jets, accumulate=50))


def test_batch_norm_is_said_to_see_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = make_training(tmp_path / "parts", accumulate=4, swa={})
    training.progress.quiet = False
    train_member(training)
    assert "BatchNorm takes its statistics from each of the 4 parts of a batch" in capsys.readouterr().err


def test_the_decorrelation_is_said_to_see_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decorrelate = {"variable": "mass", "background": "QCD", "strength": 1.0}
    training = make_training(tmp_path, make_network("mlp"), accumulate=4, decorrelate=decorrelate)
    training.progress.quiet = False
    beginning.on_device(training)
    said = capsys.readouterr().err
    assert "the decorrelation takes dCor² from each of the 4 parts of a batch, not from the whole" in said
    assert "BatchNorm" not in said


def test_resuming_keeps_the_parts(tmp_path: Path) -> None:
    train_member(make_training(tmp_path, epochs=1))
    with pytest.raises(JettaggerError, match=r"training\.accumulate: 1 → 2"):
        train_member(make_training(tmp_path, epochs=1, accumulate=2), resume=True)


def test_parts_put_together_are_the_batch() -> None:
    batch = next(make_jets().epoch(0))
    assert even_sizes(16, 3) == [5, 5, 6]
    assert even_sizes(2, 3) == [1, 1]
    for inputs in (batch.inputs, batch.inputs.dense()):
        parts = [
            part_of(Batch(inputs, batch.labels_B, batch.weights_B, batch.index_B), cut)
            for cut in cuts(inputs, even_sizes(16, 3))
        ]
        assert torch.equal(torch.cat([part.index_B for part in parts]), batch.index_B)
        dense = [part.inputs.dense({"particles": 5}).collections["particles"] for part in parts]
        whole = inputs.dense({"particles": 5}).collections["particles"]
        slots = min(x.features_BPF.shape[1] for x in [*dense, whole])
        together = torch.cat([x.features_BPF[:, :slots] for x in dense])
        assert torch.equal(together, whole.features_BPF[:, :slots])
        assert [part.part.jets.first for part in parts] == [0, 5, 10]


def test_activations_computed_again_change_no_bit(tmp_path: Path) -> None:
    options: dict[str, Any] = {"ema": 0.9, "optimiser": {"lr": 0.02}}
    whole = train_member(make_training(tmp_path / "whole", **options))
    again = train_member(make_training(tmp_path / "again", activation_checkpointing=True, **options))
    assert equal(load_weights(again.weights), load_weights(whole.weights))
    resumed = train_member(make_training(tmp_path / "again", **options), resume=True)
    assert equal(load_weights(resumed.weights), load_weights(whole.weights))


SHORT = """
import resource, sys
from pathlib import Path
import torch
from jettagger.errors import JettaggerError
from jettagger.training.loop import train_member
from memory import make_jets, make_model, make_training
torch.set_num_threads(1)
training = make_training(
    Path(sys.argv[1]), make_model(widths=[512, 512, 512]), train=make_jets(65536, batch_size=65536), epochs=1
)
train_member(make_training(Path(sys.argv[1]) / "warm", epochs=1))
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 600 * 2**20, held + 600 * 2**20))
try:
    train_member(training)
except JettaggerError as error:
    print(error)
"""


@pytest.mark.slow
def test_no_memory_is_answered_with_what_fits(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SHORT, str(tmp_path)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = re.match(
        r"no memory on cpu for a step of 65536 jets \(.*\); (\d+) jets at a time fit: training\.accumulate: (\d+) "
        r"keeps the batch, training\.batch_size: (\d+) makes smaller ones",
        done.stdout,
    )
    assert found, done.stdout
    jets, parts, smaller = map(int, found.groups())
    assert 1024 <= jets == smaller <= 32768
    assert jets * parts == 65536


def test_shortages_are_told_from_other_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shortage.is_shortage(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert shortage.is_shortage(MemoryError())
    assert not shortage.is_shortage(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))

    def broken(*given: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(loop, "make_step", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train_member(make_training(tmp_path))


def test_not_even_one_jet_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def short(training: Any, state: Any, batch: Batch, *more: Any) -> None:
        tried.append(len(batch))
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    monkeypatch.setattr(loop, "make_step", short)
    monkeypatch.setattr(loop, "add_gradient", short)
    with pytest.raises(
        JettaggerError, match=r"16 jets in 2 parts \(CUDA out of memory\); not even one jet fits"
    ):
        train_member(make_training(tmp_path, accumulate=2))
    assert tried == [16, 4, 2, 1]
