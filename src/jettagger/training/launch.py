"""Which rank a process is: what its launcher has put into the environment, and which device that gives it."""

import os

import torch

from jettagger.errors import JettaggerError
from jettagger.training.distribution import Ranks


def found_ranks() -> Ranks:
    """Who this process is by its environment, not connected yet. Raises JettaggerError where that makes no sense."""
    if "RANK" not in os.environ and "WORLD_SIZE" not in os.environ:
        if int(os.environ.get("SLURM_PROCID", "0")) > 0:
            raise JettaggerError(
                f"this is task {os.environ['SLURM_PROCID']} of srun, but RANK and WORLD_SIZE are not set, and every"
                " task would train alone: start it as docs/distributed.md says, or with --ntasks=1"
            )
        return Ranks()
    rank, world = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if rank >= world:
        raise JettaggerError(f"RANK is {rank}, but WORLD_SIZE {world}: ranks are counted from 0")
    if world > 1:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if name not in os.environ:
                raise JettaggerError(
                    f"WORLD_SIZE is {world}, but {name} is not set: start ranks with torchrun, which sets it"
                )
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return Ranks(rank, world, _number("LOCAL_RANK", 0, rank), restarts)


def _number(name: str, least: int, default: int | None = None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdecimal() or int(text) < least:
        given = f"is '{text}'" if text else "is not set"
        raise JettaggerError(
            f"the environment's {name} {given}, and has to be a number from {least} on: torchrun sets it"
        )
    return int(text)


def device_of(ranks: Ranks, device: str) -> str:
    """`training.device` of one rank: each has a GPU of its own. Raises JettaggerError where there are too few."""
    if ranks.world == 1 or device == "cpu" or not torch.cuda.is_available():
        return device
    if device.startswith("cuda:"):
        raise JettaggerError(
            f"training.device: {device} would be shared by {ranks.world} ranks; write auto or cuda: each rank takes"
            " the device of its number on its machine"
        )
    count = torch.cuda.device_count()
    if ranks.local >= count:
        raise JettaggerError(
            f"rank {ranks.rank} is number {ranks.local + 1} on its machine, which has {count} CUDA devices: start at"
            f" most --nproc-per-node={count}, or set training.device: cpu"
        )
    return f"cuda:{ranks.local}"
