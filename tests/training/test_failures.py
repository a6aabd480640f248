"""What may befall a training: a full disk, files that vanish. A clear end, a usable checkpoint, nothing lost."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from jettagger.batch import Batch
from jettagger.data.batches import Batches
from jettagger.data.prepared import prepare
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError
from jettagger.models import build
from jettagger.models.mlp import Config as MlpConfig
from jettagger.randomness import torch_generator
from jettagger.training import loop, step
from jettagger.training.augmentation import Mirror
from jettagger.training.checkpoints import LAST, load_last, load_weights
from jettagger.training.loop import train_member
from jettagger.training.training import Training
from memory import SPEC, MemoryBatches, equal, make_jets, make_training
from toy_jets import CONFIG, toy_jets, write_jets


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@dataclass
class Befallen(MemoryBatches):
    """Batches at whose step `at` something happens."""

    at: int = 0
    happens: Callable[[], None] = lambda: None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for number, batch in enumerate(super().epoch(epoch, start), epoch * self.steps + start):
            if number == self.at:
                self.happens()
            yield batch


def befallen(at: int, happens: Callable[[], None]) -> Befallen:
    return Befallen(**{**vars(make_jets()), "at": at, "happens": happens})


def step_of(training: Training) -> int:
    state, remarks = load_last(
        training.directory, {**training.config, "member": 0, "precision in use": training.hardware.precision}
    )
    assert state is not None
    assert remarks == []
    return int(state["step"])


@pytest.mark.parametrize("seconds", [None, 1.0e-9], ids=["at the end of an epoch", "after a step"])
def test_a_full_disk(small_disk: Path, tmp_path: Path, seconds: float | None) -> None:
    alone = train_member(make_training(tmp_path / "alone"))
    folder, filler = small_disk / "run", small_disk / "filler"

    def fill() -> None:
        with suppress(OSError), filler.open("wb", buffering=0) as stream:
            while stream.write(bytes(1024)):
                pass

    training = make_training(folder, train=befallen(8, fill), checkpoint_seconds=seconds)
    message = r"cannot write .*(metrics\.jsonl|\.pt): No space left on device.* --resume goes on with it"
    with pytest.raises(JettaggerError, match=message):
        train_member(training)
    assert not list(folder.glob(".*"))
    assert step_of(training) == (6 if seconds is None else 8)
    filler.unlink()
    resumed = train_member(make_training(folder, checkpoint_seconds=seconds), resume=True)
    assert equal(load_weights(resumed.weights), load_weights(alone.weights))


LIMITED = """
import resource, sys
from pathlib import Path
from jettagger.errors import JettaggerError
from jettagger.training.loop import train_member
from memory import make_model, make_training
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    train_member(make_training(Path(sys.argv[1]), make_model(widths=[256, 256]), epochs=1, threads=1))
except JettaggerError as error:
    print(error)
"""


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    folder = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        **{"capture_output": True, "text": True, "check": True, "cwd": folder, "env": environment},
    )
    assert re.match(
        r"cannot write .*/best.pt: File too large \(.* MB are free\): make room; what was", done.stdout
    )
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_what_was_learned_is_saved_when_the_next_batch_cannot_be_had(tmp_path: Path) -> None:
    alone = train_member(make_training(tmp_path / "alone"))

    def vanish() -> None:
        raise JettaggerError("shard.h5 cannot be read any more: No such file or directory")

    training = make_training(tmp_path / "cut", train=befallen(8, vanish))
    with pytest.raises(JettaggerError, match="cannot be read any more"):
        train_member(training)
    assert step_of(training) == 8
    resumed = train_member(make_training(tmp_path / "cut"), resume=True)
    assert equal(load_weights(resumed.weights), load_weights(alone.weights))


def test_a_learning_rate_that_diverges(tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimiser": {"name": "sgd", "lr": 1.0e30}, "schedule": "constant"}
    training = make_training(tmp_path, checkpoint_seconds=1.0e-9, **options)
    with pytest.raises(JettaggerError, match=r"not finite in epoch 1, batch \d of 6 .*learning rate 1e\+30"):
        train_member(training)
    state = torch.load(tmp_path / LAST, weights_only=True)["content"]["state"]
    assert all(torch.isfinite(x).all() for x in state["model"].values()), "what was saved is from before"


NO_WAITING = ("item", "__bool__", "__float__", "__int__", "__index__")
"""What copies a number from a GPU to the host, and waits for it."""


@pytest.mark.parametrize(
    "options", [{}, {"accumulate": 2}, {"gradient_clip": 0.1, "ema": 0.9, "label_smoothing": 0.1}]
)
def test_a_step_waits_for_no_number(tmp_path: Path, options: dict[str, Any]) -> None:
    """Its sums come to the host in one piece, once in 32 steps on a GPU; labels are looked at where they come from."""
    training = make_training(tmp_path, epochs=2, mirror=Mirror({"phi": ["jet.girth"]}, SPEC), **options)
    made = step.make_step
    steps = 0

    def watched(*given: Any) -> None:
        nonlocal steps
        steps += 1
        state = given[1]
        if state.epoch == 0:  # labels of an epoch's first batches are checked, on the host
            made(*given)
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step, "look", lambda *given: None)
            for name in NO_WAITING:
                patch.setattr(torch.Tensor, name, refused)
            made(*given)
        step.look(*given[:2])

    def refused(*given: Any) -> None:
        raise AssertionError("a step waits for the device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_step", watched)
        train_member(training)
    assert steps == 12


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[..., Training]:
    """A training on prepared jets of which only a few are in memory at a time."""
    for name in ("QCD", "Top"):
        write_jets(tmp_path / f"{name}_train.root", toy_jets(name, 400, 1))
    document = yaml.safe_load(CONFIG.format(folder=tmp_path))
    document["data"]["prepared"] = str(tmp_path / "prepared")
    config = DataConfig.model_validate({k: v for k, v in document.items() if k in DataConfig.model_fields})
    prepared = prepare(config, config.data.train, role="data.train", say=lambda line: None)
    rows = np.arange(len(prepared))

    def build_training(folder: Path) -> Training:
        model = build(MlpConfig(widths=[4]), prepared.spec, 2, torch_generator(1, "initialisation", 0))
        train = Batches(prepared, rows, 40, shuffle=(1, 0), inputs=model.inputs, pool_bytes=6_000)
        model.fit_inputs(train.sample(200, 1))
        assert train.order.pools > 3
        return make_training(
            folder, model, train=train, validation=Batches(prepared, rows[:100], 50), epochs=2
        )

    build_training.shards = list(prepared.directory.rglob("*.h5"))  # type: ignore[attr-defined]
    return build_training


@pytest.mark.parametrize("befalls", ["removed", "cut"])
def test_a_file_that_vanishes(on_disk: Any, tmp_path: Path, befalls: str) -> None:
    """It is removed, or cut in its middle, while the batches of the second epoch are made."""
    alone = train_member(on_disk(tmp_path / "alone"))
    training, shard = on_disk(tmp_path / "cut"), on_disk.shards[0]
    whole, made = shard.read_bytes(), 0
    original = loop.make_step

    def make_step(*given: Any) -> None:
        nonlocal made
        made += 1
        original(*given)
        if made == training.train.steps + 2:
            if befalls == "removed":
                shard.unlink()
            else:
                os.truncate(shard, len(whole) // 2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_step", make_step)
        with pytest.raises(JettaggerError, match=r"\.h5 cannot be read any more: "):
            train_member(training)
    assert step_of(training) == made >= training.train.steps + 2
    shard.write_bytes(whole)
    resumed = train_member(on_disk(tmp_path / "cut"), resume=True)
    assert equal(load_weights(resumed.weights), load_weights(alone.weights))
