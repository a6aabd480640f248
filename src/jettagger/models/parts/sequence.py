"""Where the slots of jets lie in the one sequence of rows that `slots` works on.

Shapes: B jets, J = B + 1 with the tail, an empty jet that comes last, P slots of the padded batch, R rows, S = R / 2
results of a halving, H rows of the halves' own layout, M margins.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from jettagger.models.parts.along_rows import PIECES

SOME = 31
"""Slots whose median is a typical value; odd, so that it is the value of one of them."""


class Halving(NamedTuple):
    """How results for every second row become the rows of a layout with half the slots.

    Jets take their own results; slots that they lack, and the margins behind them, those of the tail.
    """

    sources_H: Tensor
    """The result that each row takes; any for margins of 0."""
    takers_S: Tensor
    """The row that takes each result for its own jet; the last, a margin of 0, if none does."""
    borrowers_T: Tensor
    """Rows of jets that take the tail's results."""
    slots_T: Tensor
    """The slots of these rows."""
    tail_slots: slice
    """The tail's results."""


@dataclass(frozen=True)
class Layout:
    """Where the slots of jets lie in the sequence."""

    total: int
    """P."""
    slots_J: Tensor
    """Slots that are computed of each jet; P of the tail, which comes last."""
    rows_J: Tensor
    """Rows of each jet: the slots, the margins behind, and the one before the next jet's."""
    rows: int
    """R."""
    half: "Layout | None" = None
    """After a halving, if one follows."""

    @classmethod
    def of(cls, extents_B: Tensor, total: int, half: "Layout | None") -> "Layout":
        """Room for jets whose first `extents_B` slots differ from an empty jet's, out of `total`.

        Where a halving follows every jet begins at an even row, so that every second row is every second slot.
        """
        extents_J = torch.cat([extents_B, extents_B.new_tensor([total])])
        if half is not None:
            # One slot more at least, that a convolution of every second slot finds the empty jet's behind the last.
            extents_J = extents_J + 2 - extents_J % 2
        slots_J = extents_J.clamp(max=total)
        rows_J = slots_J + 2
        if half is not None:
            rows_J += rows_J % 2
        needed = int(rows_J.sum())
        rows = _rounded(needed)
        rows_J[-1] += rows - needed
        return cls(total, slots_J, rows_J, rows, half)

    @property
    def jets(self) -> int:
        """B."""
        return len(self.slots_J) - 1

    @cached_property
    def firsts(self) -> Tensor:
        """(J,) row of each jet's first slot."""
        return self.rows_J.cumsum(0) - self.rows_J

    @cached_property
    def tail(self) -> int:
        """Row of the tail's first slot; the rows of jets end there."""
        return int(self.firsts[-1])

    @property
    def tail_slots(self) -> slice:
        """The P rows of the tail's slots."""
        return slice(self.tail, self.tail + self.total)

    @cached_property
    def owners(self) -> Tensor:
        """(R,) of each row the jet, the tail being the last; J, which is none, of margins."""
        jets_J = torch.arange(len(self.slots_J), device=self.slots_J.device)
        return _in_turn(jets_J, len(jets_J), self.slots_J, self.rows_J)

    @cached_property
    def some(self) -> Tensor:
        """Rows of `SOME` slots, evenly spaced among all of them, those of the tail included."""
        ends_J = self.slots_J.cumsum(0)
        slot_S = torch.arange(SOME, device=ends_J.device) * ends_J[-1] // SOME
        jet_S = torch.searchsorted(ends_J, slot_S, right=True)
        return slot_S + (self.firsts - ends_J + self.slots_J)[jet_S]

    @cached_property
    def margins(self) -> Tensor:
        """(M,) rows that hold no slot."""
        jet_M = self._jets_of_margins
        return self.slots_J.cumsum(0)[jet_M] + torch.arange(len(jet_M), device=jet_M.device)

    @cached_property
    def zeros(self) -> Tensor:
        """The margins that hold 0: all but those behind a jet that has slots left out."""
        jet_M = self._jets_of_margins
        ends_J = self.firsts + self.slots_J
        behind_M = (self.margins == ends_J[jet_M]) & (self.slots_J < self.total)[jet_M]
        return self.margins[~behind_M]

    @cached_property
    def _jets_of_margins(self) -> Tensor:
        return _repeated(self.rows_J - self.slots_J)

    @cached_property
    def followers(self) -> tuple[Tensor, Tensor]:
        """(B,) rows behind each jet's last slot, and the tail's rows that they repeat."""
        slots_B = self.slots_J[:-1]
        return self.firsts[:-1] + slots_B, self.tail + slots_B

    @cached_property
    def times(self) -> Tensor:
        """(P,) how many jets each of the tail's slots stands for."""
        return self.slots_J[:-1].bincount(minlength=self.total + 1).cumsum(0)[:-1]

    @cached_property
    def shares(self) -> Tensor:
        """(2 + P,) how often a sum over all slots has the mean over rows of jets, a margin's value, the tail's slots.

        Margins hold no slots, and are taken out again.
        """
        margins = self.tail - int(self.slots_J[:-1].sum())
        return torch.cat([self.times.new_tensor([self.tail, -margins]), self.times])

    @cached_property
    def halving(self) -> Halving:
        """How the results of a halving become rows of `half`."""
        half = self.half
        assert half is not None
        own_J = (self.slots_J + 1) // 2
        steps_J = self.firsts // 2 - half.firsts
        # What lies behind a jet's own results comes from the tail's first on; the tail's own are all there.
        borrowed_J = steps_J[-1] + half.firsts[-1] - half.firsts
        source_H = _in_turn(steps_J, borrowed_J, own_J, half.rows_J)
        source_H += torch.arange(half.rows, device=own_J.device)
        taker_S = _in_turn(-steps_J, half.rows, own_J, self.rows_J // 2)
        taker_S += torch.arange(self.rows // 2, device=own_J.device)
        slots_B, own_B = half.slots_J[:-1], own_J[:-1]
        ends_B = slots_B + (slots_B < half.total).long()  # with the margin behind
        jet_T = _repeated(ends_B - own_B)
        slot_T = torch.arange(len(jet_T), device=own_J.device) + (ends_B - (ends_B - own_B).cumsum(0))[jet_T]
        return Halving(
            source_H.clamp_(max=self.rows // 2 - 1),
            taker_S.clamp_(max=half.rows - 1),
            half.firsts[jet_T] + slot_T,
            slot_T,
            slice(self.tail // 2, self.tail // 2 + half.total),
        )


def _repeated(counts_J: Tensor) -> Tensor:
    """0 as often as the first count says, 1 as the second, ..."""
    return torch.repeat_interleave(torch.arange(len(counts_J), device=counts_J.device), counts_J)


def _in_turn(values_J: Tensor, others: Tensor | int, counts_J: Tensor, rows_J: Tensor) -> Tensor:
    """For each jet its value `counts_J` times, then `others` for the rest of its rows."""
    pairs_J2 = torch.stack([values_J, torch.as_tensor(others).expand(len(values_J))], 1)
    return torch.repeat_interleave(
        pairs_J2.flatten(), torch.stack([counts_J, rows_J - counts_J], 1).flatten()
    )


def _rounded(rows: int) -> int:
    """The next of few numbers: oneDNN compiles a convolution for every size that is new to it.

    At most 1/32 higher, or 31.
    """
    step = max(1 << max(rows.bit_length() - 6, 0), 2 * PIECES)
    return -(-rows // step) * step
