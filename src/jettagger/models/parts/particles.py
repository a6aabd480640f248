"""Layers over the particles of a jet, the same for packed rows and dense slots.

Shapes: B jets, N real particles, P particle slots, F features, G features of a jet, H attention heads.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from jettagger.batch import Dense, Packed, Particles
from jettagger.models.parts.dropout import Dropout
from jettagger.models.parts.layers import BatchNorm, Norm, activation_layer, followed_by, norm_layer

Pooling = Literal["mean", "max", "sum", "pt", "attention"]


def features_of(particles: Particles) -> Tensor:
    """(N, F) of packed, (B, P, F) of dense particles."""
    return particles.features_NF if isinstance(particles, Packed) else particles.features_BPF


def coordinates_of(particles: Particles) -> Tensor | None:
    """(N, K) of packed, (B, P, K) of dense particles."""
    return particles.coordinates_NK if isinstance(particles, Packed) else particles.coordinates_BPK


def full_precision(particles: Particles) -> Particles:
    """Features in float32 if they are narrower: sums over a hundred particles need the digits."""
    x = features_of(particles)
    return particles.with_features(x.float()) if x.dtype in (torch.bfloat16, torch.float16) else particles


def softmax_over_particles(scores: Particles) -> Tensor:
    """Softmax of each feature over a jet's real particles, in the shape of the features."""
    x = features_of(scores)
    # Real particles lie at or below their maximum; the bound keeps padding from overflowing.
    exponent = (x - scores.spread(scores.max().detach())).clamp(max=0)
    numerator = scores.with_features(exponent.exp())
    denominator_BH = numerator.sum().clamp(min=1)  # the largest score alone gives 1; 0 for an empty jet
    return features_of(numerator) / numerator.spread(denominator_BH)


class ParticleBlock(nn.Module):
    """norm -> dropout -> linear (a 1x1 convolution) [+ context] -> activation [+ input].

    With context the particles are pooled and each is given the jet's summary: an equivariant set layer
    (arXiv:1703.06114).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        activation: str,
        norm: Norm,
        dropout: float,
        context: Sequence[Pooling] = (),
        heads: int = 1,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.norm = norm_layer(norm, inputs)
        self.dropout = Dropout(dropout, (inputs,), of="particle")
        self.linear = followed_by(activation, nn.Linear(inputs, outputs))
        self.context = Context(inputs, outputs, context, activation, dropout, heads) if context else None
        self.activation = activation_layer(activation)
        self.residual = residual and inputs == outputs

    def forward(self, particles: Particles) -> Particles:
        """F features -> G features."""
        x = features_of(particles)
        normed = particles.with_features(normalise_particles(self.norm, particles))
        y = self.linear(self.dropout(features_of(normed)))
        if self.context is not None:
            y = y + particles.spread(self.context(normed).to(y.dtype))
        y = self.activation(y)
        return particles.with_features(x + y if self.residual else y)


def normalise_particles(norm: nn.Module, particles: Particles) -> Tensor:
    """A norm layer over real particles only."""
    x = features_of(particles)
    y: Tensor
    if isinstance(norm, BatchNorm) and isinstance(particles, Dense):
        y = norm(x, particles.mask_BP)
    else:
        y = norm(x)
    return y


class Context(nn.Module):
    """What particles learn of their jet: pool -> dropout -> linear -> activation -> dropout -> linear."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        poolings: Sequence[Pooling],
        activation: str,
        dropout: float,
        heads: int,
    ) -> None:
        super().__init__()
        self.pool = Pool(inputs, poolings, heads, dropout)
        self.first_dropout = Dropout(dropout, (self.pool.size,))
        self.first = followed_by(activation, nn.Linear(self.pool.size, outputs))
        self.activation = activation_layer(activation)
        self.second_dropout = Dropout(dropout, (outputs,))
        self.second = nn.Linear(outputs, outputs, bias=False)

    def forward(self, particles: Particles) -> Tensor:
        """(B, G)."""
        hidden_BG = self.activation(self.first(self.first_dropout(self.pool(particles))))
        context_BG: Tensor = self.second(self.second_dropout(hidden_BG))
        return context_BG


class Pool(nn.Module):
    """Summaries of a jet's particles, side by side; zeros for a jet without particles.

    mean, max; sum: divided by the mean multiplicity of the training jets, so that it is of order one; pt: the
    mean weighted with pT; attention: means weighted with learned softmax weights, one set a head, each over
    its share of the features.
    """

    multiplicity: Tensor

    def __init__(self, features: int, poolings: Sequence[Pooling], heads: int, dropout: float) -> None:
        super().__init__()
        self.poolings = tuple(poolings)
        self.heads = heads
        self.size = features * len(self.poolings)
        self.register_buffer("multiplicity", torch.tensor(1.0))
        self.attention = Attention(features, heads, dropout) if "attention" in poolings else None

    def forward(self, particles: Particles) -> Tensor:
        """(B, G)."""
        particles = full_precision(particles)
        return torch.cat([self._pool(pooling, particles) for pooling in self.poolings], dim=1)

    def _pool(self, pooling: Pooling, particles: Particles) -> Tensor:
        if pooling == "mean":
            return particles.mean()
        if pooling == "max":
            return particles.max()
        if pooling == "sum":
            return particles.sum() / self.multiplicity
        if pooling == "pt":
            return pt_weighted_mean(particles)
        assert self.attention is not None
        pooled_BF: Tensor = self.attention(particles)
        return pooled_BF


class Attention(nn.Module):
    """Means over particles with learned weights: each head weights its share of the features."""

    def __init__(self, features: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = Dropout(dropout, (features,), of="particle")
        self.score = nn.Linear(features, heads)

    def forward(self, particles: Particles) -> Tensor:
        """(B, F)."""
        x = features_of(particles)
        scores = full_precision(particles.with_features(self.score(self.dropout(x))))
        weights = softmax_over_particles(scores).unsqueeze(-1)
        shares = x.reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads)
        return particles.with_features((shares * weights).flatten(-2)).sum()


def pt_weighted_mean(particles: Particles) -> Tensor:
    """sum(pT x) / sum(pT), (B, F)."""
    coordinates = coordinates_of(particles)
    assert coordinates is not None
    pt = coordinates[..., 2:3].to(features_of(particles).dtype)
    pt = torch.where(torch.isfinite(pt), pt, 0.0)
    total_B1 = particles.with_features(pt).sum().clamp(min=torch.finfo(pt.dtype).tiny)
    return particles.with_features(features_of(particles) * (pt / particles.spread(total_B1))).sum()


class LastState(nn.Module):
    """LSTM over the particles, last first, so that the hardest is read last; its state then, (B, G).

    Padding is never read. An empty jet gives zeros.
    """

    def __init__(self, features: int, size: int, dropout: float) -> None:
        super().__init__()
        self.size = size
        self.dropout = Dropout(dropout, (features,), of="particle")
        self.lstm = nn.LSTM(features, size, batch_first=True)

    def forward(self, particles: Particles) -> Tensor:
        """(B, G)."""
        particles = particles.with_features(self.dropout(features_of(particles)))
        dense = particles.dense() if isinstance(particles, Packed) else particles
        x_BPF, lengths_B1 = dense.features_BPF, dense.mask_BP.sum(1, keepdim=True)
        slots_P = torch.arange(x_BPF.shape[1], device=x_BPF.device)
        reversed_BP1 = (lengths_B1 - 1 - slots_P).clamp(min=0).unsqueeze(-1)
        states_BPG: Tensor = self.lstm(x_BPF.gather(1, reversed_BP1.expand_as(x_BPF)))[0]
        last_B11 = (lengths_B1 - 1).clamp(min=0).unsqueeze(-1)
        last_BG = states_BPG.gather(1, last_B11.expand(-1, 1, self.size)).squeeze(1)
        return torch.where(lengths_B1 > 0, last_BG, 0.0)
