"""The batches of several members side by side, as `torch.vmap` wants them: equally many rows each.

Members draw different jets, and so have different numbers of particles. Rows are added at the end, and belong to a jet
that is added as well: what comes out for it is cut off, batch normalisation counts real rows only, and dropout draws
no masks for it. The numbers of rows of jets and of each collection are made different, so that a layer can tell from
the length of its input which of them it has got.

Shapes: M members, B jets, R rows of a collection in the stack, F features, K coordinates.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from jettagger.batch import Batch, Inputs, Packed
from jettagger.models.parts.dropout import Dropout, draw_mask, dropout_layers
from jettagger.models.parts.model import JetModel

JETS = ""
"""In the place of a collection's name: rows are jets."""


REST = ("labels_B", "weights_B", "index_B", "targets_BT", "spectator_B")
"""Fields of a batch beside its inputs."""


class Drawn(NamedTuple):
    """A dropout layer of a network, as it was met in a forward pass."""

    path: str
    rows: str
    """What its rows are: JETS or a collection."""
    shape: tuple[int, ...]
    """Of a row."""
    p: float
    dtype: torch.dtype


class Together(NamedTuple):
    """The batches of M members; a tree of tensors whose first axis is the member."""

    jet: tuple[Tensor, ...]
    """(M, B, F), with a jet more where there are collections; empty where there are no jet-level features."""
    collections: dict[str, tuple[Tensor, ...]]
    """Features (M, R, F), lengths (M, B + 1), jet of each row (M, R), and where there are any coordinates (M, R, K)."""
    real: dict[int, Tensor]
    """Of how many rows how many are real, (M,); empty where none was added."""
    rest: dict[str, Tensor]
    """The batch's other fields, (M, B) or (M, B, …): labels, weights, targets."""


def side_by_side(batches: Sequence[Batch], names: Sequence[str]) -> Together:
    """Batches of equally many jets; of the inputs the collections `names`, all packed."""
    added = 1 if names else 0
    parts = [batch.inputs.jet_BF for batch in batches if batch.inputs.jet_BF is not None]
    jet = (functional.pad(torch.stack(parts), (0, 0, 0, added)),) if parts else ()
    device, sizes = batches[0].labels_B.device, rows_of(batches, names)
    real = {size: torch.tensor(numbers, device=device) for size, numbers in sizes.values()} if names else {}
    collections = {
        name: _padded([_packed(batch, name) for batch in batches], sizes[name][0]) for name in names
    }
    rest = {
        name: torch.stack([getattr(batch, name) for batch in batches])
        for name in REST
        if getattr(batches[0], name) is not None
    }
    return Together(jet, collections, real, rest)


def rows_of(batches: Sequence[Batch], names: Sequence[str]) -> dict[str, tuple[int, list[int]]]:
    """For jets and each collection: rows in the stack, all different, and real rows of each member."""
    jets = len(batches[0])
    found = {JETS: (jets + (1 if names else 0), [jets] * len(batches))}
    for name in names:
        numbers = [len(_packed(batch, name).features_NF) for batch in batches]
        size, taken = max(max(numbers), 1), {size for size, _ in found.values()}
        while size in taken:
            size += 1
        found[name] = size, numbers
    return found


def leaves(tree: Any) -> Iterator[Tensor]:
    """The tensors in dictionaries and tuples, from the first to the last."""
    if isinstance(tree, Tensor):
        yield tree
    else:
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(branch)


def with_leaves(tree: Any, tensors: Iterator[Tensor]) -> Any:
    """A tree of the same form, with other tensors for its `leaves`."""
    if isinstance(tree, Tensor):
        return next(tensors)
    if isinstance(tree, dict):
        return {name: with_leaves(branch, tensors) for name, branch in tree.items()}
    branches = (with_leaves(branch, tensors) for branch in tree)
    return type(tree)(*branches) if isinstance(tree, Together) else tuple(branches)


def batch_of(part: Together) -> Batch:
    """Inside `torch.vmap`: the batch of one member, with the rows that were added."""
    collections = {
        name: Packed(features, lengths, coordinates[0] if coordinates else None, jet_N)
        for name, (features, lengths, jet_N, *coordinates) in part.collections.items()
    }
    inputs = Inputs(part.jet[0] if part.jet else None, collections)
    return Batch(inputs=inputs, **part.rest)  # type: ignore[arg-type]


def masks_of(
    drawn: Sequence[Drawn],
    batches: Sequence[Batch],
    names: Sequence[str],
    generators: Sequence[torch.Generator],
) -> dict[str, Tensor]:
    """The dropout masks of a step, (M, R, …) by layer: each member's from its own generator, as alone."""
    sizes, device = rows_of(batches, names), batches[0].labels_B.device
    masks = {
        layer.path: torch.zeros(
            len(batches), sizes[layer.rows][0], *layer.shape, dtype=layer.dtype, device=device
        )
        for layer in drawn
    }
    for member, generator in enumerate(generators):
        for layer in drawn:
            rows = sizes[layer.rows][1][member]
            shape = (rows, *layer.shape)
            masks[layer.path][member, :rows] = draw_mask(shape, layer.p, generator, device, layer.dtype)
    return masks


class Unclear(Exception):  # noqa: N818
    """Why a network's members cannot be trained together."""


def met(model: JetModel, batch: Batch, names: Sequence[str]) -> list[Drawn]:
    """The dropout layers of a network in the order in which a forward pass in training meets them."""
    sizes = {len(batch): {JETS}}
    for name in names:
        sizes.setdefault(len(_packed(batch, name).features_NF), set()).add(name)
    found: list[Drawn] = []
    paths = {layer: path for path, layer in dropout_layers(model) if layer.p > 0}

    def note(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, Dropout)
        x, path = arguments[0], paths[layer]
        rows = sizes.get(len(x), set()) & ({JETS} if layer.of == "jet" else set(names))
        if len(rows) != 1 or any(one.path == path for one in found):
            raise Unclear(f"the dropout masks of {path} cannot be told apart")
        found.append(Drawn(path, rows.pop(), tuple(x.shape[1:]), layer.p, x.dtype))

    hooks = [layer.register_forward_pre_hook(note) for layer in paths]
    try:
        model(batch.inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _packed(batch: Batch, name: str) -> Packed:
    particles = batch.inputs.collections[name]
    if not isinstance(particles, Packed):
        raise Unclear(f"the particles of {name} are not packed")
    return particles


def _padded(members: Sequence[Packed], size: int) -> tuple[Tensor, ...]:
    first, jets = members[0], len(members[0].lengths_B)
    features = first.features_NF.new_zeros(len(members), size, first.features_NF.shape[1])
    jet = first.jet_N.new_full((len(members), size), jets)
    lengths = first.lengths_B.new_empty(len(members), jets + 1)
    coordinates = []
    if first.coordinates_NK is not None:
        coordinates = [first.coordinates_NK.new_zeros(len(members), size, first.coordinates_NK.shape[1])]
    for member, particles in enumerate(members):
        rows = len(particles.features_NF)
        features[member, :rows], jet[member, :rows] = particles.features_NF, particles.jet_N
        lengths[member, :jets], lengths[member, jets] = particles.lengths_B, size - rows
        if particles.coordinates_NK is not None:
            coordinates[0][member, :rows] = particles.coordinates_NK
    return features, lengths, jet, *coordinates
