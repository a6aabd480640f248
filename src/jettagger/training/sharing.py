"""One batch shared by several ranks: each computes a part, and what is a sum over the batch is summed over them.

The result is that of one process, to rounding. Random numbers are drawn for the whole batch on every rank and cut
to its part; statistics of BatchNorm are sums over all ranks, forwards and backwards; gradients are summed in one
piece. One all-reduce of all gradients is chosen over PyTorch's DistributedDataParallel: taggers have few megabytes
of weights, so that there is little to overlap, and nothing has to be wrapped around the network.

Shapes: B jets, R reflections, V all gradients one after the other.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from jettagger.batch import InputSpec, Part, Rows
from jettagger.models.parts.dropout import Dropout, dropout_layers
from jettagger.models.parts.layers import BatchNorm
from jettagger.training import checkpoints
from jettagger.training.distribution import Ranks


class DropoutRows:
    """Tells the dropout layers of a network which rows of the shared batch they see."""

    def __init__(self, model: nn.Module, inputs: InputSpec) -> None:
        names = [collection.name for collection in inputs.collections]
        self._layers = [(layer, _collection(path, layer, names)) for path, layer in dropout_layers(model)]

    def set(self, part: Part | None) -> None:
        """For the next batch; None: it is not shared."""
        for layer, collection in self._layers:
            rows: Rows | None = None
            if part is not None:
                rows = part.jets if collection is None else part.particles[collection]
            layer.rows = rows


def _collection(path: str, layer: Dropout, names: list[str]) -> str | None:
    """The collection whose particles a layer sees; None where its rows are jets."""
    if layer.of == "jet":
        return None
    found = names if len(names) == 1 else [name for name in names if name in path.split(".")]
    assert len(found) == 1, f"{path}: which of {names} does it see?"
    return found[0]


def share_statistics(model: nn.Module, ranks: Ranks | None) -> None:
    """BatchNorm takes its statistics from all ranks from now on; None: from its own rows."""
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.reduce = None if ranks is None or ranks.world == 1 else ranks.summed


@contextmanager
def unshared(model: nn.Module, rows: DropoutRows | None) -> Iterator[None]:
    """The network by itself, for a look that one rank takes at it alone."""
    shared = {module: module.reduce for module in model.modules() if isinstance(module, BatchNorm)}
    share_statistics(model, None)
    if rows is not None:
        rows.set(None)
    try:
        yield
    finally:
        for module, reduce in shared.items():
            module.reduce = reduce


def sum_gradients(ranks: Ranks, optimiser: torch.optim.Optimizer, sums: Tensor) -> Tensor:
    """Gradients become their sums over the ranks, in one all-reduce; so do `sums`, which are returned.

    A parameter that the loss does not hang on has no gradient on any rank.
    """
    if ranks.world == 1:
        return sums
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat_V = torch.cat([*(g.reshape(-1) for g in gradients), sums.to(gradients[0].dtype)])
    sizes = [*(g.numel() for g in gradients), len(sums)]
    *pieces, total = torch.split(ranks.sum(flat_V), sizes)
    torch._foreach_copy_(gradients, [x.view_as(g) for x, g in zip(pieces, gradients, strict=True)])
    return total.to(sums.dtype)


def mean_statistics(ranks: Ranks, model: nn.Module) -> None:
    """Running statistics of BatchNorm that ranks have taken by themselves become their mean."""
    found: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            found += [module.running_mean, module.running_var]
    if ranks.world == 1 or not found:
        return
    flat_V = ranks.sum(torch.cat(found)) / ranks.world
    torch._foreach_copy_(found, list(torch.split(flat_V, [len(x) for x in found])))


def same_start(ranks: Ranks, model: nn.Module) -> None:
    """All ranks begin with rank 0's weights and buffers."""
    if ranks.world == 1:
        return
    weights = ranks.from_first({name: x.cpu() for name, x in model.state_dict().items()})
    model.load_state_dict(weights)


def kept_together(ranks: Ranks, model: nn.Module) -> str | None:
    """All ranks go on with rank 0's weights where theirs have come apart; then returns a remark.

    Equal processors and versions compute the same bits from the same gradients, others may not.
    """
    if ranks.world == 1:
        return None
    weights = {name: x.cpu() for name, x in model.state_dict().items()}
    found = ranks.gathered_by_all(checkpoints.digest(weights))
    apart = [rank for rank, other in enumerate(found) if other != found[0]]
    if not apart:
        return None
    same_start(ranks, model)
    return (
        f"the networks of ranks {', '.join(map(str, apart))} differ from rank 0's in their last bits, so their"
        " processors, GPUs or versions do; all go on with rank 0's, and another run will not repeat this one's bits"
    )
