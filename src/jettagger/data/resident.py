"""The whole training set kept on the device, where it fits: a batch is then picked there, and nothing is copied.

Shapes: R jets of a split, N particles of all jets, B jets of a batch, M particles of a batch.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jettagger.batch import Batch, Inputs, Packed
from jettagger.data.batches import Batches, Share, bytes_per_jet
from jettagger.data.order import Positions, even_edges

SHARE = 0.4
"""Of the free memory of a device that the jets may take: while they are put together they take it twice, and the
network needs its own."""
LABELS_AND_MORE = 8 + 4 + 8
"""Bytes a jet for label, weight and index; targets and the like are 4 each."""
PART_BYTES = 256 * 2**20
"""Inputs that are in host memory at a time on their way to the device."""


class _Collection(NamedTuple):
    """The particles of all jets on the device, and how many each jet has on both sides."""

    values_NF: Tensor
    coordinates_NK: Tensor | None
    first_R: Tensor
    lengths_R: Tensor
    host_lengths_R: NDArray[np.int32]


def fits(batches: Batches, device: torch.device) -> bool:
    """Whether all jets may stay on `device`; on a CPU they are in its memory anyway.

    The numbers do not hang on it: batches are the same to the last bit.
    """
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return needed(batches) <= SHARE * free


def needed(batches: Batches) -> int:
    """Bytes that all jets take on a device."""
    per_jet = bytes_per_jet(batches.prepared, batches.inputs) + LABELS_AND_MORE
    per_jet += 0 if batches.targets_RT is None else 4 * batches.targets_RT.shape[1]
    per_jet += 0 if batches.spectator_R is None else 4
    return int(batches.jets * (per_jet + 16 * len(batches.inputs.collections)))


class Resident:
    """The jets of `batches` on a device: the same batches, in the same order."""

    def __init__(self, batches: Batches, device: torch.device) -> None:
        self._batches, self._device = batches, device
        self.jets, self.steps = batches.jets, batches.steps
        self._jet_RF, self._collections = _copied(batches, device)
        self._without_inputs = batches.batch_of(Inputs(None, {}), np.arange(batches.jets)).to(device)

    def reshuffled(self, shuffle: tuple[int, int]) -> "Resident":
        """The same jets in another random order; the device holds them once."""
        other = copy.copy(self)
        other._batches = self._batches.reshuffled(shuffle)
        return other

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch `start` on."""
        for share in self._batches.shares(epoch, start):
            yield self._batch(share)

    def sample(self, jets: int, seed: int) -> Inputs:
        """See `Batches.sample`."""
        return self._batches.sample(jets, seed)

    def _batch(self, share: Share) -> Batch:
        positions_B = share.mine
        at_B = torch.from_numpy(positions_B.astype(np.int64)).to(self._device, non_blocking=True)
        collections = {name: _picked(x, at_B, positions_B) for name, x in self._collections.items()}
        jet_BF = None if self._jet_RF is None else self._jet_RF.index_select(0, at_B)
        return replace(
            self._without_inputs.each(lambda x_R: x_R[at_B]),
            inputs=Inputs(jet_BF, collections),
            part=share.part(self._lengths_of),
        )

    def _lengths_of(self, positions_B: Positions) -> dict[str, NDArray[np.int32]]:
        return {name: x.host_lengths_R[positions_B] for name, x in self._collections.items()}


def _picked(found: _Collection, at_B: Tensor, positions_B: Positions) -> Packed:
    """The particles of some jets. How many there are is known on the host, so that nothing waits."""
    particles = int(found.host_lengths_R[positions_B].sum(dtype=np.int64))
    lengths_B = found.lengths_R[at_B]
    # Row m of the batch is row first_of_its_jet + (m - first row of its jet in the batch).
    jets_B = torch.arange(len(at_B), device=at_B.device)
    jet_M = torch.repeat_interleave(jets_B, lengths_B, output_size=particles)
    begin_B = found.first_R[at_B] - (lengths_B.cumsum(0) - lengths_B)
    rows_M = begin_B[jet_M] + torch.arange(particles, device=at_B.device)
    coordinates = found.coordinates_NK
    return Packed(
        found.values_NF.index_select(0, rows_M),
        lengths_B,
        None if coordinates is None else coordinates.index_select(0, rows_M),
        jet_M,
    )


def _copied(batches: Batches, device: torch.device) -> tuple[Tensor | None, dict[str, _Collection]]:
    """All inputs, part by part, so that the host never holds them all."""
    per_part = max(int(PART_BYTES / bytes_per_jet(batches.prepared, batches.inputs)), 1)
    edges = even_edges(batches.jets, per_part)
    jets: list[Tensor] = []
    values: dict[str, list[Tensor]] = {c.name: [] for c in batches.inputs.collections}
    coordinates: dict[str, list[Tensor]] = {name: [] for name in values}
    lengths: dict[str, list[NDArray[np.int32]]] = {name: [] for name in values}
    for low, high in pairwise(edges):
        raw = batches.read(np.arange(low, high))
        if raw.jet_JF is not None:
            jets.append(torch.from_numpy(raw.jet_JF).to(device))
        for name, x in raw.collections.items():
            values[name].append(torch.from_numpy(x.values_NF).to(device))
            lengths[name].append(x.lengths_J)
            if x.coordinates_NK is not None:
                coordinates[name].append(torch.from_numpy(x.coordinates_NK).to(device))
    return torch.cat(jets) if jets else None, {
        name: _collection(values.pop(name), coordinates.pop(name), np.concatenate(lengths[name]), device)
        for name in list(values)
    }


def _collection(
    values: list[Tensor], coordinates: list[Tensor], lengths_R: NDArray[np.int32], device: torch.device
) -> _Collection:
    lengths = torch.from_numpy(lengths_R.astype(np.int64)).to(device)
    return _Collection(
        values_NF=torch.cat(values),
        coordinates_NK=torch.cat(coordinates) if coordinates else None,
        first_R=lengths.cumsum(0) - lengths,
        lengths_R=lengths,
        host_lengths_R=lengths_R,
    )
