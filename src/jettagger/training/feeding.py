"""How batches reach the device without it waiting for them."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

import torch

from jettagger.batch import Batch
from jettagger.data.batches import Batches
from jettagger.data.prefetch import ahead
from jettagger.data.resident import Resident, fits

AHEAD = 2
"""Batches that are prepared while the device computes."""


def kept_on(batches: Batches, device: torch.device) -> Batches | Resident:
    """The batches with all their jets on the device, if they fit there."""
    return Resident(batches, device) if fits(batches, device) else batches


@contextmanager
def fed(batches: Iterator[Batch], device: torch.device) -> Generator[Iterable[Batch], None, None]:
    """The same batches; for a CUDA device a thread prepares the next ones in pinned memory.

    On a CPU the network's own threads use all cores, and a thread beside them only takes turns with them.
    """
    if device.type != "cuda":
        yield batches
        return
    pinned = ahead((batch if batch.labels_B.is_cuda else batch.pinned() for batch in batches), AHEAD)
    try:
        yield pinned
    finally:
        pinned.close()
