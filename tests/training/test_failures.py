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

import pytest
import torch

from jettagger.batch import Batch
from jettagger.errors import JettaggerError
from jettagger.training.checkpoints import LAST, load_last, load_weights
from jettagger.training.loop import train_member
from jettagger.training.training import Training
from memory import MemoryBatches, equal, make_jets, make_training


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
