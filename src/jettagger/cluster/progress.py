"""How far the training of one network is, read off its folder, its job's files and the queue."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jettagger.cluster.script import AGAIN

State = Literal["waiting", "running", "interrupted", "failed", "done"]

SILENT = 900
"""Seconds without a sign of life after which a training that no scheduler knows is taken for interrupted."""


@dataclass(frozen=True)
class Figures:
    """What a network is worth on the validation jets."""

    validation_loss: float
    auc: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Epoch(Figures):
    """What a line of metrics.jsonl says of one epoch."""

    epoch: int
    """From 1."""


@dataclass(frozen=True)
class Member:
    """The training of one network."""

    fold: int | None
    member: int
    state: State
    reason: str | None
    """Why it has failed or waits, where that is known."""
    epochs: int
    """Done."""
    of_epochs: int
    last: Epoch | None
    best: Epoch | None
    """The epoch with the lowest validation loss: its weights are kept, where no mean is."""
    mean: Figures | None
    """Of the mean of the weights that `training.swa` keeps; None without it, and for a training that is not done."""
    checkpoint_age: float | None
    """Seconds since a checkpoint was written; None without one, and for a training that is done."""
    job: str | None
    """Number and task in the scheduler, such as 123_4."""
    kills: int
    """How often its process was killed."""

    @property
    def kept(self) -> Figures | None:
        """Of the weights that are kept; None before the first epoch has ended."""
        return self.best if self.mean is None else self.mean

    @property
    def name(self) -> str:
        """`member 1`, or `fold 2, member 1`."""
        return f"member {self.member}" if self.fold is None else f"fold {self.fold}, member {self.member}"


@dataclass(frozen=True)
class Work:
    """The task of a job that trains a network."""

    id: str
    """Of the job, and of the task in it where it has several."""
    task: str
    """By which its files are called."""
    files: Path
    """Where they lie: how it ended, how often it was killed."""
    logs: Path
    queue: str | None
    """What the scheduler says of it; None where it is not alive."""
    known: bool
    """Whether the scheduler could be asked."""

    @property
    def status(self) -> int | None:
        """With what its last attempt ended; None while it has not."""
        text = _text(self.files / f"{self.task}.status").strip()
        return int(text) if text.isdecimal() else None

    @property
    def kills(self) -> int:
        """How often its process was killed."""
        return len(_text(self.files / f"{self.task}.killed").splitlines())

    @property
    def error(self) -> str:
        """The last error in its newest log."""
        logs = sorted(self.logs.glob(f"{self.task}_*.log"), key=lambda path: path.stat().st_mtime)
        lines = _text(logs[-1]).splitlines() if logs else []
        said = [line.partition("error: ")[2] for line in lines if line.startswith("jettagger: error: ")]
        where = f", see {logs[-1]}" if logs else ""
        return f"{said[-1]}{where}" if said else f"exit status {self.status}{where}"


def look(folder: Path, fold: int | None, member: int, epochs: int, work: Work | None) -> Member:
    """How far the network is whose folder this is."""
    history = _history(folder)
    result = _document(folder / "result.json")
    done = result is not None
    written = [path.stat().st_mtime for path in _checkpoints(folder)]
    age = time.time() - max(written) if written and not done else None
    state, reason = ("done", None) if done else _state(folder, age, work)
    return Member(
        fold=fold,
        member=member,
        state=state,
        reason=reason,
        epochs=len(history),
        of_epochs=epochs,
        last=history[-1] if history else None,
        best=min(history, key=lambda epoch: epoch.validation_loss, default=None),
        mean=_mean(result or {}),
        checkpoint_age=age,
        job=work.id if work is not None else None,
        kills=work.kills if work is not None else 0,
    )


def _state(folder: Path, age: float | None, work: Work | None) -> tuple[State, str | None]:
    """The state of a training that is not done, and why."""
    if work is not None and work.queue is not None:
        state, _, reason = work.queue.partition(" ")
        if state == "running":
            return "running", None
        begun: State = "interrupted" if folder.exists() else "waiting"
        return begun, f"{'held' if state == 'held' else 'in the queue'} {reason}".strip()
    if failure := _document(folder / "failed.json"):
        return "failed", str(failure.get("reason", "no reason given"))
    status = work.status if work is not None else None
    if work is not None and status not in (None, 0, AGAIN):
        return "failed", work.error
    if (folder / "interrupted.json").exists() or status == AGAIN:
        return "interrupted", "the same command goes on"
    if not folder.exists():
        if work is not None and work.known:
            return "failed", "its job is gone and never began: was it cancelled?"
        return "waiting", None
    if work is not None and work.known:
        return "interrupted", "its job is gone"
    return _by_signs_of_life(folder, age)


def _by_signs_of_life(folder: Path, age: float | None) -> tuple[State, str | None]:
    newest = max((path.stat().st_mtime for path in folder.iterdir()), default=folder.stat().st_mtime)
    silent = time.time() - newest
    if silent < SILENT:
        return "running", None
    return "interrupted", f"no sign of life for {silent / 60:.0f} min"


def _history(folder: Path) -> list[Epoch]:
    """The complete epochs; a last line that is being written is left out."""
    epochs = []
    for line in _text(folder / "metrics.jsonl").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break
        figures = record["validation_loss"], record.get("auc"), record.get("accuracy")
        epochs.append(Epoch(*figures, record["epoch"]))
    return epochs


def _mean(result: Mapping[str, Any]) -> Figures | None:
    if result.get("mean_loss") is None:
        return None
    return Figures(result["mean_loss"], result.get("mean_auc"), result.get("mean_accuracy"))


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.pt") if not path.name.startswith(".")]


def _document(path: Path) -> Mapping[str, Any] | None:
    text = _text(path)
    return dict(json.loads(text)) if text else None


def _text(path: Path) -> str:
    """What a file says; nothing where it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
