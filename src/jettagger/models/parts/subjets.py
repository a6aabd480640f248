"""Subjets: where each particle stands among the hardest few sub-clusters of its jet.

The axes are those of a k-means clustering with pT weights, which minimises sum_i pT_i min_k dR_ik**2: the
numerator of N-subjettiness with beta = 2 (arXiv:1108.2701). The seeds are the hardest particle, then in turn
the particle with the largest pT times its distance to the axes so far.

Shapes: B jets, K subjets, F features; (…) is N for packed rows, (B, P) for dense slots.
"""

import torch
from torch import Tensor, nn

from jettagger.batch import Dense, Particles
from jettagger.models.parts.particles import coordinates_of, features_of

ITERATIONS = 5
TINY = 1.0e-6


class Subjets(nn.Module):
    """Appends to the features of each particle, with respect to the K subjets of its jet in order of pT:

    its distance to each axis; the subjet it belongs to; its distance, d_eta and d_phi to that axis; the logarithms
    of its share of the subjet's pT and of the subjet's share of the jet's; and each of the `signed` features
    times the sign of d_phi, as the sign of an impact parameter has a meaning relative to an axis only.
    """

    def __init__(self, number: int, signed: tuple[int, ...], radius: float) -> None:
        super().__init__()
        self.number = number
        self.signed = signed
        self.radius = radius
        """Distances are given in units of half of it."""

    @property
    def size(self) -> int:
        """Features that are appended."""
        return 2 * self.number + 5 + len(self.signed)

    def forward(self, particles: Particles) -> Particles:
        """F features -> F + size."""
        x = features_of(particles)
        with torch.no_grad():
            geometry, sign = self._geometry(particles)
        signed = x[..., list(self.signed)] * sign.to(x.dtype)
        return particles.with_features(torch.cat([x, geometry.to(x.dtype), signed], dim=-1))

    def _geometry(self, particles: Particles) -> tuple[Tensor, Tensor]:
        """(…, 2 K + 5) and the sign of d_phi, (…, 1)."""
        coordinates = coordinates_of(particles)
        assert coordinates is not None
        # A particle that lies nowhere counts for nothing: no pT, on the jet axis.
        known = torch.isfinite(coordinates).all(-1, keepdim=True)
        coordinates = torch.where(known, coordinates, 0.0)
        place = particles.with_features(coordinates)
        if isinstance(particles, Dense):
            place = place.with_features(coordinates * particles.mask_BP.unsqueeze(-1))
        eta, phi, pt = features_of(place).unbind(-1)
        eta_BK, phi_BK, pt_BK = self._axes(place, eta, phi, pt)
        d_eta = eta.unsqueeze(-1) - place.spread(eta_BK)
        d_phi = phi.unsqueeze(-1) - place.spread(phi_BK)
        distance = torch.sqrt(d_eta**2 + d_phi**2)
        own = _one_hot(distance)
        own_pt = (own * place.spread(pt_BK)).sum(-1)
        jet_pt = place.spread(pt_BK.sum(1, keepdim=True)).squeeze(-1)
        own_eta, own_phi = (own * d_eta).sum(-1), (own * d_phi).sum(-1)
        scale = 2.0 / self.radius
        columns = [
            (own * distance).sum(-1) * 2 * scale,
            own_eta * 2 * scale,
            own_phi * 2 * scale,
            torch.log(pt / own_pt.clamp(min=TINY) + TINY) / 2 + 1.5,
            torch.log(own_pt / jet_pt.clamp(min=TINY) + TINY),
        ]
        found = torch.cat([distance * scale, own, torch.stack(columns, dim=-1)], dim=-1)
        return found, torch.sign(own_phi).unsqueeze(-1)

    def _axes(self, place: Particles, eta: Tensor, phi: Tensor, pt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """eta, phi and pT of each jet's subjets, hardest first, each (B, K)."""
        eta_BK, phi_BK = self._seeds(place, eta, phi, pt)
        pt_BK = torch.zeros_like(eta_BK)
        for _ in range(ITERATIONS):
            own = _one_hot(_squared(place, eta, phi, eta_BK, phi_BK))
            share = own * pt.unsqueeze(-1)
            sums = torch.cat([share, share * eta.unsqueeze(-1), share * phi.unsqueeze(-1)], dim=-1)
            pt_BK, sum_eta_BK, sum_phi_BK = place.with_features(sums).sum().chunk(3, dim=-1)
            some_BK = pt_BK > 0
            eta_BK = torch.where(some_BK, sum_eta_BK / pt_BK.clamp(min=TINY), eta_BK)
            phi_BK = torch.where(some_BK, sum_phi_BK / pt_BK.clamp(min=TINY), phi_BK)
        order_BK = pt_BK.argsort(dim=1, descending=True, stable=True)
        return eta_BK.gather(1, order_BK), phi_BK.gather(1, order_BK), pt_BK.gather(1, order_BK)

    def _seeds(self, place: Particles, eta: Tensor, phi: Tensor, pt: Tensor) -> tuple[Tensor, Tensor]:
        axes: list[Tensor] = []
        nearest = torch.ones_like(pt)
        for _ in range(self.number):
            score = (pt * nearest.sqrt()).unsqueeze(-1)
            best = (score >= place.spread(place.with_features(score).max())).to(pt.dtype)
            # Particles that tie for the best share the seed, so that their order plays no role.
            at = torch.stack([eta, phi, torch.ones_like(eta)], dim=-1) * best
            eta_B, phi_B, count_B = place.with_features(at).sum().unbind(-1)
            axes.append(torch.stack([eta_B, phi_B], dim=-1) / count_B.clamp(min=1).unsqueeze(-1))
            latest_BK = axes[-1]
            squared = _squared(place, eta, phi, latest_BK[:, :1], latest_BK[:, 1:]).squeeze(-1)
            nearest = squared if len(axes) == 1 else torch.minimum(nearest, squared)
        both_BK2 = torch.stack(axes, dim=1)
        return both_BK2[..., 0], both_BK2[..., 1]


def _squared(place: Particles, eta: Tensor, phi: Tensor, eta_BK: Tensor, phi_BK: Tensor) -> Tensor:
    """Squared distance of each particle to each axis, (…, K)."""
    return (eta.unsqueeze(-1) - place.spread(eta_BK)) ** 2 + (phi.unsqueeze(-1) - place.spread(phi_BK)) ** 2


def _one_hot(distance: Tensor) -> Tensor:
    """1 for the nearest axis (the first of equals), 0 for the others, (…, K)."""
    return nn.functional.one_hot(distance.argmin(-1), distance.shape[-1]).to(distance.dtype)
