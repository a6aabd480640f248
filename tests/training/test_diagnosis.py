"""What is said when a loss is NaN or infinite."""

from pathlib import Path
from typing import Any

import pytest
import torch

from jettagger.errors import JettaggerError
from jettagger.training.checkpoints import LAST, load_last
from jettagger.training.loop import train_member
from memory import MemoryBatches, make_jets, make_model, make_training

# Without normalisation and clipping a bad value reaches the network.
BARE: dict[str, Any] = {"norm": "none", "dropout": 0.0}


def message(folder: Path, jets: MemoryBatches, **options: Any) -> str:
    options = {"model": make_model(**BARE), "train": jets, **options}
    with pytest.raises(JettaggerError) as error:
        train_member(make_training(folder, **options))
    return str(error.value)


def test_an_infinite_square(tmp_path: Path) -> None:
    jets = make_jets()
    jets.jet_JF[17, 1] = 3e38
    jets.jet_JF[40, 0] = 4000.0  # extreme, and innocent
    step = next(i for i, batch in enumerate(jets.epoch(0)) if 17 in batch.index_B)
    text = message(tmp_path, jets)
    head, *lines = text.splitlines()
    assert head.startswith("the loss or its gradient is not finite in epoch 1, batch ")
    assert f"batch {step + 1} of 6 (step {step}): learning rate " in head
    assert "gradient norm " in head
    assert "  loss and gradient are finite once jet.mass is replaced by the batch's median" in lines
    assert any(
        line.startswith("  jet.mass: 1 value extreme, the worst 3e+38") and line.endswith("(jets 17)")
        for line in lines
    )
    assert "jet.pt" not in text
    assert "optimiser.lr (0.001 is highest now), gradient_clip: 1.0" in text


def test_two_features_together(tmp_path: Path) -> None:
    jets = make_jets()
    jets.jet_JF[17, 1:] = 3e38
    text = message(tmp_path, jets)
    assert "finite once jet.mass and jet.girth is replaced" in text.replace(
        "girth and jet.mass", "mass and jet.girth"
    )
    assert "jets have no finite loss: jets 17" in text


def test_nothing_of_the_data_is_to_blame(tmp_path: Path) -> None:
    text = message(
        tmp_path, make_jets(), optimiser={"name": "sgd", "lr": 1e30}, schedule="constant", epochs=9
    )
    assert "no feature has values that are not finite or extreme" in text
    assert "a smaller optimiser.lr (1e+30 is highest now)" in text


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    jets = make_jets()
    jets.weights_J[5] = float("nan")
    text = message(tmp_path, jets)
    assert "1 of 16 jets have no finite loss: jets 5" in text
    assert "the weights of jets 5 are not finite: check `weights`" in text


def test_a_lost_network(tmp_path: Path) -> None:
    model = make_model(**BARE)
    torch.nn.init.constant_(next(model.parameters()), torch.nan)
    text = message(tmp_path, make_jets(), model=model)
    assert "weights of the network are no longer finite, the first is " in text


def test_in_the_validation(tmp_path: Path) -> None:
    jets = make_jets(40, stream="validation")
    jets.jet_JF[33, 2] = 3e38
    model = make_model(**BARE)
    with torch.no_grad():
        next(model.parameters()).mul_(100)
    text = message(tmp_path, make_jets(), model=model, validation=jets)
    assert "not finite in the validation after epoch 1: after step 6" in text
    assert "jets have no finite loss: jets 33" in text
    assert "jet.girth: 1 value extreme" in text


def test_the_last_checkpoint_stays(tmp_path: Path) -> None:
    jets = make_jets()

    class Spoilt(MemoryBatches):
        def epoch(self, epoch: int, start: int = 0) -> Any:
            for batch in super().epoch(epoch, start):
                if epoch == 2:
                    assert batch.inputs.jet_BF is not None
                    batch.inputs.jet_BF[0, 0] = 3e38
                yield batch

    spoilt = Spoilt(jets.jet_JF, jets.labels_J, jets.weights_J, jets.batch_size, jets.seed)
    text = message(tmp_path, spoilt, epochs=4)
    assert "in epoch 3, batch 1 of 6 (step 12)" in text
    identity = {**make_training(tmp_path, epochs=4).config, "member": 0, "precision in use": "float32"}
    state, remarks = load_last(tmp_path, identity)
    assert state is not None
    assert state["step"] == 12
    assert all(x.isfinite().all() for x in state["model"].values())
    assert remarks == []
    assert (tmp_path / LAST).exists()
