"""Where the slots of jets lie in the one sequence of rows that `slots` works on.

Shapes: B jets, J = B + 1 with the tail, an empty jet that comes last, P slots of the padded batch, R rows, M margins.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from jettagger.models.parts.along_rows import PIECES


@dataclass(frozen=True)
class Layout:
    """Where the slots of jets lie in the sequence. Each jet has an even number of rows, so that halves fit."""

    total: int
    """P."""
    slots_J: Tensor
    """Slots that are computed of each jet; P of the tail, which comes last."""
    rows_J: Tensor
    """Rows of each jet: a margin, the slots, the margins behind."""
    rows: int
    """R."""

    @classmethod
    def of(cls, extents_B: Tensor, total: int) -> "Layout":
        """Room for jets whose first `extents_B` slots differ from an empty jet's, out of `total`."""
        extents_J = torch.cat([extents_B, extents_B.new_tensor([total])])
        # One slot more at least, that a convolution of every second slot finds the empty jet's behind the last.
        slots_J = (extents_J + 2 - extents_J % 2).clamp(max=total)
        rows_J = slots_J + 2 + slots_J % 2
        needed = int(rows_J.sum())
        rows = _rounded(needed)
        rows_J[-1] += rows - needed
        return cls(total, slots_J, rows_J, rows)

    @property
    def jets(self) -> int:
        """B."""
        return len(self.slots_J) - 1

    @cached_property
    def firsts(self) -> Tensor:
        """(J,) row of each jet's first slot, which is odd."""
        return self.rows_J.cumsum(0) - self.rows_J + 1

    @cached_property
    def tail(self) -> int:
        """Row of the tail's margin before its first slot; the rows of jets end there."""
        return int(self.firsts[-1]) - 1

    @cached_property
    def inside(self) -> Tensor:
        """(R,) bool, whether a row holds a slot."""
        jet_R, slot_R = self.places
        return (slot_R >= 0) & (slot_R < self.slots_J[jet_R])

    @cached_property
    def owners(self) -> Tensor:
        """(R,) of each row the jet, the tail being the last; J, which is none, of margins."""
        return torch.where(self.inside, self.places[0], len(self.slots_J))

    @property
    def tail_slots(self) -> slice:
        """The P rows of the tail's slots."""
        return slice(self.tail + 1, self.tail + 1 + self.total)

    @cached_property
    def margins(self) -> Tensor:
        """(M,) rows that hold no slot."""
        return (~self.inside).nonzero().squeeze(1)

    @cached_property
    def zeros(self) -> Tensor:
        """The margins that hold 0: all but those behind a jet that has slots left out."""
        jet_R, slot_R = self.places
        slots_R = self.slots_J[jet_R]
        behind_R = (slot_R == slots_R) & (slots_R < self.total)
        return (~(self.inside | behind_R)).nonzero().squeeze(1)

    @cached_property
    def followers(self) -> tuple[Tensor, Tensor]:
        """(B,) rows behind each jet's last slot, and the tail's rows that they repeat."""
        slots_B = self.slots_J[:-1]
        return self.firsts[:-1] + slots_B, self.tail + 1 + slots_B

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
    def places(self) -> tuple[Tensor, Tensor]:
        """(R,) of each row the jet and its slot, -1 in the margin before the first."""
        numbers_J = torch.arange(len(self.slots_J), device=self.slots_J.device)
        jet_R = numbers_J.repeat_interleave(self.rows_J, output_size=self.rows)
        return jet_R, torch.arange(self.rows, device=jet_R.device) - self.firsts[jet_R]


def _rounded(rows: int) -> int:
    """The next of few numbers, at most 1/32 higher: oneDNN compiles a convolution for every size that is new to it."""
    step = max(1 << max(rows.bit_length() - 6, 0), PIECES)
    return -(-rows // step) * step
