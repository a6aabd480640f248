"""The answer to a step that found no memory: which batch would fit.

Shapes: B jets.
"""

from collections.abc import Callable

import torch

from jettagger.batch import Batch
from jettagger.errors import JettaggerError
from jettagger.training.accumulation import cuts, even_sizes, part_of

Gradient = Callable[[Batch], object]

SHORTAGES = ("can't allocate memory", "not enough memory", "DefaultCPUAllocator", "CUDA out of memory")


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SHORTAGES)


def shortage_of(
    batch: Batch, parts: int, found: str, device: torch.device, gradient: Gradient
) -> JettaggerError:
    """What to tell the user of a batch that found no memory in `parts`: smaller parts are tried until one fits.

    `found` is what the failed step said; `gradient` makes a step's forward and backward pass.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    jets = largest_that_fits(batch, even_sizes(len(batch), parts)[0], lambda part: gradient(part.to(device)))
    reason = found.strip().splitlines()[0].rstrip(".") if found.strip() else "out of memory"
    tried = f"{len(batch)} jets" if parts == 1 else f"{len(batch)} jets in {parts} parts"
    head = f"no memory on {device} for a step of {tried} ({reason})"
    if jets == 0:
        return JettaggerError(f"{head}; not even one jet fits: take a smaller network")
    return JettaggerError(
        f"{head}; {jets} jets at a time fit: training.accumulate: {-(-len(batch) // jets)} keeps the batch,"
        f" training.batch_size: {jets} makes smaller ones; training.activation_checkpointing: true saves memory as well"
    )


def largest_that_fits(batch: Batch, jets: int, gradient: Gradient) -> int:
    """The largest of jets / 2, jets / 4, … for which there is memory; 0 where there is none for one jet."""
    while jets > 1:
        jets //= 2
        part = part_of(batch, cuts(batch.inputs, [jets])[0])
        try:
            gradient(part)
            return jets
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
    return 0
