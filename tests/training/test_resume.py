"""Killed anywhere and resumed, a training ends in the same weights as one that was left alone."""

import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from killed import OPTIONS, train

from jettagger.errors import JettaggerError
from jettagger.training import loop
from jettagger.training import step as step_module
from jettagger.training.checkpoints import (
    LAST,
    PREVIOUS,
    kept,
    load_last,
    load_weights,
    remove_damaged,
    save_last,
)
from jettagger.training.loop import train_member
from jettagger.training.optimiser_schema import OptimiserName, ScheduleName
from jettagger.training.schema import TrainingSection
from memory import equal, make_training

NO_TIMES = {"seconds", "jets_per_second"}


def lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the times, which differ from run to run."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in NO_TIMES} for row in rows]


def state_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / LAST, weights_only=True)["content"]["state"]
    return content


def assert_same_end(first: Path, second: Path) -> None:
    one, two = state_of(first), state_of(second)
    assert equal(one["model"], two["model"])
    assert (one["average"] is None) == (two["average"] is None)
    assert one["average"] is None or equal(one["average"], two["average"])
    assert one["averaged"] == two["averaged"]
    for index, moments in one["optimiser"]["state"].items():
        assert equal(moments, two["optimiser"]["state"][index])
    assert one["plateau"] == two["plateau"]
    assert equal(load_weights(first / "best.pt"), load_weights(second / "best.pt"))
    assert lines(first) == lines(second)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    train(folder, None)
    return folder


def random_steps(*ranges: tuple[int, int]) -> list[tuple[str, int]]:
    chosen = random.Random(11)
    return [("step", chosen.randint(*bounds)) for bounds in ranges]


SERIES: dict[str, tuple[list[tuple[str, int]], float | None]] = {
    # Without a checkpoint between two kills the training would never end: six steps are an epoch.
    "at random steps, a checkpoint an epoch": (random_steps((7, 12), (7, 12)), None),
    "at random steps, a checkpoint a step": (random_steps((2, 8), (2, 6), (2, 4), (2, 4)), 1.0e-9),
    "while saving": ([("write", 3), ("rename", 4), ("best", 2), ("record", 1), ("write", 1)], 1.0e-9),
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[str]]]:
    """The folder of each series, and what became of its children."""
    folders = {name: tmp_path_factory.mktemp("killed") for name in SERIES}
    series = [{"folder": str(folders[name]), "kills": k, "seconds": s} for name, (k, s) in SERIES.items()]
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), json.dumps(series)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    return {
        name: (folder, [line.removeprefix(f"{folder} ") for line in lines if line.startswith(f"{folder} ")])
        for name, folder in folders.items()
    }


@pytest.mark.parametrize("series", SERIES)
def test_killed_and_resumed(alone: Path, killed: dict[str, tuple[Path, list[str]]], series: str) -> None:
    folder, outcome = killed[series]
    kills = SERIES[series][0]
    assert outcome == [*(f"{where} {count} killed" for where, count in kills), "nowhere 1 ended with 0"]
    assert_same_end(alone, folder)
    assert not list(folder.glob(".*")), "what was written aside is removed"


def test_resuming_a_finished_training_changes_nothing(alone: Path) -> None:
    before = {path.name: path.read_bytes() for path in alone.glob("*.jsonl")}
    result = train(alone, None)
    assert len(result.history) == OPTIONS["epochs"]
    assert {path.name: path.read_bytes() for path in alone.glob("*.jsonl")} == before


class StoppedError(Exception):
    """In place of a signal."""


INTERRUPTED: dict[str, dict[str, Any]] = {
    "momentum": {"optimiser": {"name": "sgd", "lr": 0.05}, "schedule": "step"},
    "nesterov": {"optimiser": {"name": "sgd", "lr": 0.05, "nesterov": True}, "schedule": "cosine"},
    "adam": {"optimiser": {"name": "adam"}, "schedule": "one_cycle", "l1": 1e-3},
    "radam": {"optimiser": {"name": "radam", "lr": 0.02}, "schedule": "flat_then_decay"},
    "ranger": {"optimiser": {"name": "ranger", "lr": 0.02}, "schedule": "constant"},
    "lion": {"optimiser": {"name": "lion", "lr": 1e-3}, "swa": {"start": 0.3, "every": 2}},
    "adadelta": {"optimiser": "adadelta", "swa": {"start": 0.6}, "gradient_clip": 0.5},
    "lookahead": {"optimiser": {"lr": 0.02, "lookahead": {"steps": 5, "share": 0.8}}, "ema": 0.9},
}


def test_all_optimisers_and_schedules_are_interrupted() -> None:
    sections = [TrainingSection.model_validate(options) for options in INTERRUPTED.values()]
    assert {section.optimiser.name for section in sections} >= set(get_args(OptimiserName)) - {"adamw"}
    assert {section.schedule.name for section in sections} >= set(get_args(ScheduleName)) - {"plateau"}


@pytest.mark.parametrize("name", INTERRUPTED)
def test_interrupted_and_resumed(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in each epoch in turn, a step after a checkpoint, and the end is the same to the last bit."""
    options: dict[str, Any] = {"epochs": 3, "checkpoint_seconds": 1e-9, **INTERRUPTED[name]}
    train_member(make_training(tmp_path / "alone", **options))
    for stop in (4, 8, 15):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "make_step", stopping_at(stop))
            with pytest.raises(StoppedError):
                train_member(make_training(tmp_path / "stopped", **options), resume=True)
    train_member(make_training(tmp_path / "stopped", **options), resume=True)
    assert_same_end(tmp_path / "alone", tmp_path / "stopped")


def stopping_at(step: int) -> Any:
    def make_step(training: Any, state: Any, batch: Any) -> None:
        if state.step == step:
            raise StoppedError
        step_module.make_step(training, state, batch)

    return make_step


def test_resume_without_a_checkpoint_starts(tmp_path: Path) -> None:
    assert len(train_member(make_training(tmp_path, epochs=1), resume=True).history) == 1


def test_a_used_folder_is_not_overwritten(tmp_path: Path) -> None:
    train_member(make_training(tmp_path, epochs=1))
    with pytest.raises(JettaggerError, match=r"holds a training: --resume goes on with it"):
        train_member(make_training(tmp_path, epochs=1))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing"])
def test_a_damaged_checkpoint_falls_back(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    training = make_training(tmp_path, epochs=3)
    weights = load_weights(train_member(training).weights)
    last = tmp_path / LAST
    whole = bytearray(last.read_bytes())
    if damage == "missing":
        last.unlink()
    elif damage == "flipped":
        weight = training.model.state_dict()["head.0.linear.weight"].numpy().tobytes()  # of the best epoch
        whole[whole.index(weight)] ^= 0x01
        last.write_bytes(bytes(whole))
    else:
        last.write_bytes(bytes(whole[: len(whole) // 2 if damage == "truncated" else 0]))
    state, remarks = load_last(tmp_path, {**training.config, "member": 0, "precision in use": "float32"})
    assert state is not None
    assert len(state["history"]) == 2
    assert f"going on from {tmp_path / PREVIOUS}, step 12" in remarks[-1]
    if damage != "missing":
        assert "cannot be used: damaged" in remarks[0]
    resumed = train_member(make_training(tmp_path, epochs=3), resume=True)
    assert equal(load_weights(resumed.weights), weights)


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_as_many_checkpoints_are_kept_as_asked_for(tmp_path: Path, keep: int) -> None:
    names = [LAST, PREVIOUS, "previous_2.pt", "previous_3.pt"]
    for step in range(12):
        save_last(tmp_path, {}, {"step": step}, keep=keep)
        assert [path.name for path in kept(tmp_path)] == names[: min(keep, step + 1)]
    for age, path in enumerate(kept(tmp_path)):
        assert torch.load(path, weights_only=True)["content"]["state"]["step"] == 11 - age
    for path in kept(tmp_path)[:-1]:
        path.write_bytes(b"half")
    state, remarks = load_last(tmp_path, {})
    assert state == {"step": 12 - keep}
    assert len(remarks) == (keep if keep > 1 else 0)
    save_last(tmp_path, {}, {"step": 12}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == [LAST], "what is not to be kept any more is removed"


def test_a_damaged_checkpoint_takes_the_place_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fell back is killed while it saves for the first time: the checkpoint that it began with is still there."""
    train_member(make_training(tmp_path, epochs=2))
    (tmp_path / LAST).write_bytes(b"half")

    whole = Path.replace

    def killed(path: Path, target: Path) -> None:
        whole(path, target)
        if target.suffix == ".pt":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        training = make_training(tmp_path, epochs=2, checkpoint_seconds=1.0e-9)
        with pytest.raises(KeyboardInterrupt):
            train_member(training, resume=True)
    state, _ = load_last(tmp_path, {**training.config, "member": 0, "precision in use": "float32"})
    assert state is not None


def test_lines_that_no_checkpoint_knows_are_taken_back(tmp_path: Path) -> None:
    alone = train_member(make_training(tmp_path, epochs=2))
    for path in (tmp_path / LAST, tmp_path / "best.pt"):
        path.unlink()
    resumed = train_member(make_training(tmp_path, epochs=2), resume=True)
    assert [line["epoch"] for line in lines(tmp_path)] == [1, 2]
    assert equal(load_weights(resumed.weights), load_weights(alone.weights))


def test_a_damaged_best_says_how_it_is_made_anew(tmp_path: Path) -> None:
    weights = load_weights(train_member(make_training(tmp_path, epochs=1)).weights)
    (tmp_path / "best.pt").write_bytes(b"half")
    with pytest.raises(
        JettaggerError, match=r"best.pt: damaged .* without result.json beside it, --resume makes"
    ):
        load_weights(tmp_path / "best.pt")
    train_member(make_training(tmp_path, epochs=1), resume=True)
    assert equal(load_weights(tmp_path / "best.pt"), weights)


def test_a_missing_best_says_how_it_is_made_anew(tmp_path: Path) -> None:
    with pytest.raises(
        JettaggerError, match=r"best.pt: cannot be read \(No such file or directory\); without result"
    ):
        load_weights(tmp_path / "best.pt")


def test_what_cannot_be_read_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(2):
        save_last(tmp_path, {}, {"step": step})
    load, last = Path.open, tmp_path / LAST

    def failing(path: Path, *arguments: Any, **named: Any) -> Any:
        if path == last:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return load(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", failing)
    state, remarks = load_last(tmp_path, {})
    assert state == {"step": 0}
    assert "last.pt cannot be used: cannot be read (Input/output error)" in remarks[0]
    remove_damaged(tmp_path)
    assert last.exists()


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    save_last(tmp_path, {}, {"step": 1, "model": {"w": torch.ones(3)}})
    file = torch.load(tmp_path / LAST, weights_only=True)
    file["content"]["state"]["model"]["w"][1] = 2.0
    torch.save(file, tmp_path / LAST)
    with pytest.raises(JettaggerError, match="its checksum does not match; remove"):
        load_last(tmp_path, {})


def test_another_config_is_refused(tmp_path: Path) -> None:
    train_member(make_training(tmp_path, epochs=2))
    for options, difference in [
        ({"epochs": 3}, r"training\.epochs: 2 → 3"),
        ({"epochs": 2, "optimiser": {"lr": 0.1}}, r"training\.optimiser\.lr: 0\.001 → 0\.1"),
        ({"epochs": 2, "member": 1}, r"member: 0 → 1"),
        (
            {"epochs": 2, "optimiser": {"lookahead": {}}},
            r"training\.optimiser\.lookahead\.share: None → 0\.5; .*",
        ),
        ({"epochs": 2, "l1": 0.1}, r"training\.l1: 0\.0 → 0\.1"),
        ({"epochs": 2, "swa": {}}, r"training\.swa\.every: None → 1; .*"),
    ]:
        with pytest.raises(JettaggerError, match=rf"belongs to another config \({difference}\)"):
            train_member(make_training(tmp_path, **options), resume=True)
    train_member(make_training(tmp_path, epochs=2, threads=1, tensorboard=False), resume=True)
