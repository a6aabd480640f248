"""`batch_size: all`: gradient descent, a step an epoch over all training jets."""

import json

import pytest

from jettagger import configuration
from jettagger.data.batches import Batches
from jettagger.errors import JettaggerError
from jettagger.training import run
from jettagger.training.execution import not_vectorised
from jettagger.training.schema import TrainingSection

DESCENT = (
    "training.batch_size=all",
    "training.optimiser={name: sgd, lr: 0.1, momentum: 0.0}",
    "training.epochs=3",
)


def train(toy_folder, output, *overrides):
    fixed = ("training.precision=float32", "training.schedule=constant", "baselines={}")
    loaded = configuration.load(toy_folder / "config.yaml", [*DESCENT, *fixed, *overrides])
    return run.train(configuration.recipe(loaded), output, say=lambda line: None)


def test_a_step_an_epoch(toy_folder, tmp_path):
    [result] = train(toy_folder, tmp_path / "all").members
    assert [record.step for record in result.history] == [1, 2, 3]
    losses = [record.train_loss for record in result.history]
    assert losses == sorted(losses, reverse=True)
    jets = result.jets // 3
    number = train(toy_folder, tmp_path / "number", f"training.batch_size={jets}").members[0]
    assert [r.train_loss for r in number.history] == pytest.approx(losses, rel=1e-5)
    parts = train(toy_folder, tmp_path / "parts", "training.accumulate=5").members[0]
    assert [r.train_loss for r in parts.history] == pytest.approx(losses, rel=1e-5)
    stored = json.loads((tmp_path / "all" / "member_0" / "result.json").read_text())
    assert stored["jets"] == 3 * jets


def test_jets_pass_in_parts():
    section = TrainingSection.model_validate({"batch_size": "all"})
    assert (section.for_jets(5000).batch_size, section.for_jets(5000).accumulate) == (5000, 5)
    assert (section.for_jets(100).batch_size, section.for_jets(100).accumulate) == (100, 1)
    asked = TrainingSection.model_validate({"batch_size": "all", "accumulate": 3})
    assert asked.for_jets(5000).accumulate == 3
    assert TrainingSection().for_jets(5000) == TrainingSection()


def test_members_take_turns():
    """In one pass all jets would go through all networks at once."""
    assert not_vectorised(TrainingSection()) is None
    words = "passes the jets in parts, which is only known to the loop"
    assert words in str(not_vectorised(TrainingSection.model_validate({"batch_size": "all"})))


def test_more_than_memory_should_hold(toy_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(Batches.__init__.__kwdefaults__, "pool_bytes", 1000)
    with pytest.raises(
        JettaggerError, match=r"batch_size: all: one step would hold \d+ jets of \d+ bytes, more"
    ):
        train(toy_folder, tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["training.lr_scaling={name: linear, reference: 16}"],
            "lr_scaling follows the number of jets in a step",
        ),
        (["training.batch_size=al"], r"training\.batch_size: .*all"),
        (["training.batch_size=0"], r"training\.batch_size: .*1"),
    ],
)
def test_mistakes(toy_folder, overrides, message):
    with pytest.raises(JettaggerError, match=message) as found:
        configuration.load(toy_folder / "config.yaml", [*DESCENT, *overrides])
    print(found.value)
