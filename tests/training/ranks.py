"""Trains in one or several processes that are forked from this one, so that PyTorch is imported once.

`ranks.py JOBS`: a JSON list of {config, overrides, output, world, resume, double, kill: [rank, step]}. Each rank calls
`run.train` as torchrun would have it; what it says goes to OUTPUT.RANK.txt. Prints the exit statuses of each job.

`torchrun … ranks.py torchrun RANK STEP train CONFIG …` is the command line, but that RANK dies at STEP once.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # optimisers import it at their first step, which takes seconds
import torch.distributed

from jettagger import cli, configuration
from jettagger.batch import Batch
from jettagger.data.batches import Batches
from jettagger.errors import JettaggerError
from jettagger.models.parts.normalisation import FeatureNormalisation
from jettagger.training import assembly, checkpoints, loop, run
from jettagger.training.interruption import STATUS, Interrupted, heeded


def in_float64() -> None:
    """Networks, their inputs after the normalisation, weights: so that two trainings differ by rounding alone."""
    new_model, batch_of, forward = assembly.new_model, Batches.batch_of, FeatureNormalisation.forward
    bundle = run.bundle

    def doubled(*arguments: Any) -> Batch:
        batch: Batch = batch_of(*arguments)
        return replace(batch, weights_B=batch.weights_B.double())

    def bundled(*arguments: Any) -> Any:
        Batches.batch_of, FeatureNormalisation.forward = batch_of, forward  # type: ignore[method-assign]
        return bundle(*arguments)

    run.bundle = bundled
    run.record_costs = lambda *arguments: None  # it runs a network in float32
    assembly.new_model = lambda *arguments: new_model(*arguments).double()
    Batches.batch_of = doubled  # type: ignore[method-assign]
    FeatureNormalisation.forward = lambda self, x: forward(self, x).double()  # type: ignore[method-assign]


def arm(step: int) -> None:
    """Lets this process die when it makes its step number `step`."""
    make_step: Callable[..., None] = loop.make_step

    def make(training: Any, state: Any, batch: Any) -> None:
        if state.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        make_step(training, state, batch)

    loop.make_step = make


def work(job: dict[str, Any], rank: int, port: int) -> int:
    """What one rank does; its exit status."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(job["world"])}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if job.get("double"):
        in_float64()
    if job.get("kill", [-1, 0])[0] == rank:
        arm(job["kill"][1])
    if job.get("hook"):
        HOOKS[job["hook"]](rank)
    recipe = configuration.recipe(configuration.load(Path(job["config"]), job["overrides"]))
    try:
        with heeded():
            run.train(recipe, Path(job["output"]), resume=job.get("resume", False), say=print)
    except JettaggerError as error:
        print("silent" if error.said else "error", error)
        return 2
    except Interrupted as error:
        print("last.pt is there:", Path(job["output"], "member_0", "last.pt").exists())
        print(error)
        return STATUS
    return 0


def bad_jet(rank: int) -> None:
    """Rank 1 gets a jet whose weight is NaN, in the third step."""
    make_step: Callable[..., None] = loop.make_step

    def make(training: Any, state: Any, batch: Batch) -> None:
        if state.step == 2 and rank == 1:
            batch.weights_B[-1] = np.nan
        make_step(training, state, batch)

    loop.make_step = make


def mistake(rank: int) -> None:
    """Rank 1 alone ends with an error in the third step."""
    make_step: Callable[..., None] = loop.make_step

    def make(training: Any, state: Any, batch: Batch) -> None:
        if state.step == 2 and rank == 1:
            raise JettaggerError("a file has vanished")
        make_step(training, state, batch)

    loop.make_step = make


def signalled(rank: int) -> None:
    """Rank 1 alone is asked to stop, in the third step; rank 0 takes a while to save."""
    make_step: Callable[..., None] = loop.make_step
    save: Callable[..., None] = checkpoints.save_last

    def make(training: Any, state: Any, batch: Batch) -> None:
        if state.step == 2 and rank == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        make_step(training, state, batch)

    def slowly(*arguments: Any, **named: Any) -> None:
        time.sleep(1.5)
        save(*arguments, **named)

    loop.make_step = make
    checkpoints.save_last = slowly


HOOKS: dict[str, Callable[[int], None]] = {"bad jet": bad_jet, "mistake": mistake, "signalled": signalled}


def start(job: dict[str, Any], rank: int, port: int) -> int:
    """The process of one rank."""
    child = os.fork()
    if child:
        return child
    status = 1
    with open(f"{job['output']}.{rank}.txt", "a") as file, contextlib.redirect_stdout(file):  # noqa: PTH123
        with contextlib.redirect_stderr(file):
            try:
                status = work(job, rank, port)
            except BaseException:
                traceback.print_exc()
        file.flush()
        os._exit(status)


def under_torchrun(victim: int, step: int) -> None:
    """The command line, in one of the processes that torchrun started; the victim dies in its first life."""
    import faulthandler

    faulthandler.dump_traceback_later(25)
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and int(os.environ["RANK"]) == victim:
        arm(step)
    cli.main()


def main() -> None:
    if sys.argv[1] == "torchrun":
        victim, step = map(int, sys.argv[2:4])
        del sys.argv[1:4]
        under_torchrun(victim, step)
    torch.set_num_threads(1)
    for job in json.loads(sys.argv[1]):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        children = [start(job, rank, port) for rank in range(job["world"])]
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(statuses), flush=True)


if __name__ == "__main__":
    main()
