"""Trains in children that are killed one after the other, then once to the end.

`killed.py SERIES`: a JSON list of {folder, kills, seconds}; kills are [where, count], the child dies when it
reaches `where` for the count-th time. All are forked from one process, so that PyTorch is imported once.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # optimisers import it at their first step, which takes seconds

from jettagger.training import checkpoints, loop
from jettagger.training.training import MemberResult
from memory import make_training

OPTIONS: dict[str, Any] = {
    "epochs": 4,
    "threads": 1,
    "ema": 0.9,
    "gradient_clip": 1.0,
    "schedule": {"name": "plateau", "patience": 0, "warm_up": 0.2},
    "optimiser": {"name": "adamw", "lr": 2.0e-2},
}


def train(folder: Path, seconds: float | None) -> MemberResult:
    """One attempt; goes on where the last one ended."""
    return loop.train_member(make_training(folder, checkpoint_seconds=seconds, **OPTIONS), resume=True)


def arm(where: str, count: int) -> None:
    """Lets this process die at the count-th arrival at `where`."""

    def die(half: bytes | None = None, path: Path | None = None) -> None:
        nonlocal count
        count -= 1
        if count == 0:
            if path is not None and half is not None:
                path.write_bytes(half)
            os.kill(os.getpid(), signal.SIGKILL)

    if where == "step":
        loop.make_step = before(loop.make_step, die)
    elif where == "record":  # last.pt is written, its line in metrics.jsonl is not
        loop.metrics_line = before(loop.metrics_line, die)
    elif where == "best":  # best.pt is written, last.pt is not
        checkpoints.save_last = before(checkpoints.save_last, die)
    elif where == "rename":  # last.pt is moved away, the new one is not in its place yet
        Path.replace = after(Path.replace, die)  # type: ignore[method-assign]
    elif where == "write":  # half of a file is there
        whole = checkpoints._write

        def write(path: Path, content: dict[str, Any]) -> None:
            whole(path, content)
            die(path.read_bytes()[: path.stat().st_size // 2], path)

        checkpoints._write = write


def before(function: Callable[..., Any], die: Callable[[], None]) -> Callable[..., Any]:
    def called(*arguments: Any, **named: Any) -> Any:
        die()
        return function(*arguments, **named)

    return called


def after(function: Callable[..., Any], die: Callable[[], None]) -> Callable[..., Any]:
    def called(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        die()
        return result

    return called


def main() -> None:
    torch.set_num_threads(1)
    for series in json.loads(sys.argv[1]):
        for where, count in [*series["kills"], ["nowhere", 1]]:
            child = os.fork()
            if child == 0:
                arm(where, count)
                train(Path(series["folder"]), series["seconds"])
                os._exit(0)
            died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            outcome = "killed" if died == -signal.SIGKILL else f"ended with {died}"
            print(series["folder"], where, count, outcome, flush=True)


if __name__ == "__main__":
    main()
