"""What a model sees: batches of jets, their particles packed or dense, and what the inputs are called.

Shapes: B jets, N real particles of all jets together, P particle slots, F features, K coordinates, C classes,
T targets.

Packed rows cost nothing for padding and serve training; the dense form serves export and convolutions wider
than one particle. Both offer the same operations, so that a model is written once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

COORDINATES = ("eta", "phi", "pt")


@dataclass(frozen=True)
class Feature:
    """One input variable: its name and how the model's first layer normalises it."""

    name: str
    normalise: Literal["auto", "none"] | tuple[float, float] = "auto"
    """`auto`: measured on the training split; `none`; or (shift, scale): (x - shift) / scale."""
    clip: tuple[float, float] | None = None
    """Bounds after shift and scale."""
    missing: float | None = None
    """Raw value put in place of NaN and ±inf; None: the shift, so that the network sees 0."""


@dataclass(frozen=True)
class CollectionInput:
    """A collection of particles: its features, its coordinates if any, and the most particles kept."""

    name: str
    features: tuple[Feature, ...]
    length: int
    coordinates: bool = False
    """Whether (eta, phi, pT) come with it."""


@dataclass(frozen=True)
class InputSpec:
    """All that a model may look at, in the order in which it comes."""

    jet: tuple[Feature, ...] = ()
    collections: tuple[CollectionInput, ...] = ()


@dataclass(frozen=True)
class Packed:
    """The real particles of B jets, one row each, jet after jet."""

    features_NF: Tensor
    lengths_B: Tensor
    """int64; the sum is N; 0 for a jet without particles."""
    coordinates_NK: Tensor | None = None
    """eta, phi (rad), pT (GeV); never normalised."""
    jet_N: Tensor = field(default=None)  # type: ignore[assignment]
    """int64, the jet that each row belongs to; made from the lengths when left out."""

    def __post_init__(self) -> None:
        if self.jet_N is None:
            jets = torch.arange(len(self.lengths_B), device=self.lengths_B.device)
            rows = torch.repeat_interleave(jets, self.lengths_B, output_size=len(self.features_NF))
            object.__setattr__(self, "jet_N", rows)

    def with_features(self, features_NF: Tensor) -> "Packed":
        """The same particles with other features."""
        return replace(self, features_NF=features_NF)

    def sum(self) -> Tensor:
        """Sum over each jet's particles, (B, F); 0 for an empty jet."""
        x_NF = self.features_NF
        return x_NF.new_zeros(len(self.lengths_B), x_NF.shape[1]).index_add(0, self.jet_N, x_NF)

    def mean(self) -> Tensor:
        """Mean over each jet's particles, (B, F); 0 for an empty jet."""
        return self.sum() / self.lengths_B.clamp(min=1).unsqueeze(1).to(self.features_NF.dtype)

    def max(self) -> Tensor:
        """Largest value over each jet's particles, (B, F); 0 for an empty jet."""
        x_NF = self.features_NF
        zeros_BF = x_NF.new_zeros(len(self.lengths_B), x_NF.shape[1])
        index_NF = self.jet_N.unsqueeze(1).expand_as(x_NF)
        return zeros_BF.scatter_reduce(0, index_NF, x_NF, "amax", include_self=False)

    def spread(self, x_BF: Tensor) -> Tensor:
        """A quantity of each jet, given to each of its particles: (N, F)."""
        return x_BF.index_select(0, self.jet_N)

    def dense(self, length: int | None = None) -> "Dense":
        """The same particles in `length` slots a jet (default: the longest jet's), zero padded."""
        jets = len(self.lengths_B)
        longest = int(self.lengths_B.max()) if jets else 0
        slots = max(longest, 1) if length is None else length
        first_B = self.lengths_B.cumsum(0) - self.lengths_B
        slot_N = torch.arange(len(self.jet_N), device=self.jet_N.device) - first_B[self.jet_N]
        keep_N = slot_N < slots
        where = (self.jet_N[keep_N], slot_N[keep_N])

        def scatter(x_NF: Tensor) -> Tensor:
            return x_NF.new_zeros(jets, slots, x_NF.shape[1]).index_put(where, x_NF[keep_N])

        mask_BP = torch.zeros(jets, slots, dtype=torch.bool, device=self.jet_N.device)
        mask_BP[where] = True
        coordinates = None if self.coordinates_NK is None else scatter(self.coordinates_NK)
        return Dense(scatter(self.features_NF), mask_BP, coordinates)


@dataclass(frozen=True)
class Dense:
    """B jets of P slots each, with a mask of the real particles. Slots beyond them hold anything finite."""

    features_BPF: Tensor
    mask_BP: Tensor
    """bool."""
    coordinates_BPK: Tensor | None = None

    def with_features(self, features_BPF: Tensor) -> "Dense":
        """The same particles with other features."""
        return replace(self, features_BPF=features_BPF)

    def sum(self) -> Tensor:
        """Sum over each jet's particles, (B, F); 0 for an empty jet."""
        return (self.features_BPF * self.mask_BP.unsqueeze(-1)).sum(1)

    def mean(self) -> Tensor:
        """Mean over each jet's particles, (B, F); 0 for an empty jet."""
        return self.sum() / self.mask_BP.sum(1, keepdim=True).clamp(min=1).to(self.features_BPF.dtype)

    def max(self) -> Tensor:
        """Largest value over each jet's particles, (B, F); 0 for an empty jet."""
        lowest = torch.finfo(self.features_BPF.dtype).min
        masked_BPF = torch.where(self.mask_BP.unsqueeze(-1), self.features_BPF, lowest)
        return torch.where(self.mask_BP.any(1, keepdim=True), masked_BPF.amax(1), 0.0)

    def spread(self, x_BF: Tensor) -> Tensor:
        """A quantity of each jet, given to each of its slots: (B, P, F)."""
        return x_BF.unsqueeze(1).expand(-1, self.mask_BP.shape[1], -1)

    def packed(self) -> Packed:
        """The same particles as rows without padding."""
        coordinates = None if self.coordinates_BPK is None else self.coordinates_BPK[self.mask_BP]
        return Packed(self.features_BPF[self.mask_BP], self.mask_BP.sum(1), coordinates)


Particles = Packed | Dense


@dataclass(frozen=True)
class Inputs:
    """What `Model.forward` takes. All values raw: normalisation is the model's first layer."""

    jet_BF: Tensor | None
    """Jet-level features, float32; None if the config has none."""
    collections: Mapping[str, Particles]

    def __len__(self) -> int:
        if self.jet_BF is not None:
            return len(self.jet_BF)
        particles = next(iter(self.collections.values()))
        return len(particles.lengths_B if isinstance(particles, Packed) else particles.mask_BP)

    def dense(self, lengths: Mapping[str, int] | None = None) -> "Inputs":
        """The same inputs with every collection dense; `lengths`: slots of each (default: its longest jet)."""
        return Inputs(
            self.jet_BF,
            {
                name: x.dense(lengths[name] if lengths else None) if isinstance(x, Packed) else x
                for name, x in self.collections.items()
            },
        )

    def to(self, device: torch.device) -> "Inputs":
        """The same inputs on `device`, copied asynchronously from pinned memory."""
        return self.each(lambda x: x.to(device, non_blocking=True))

    def each(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """The same inputs with each tensor as `change` returns it."""

        def optional(x: Tensor | None) -> Tensor | None:
            return None if x is None else change(x)

        def particles(x: Particles) -> Particles:
            if isinstance(x, Packed):
                rows = change(x.features_NF), change(x.lengths_B), optional(x.coordinates_NK)
                return Packed(*rows, change(x.jet_N))
            return Dense(change(x.features_BPF), change(x.mask_BP), optional(x.coordinates_BPK))

        return Inputs(optional(self.jet_BF), {name: particles(x) for name, x in self.collections.items()})


@dataclass(frozen=True)
class Rows:
    """Rows `first` … `first + count` of `total`."""

    first: int
    count: int
    total: int


@dataclass(frozen=True)
class Part:
    """Where a batch lies in the one that several ranks share: what is drawn for all is cut to it."""

    jets: Rows
    particles: Mapping[str, Rows]
    """Of each collection."""


@dataclass(frozen=True)
class Truth:
    """What is known of B jets and enters a loss."""

    labels_B: Tensor
    """int64, index into the classes; -1 where the class is unknown."""
    weights_B: Tensor
    """float32, the weight in the training loss: event weight times training weight."""
    targets_BT: Tensor | None = None
    """float32, regression targets as the loss sees them, normalised; NaN where one is unknown. None without any."""

    def each(self, change: Callable[[Tensor], Tensor]) -> "Truth":
        """The same with each tensor as `change` returns it."""
        targets_BT = None if self.targets_BT is None else change(self.targets_BT)
        return Truth(change(self.labels_B), change(self.weights_B), targets_BT)


@dataclass(frozen=True)
class Batch:
    """Inputs with what training and evaluation need beside them."""

    inputs: Inputs
    labels_B: Tensor
    """int64, index into the classes; -1 where the class is unknown."""
    weights_B: Tensor
    """float32, the weight in the training loss: event weight times training weight."""
    index_B: Tensor
    """int64, index of the jet in the prepared dataset: stable, whatever the order of batches."""
    part: Part | None = None
    """Its place among the ranks' parts of a batch; None: it is the whole batch."""
    targets_BT: Tensor | None = None
    """float32, regression targets as the loss sees them, normalised; NaN where one is unknown. None without any."""
    spectator_B: Tensor | None = None
    """float32, the variable that scores are decorrelated from; None where they are not."""
    partner: Truth | None = None
    """What is known of the jets that were mixed into these; both weights have their share in them."""

    def __len__(self) -> int:
        return len(self.index_B)

    @property
    def truth(self) -> Truth:
        """What is known of the jets themselves."""
        return Truth(self.labels_B, self.weights_B, self.targets_BT)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`, copied asynchronously from pinned memory."""
        return self.each(lambda x: x.to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        """The same batch in memory that a CUDA device can copy from while it computes."""
        return self.each(lambda x: x.pin_memory())

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The same batch with each tensor as `change` returns it."""
        return replace(
            self,
            inputs=self.inputs.each(change),
            labels_B=change(self.labels_B),
            weights_B=change(self.weights_B),
            index_B=change(self.index_B),
            targets_BT=None if self.targets_BT is None else change(self.targets_BT),
            spectator_B=None if self.spectator_B is None else change(self.spectator_B),
            partner=None if self.partner is None else self.partner.each(change),
        )
