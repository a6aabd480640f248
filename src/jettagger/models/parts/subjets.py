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
        if isinstance(particles, Dense):
            coordinates = coordinates * particles.mask_BP.unsqueeze(-1)
        # Axes first: then each operation runs along contiguous particles.
        place = coordinates.movedim(-1, 0).contiguous()
        axes_BK2, pt_BK = self._axes(particles, place)
        d_eta, d_phi = self._offsets(particles, place, axes_BK2)
        distance = torch.sqrt(d_eta * d_eta + d_phi * d_phi)
        own = self._nearest(distance)
        pt_of_axis = particles.spread(pt_BK).movedim(-1, 0)
        own_pt, jet_pt = (own * pt_of_axis).sum(0), pt_of_axis.sum(0)
        own_eta, own_phi = (own * d_eta).sum(0), (own * d_phi).sum(0)
        scale = 2.0 / self.radius
        share = torch.log(place[2] / own_pt.clamp(min=TINY) + TINY) / 2 + 1.5
        rows = [*(distance * scale), *own, (own * distance).sum(0) * 2 * scale]
        rows += [own_eta * 2 * scale, own_phi * 2 * scale, share]
        rows.append(torch.log(own_pt / jet_pt.clamp(min=TINY) + TINY))
        return torch.stack(rows, dim=-1), torch.sign(own_phi).unsqueeze(-1)

    def _axes(self, particles: Particles, place: Tensor) -> tuple[Tensor, Tensor]:
        """(eta, phi) and pT of each jet's subjets, hardest first, (B, K, 2) and (B, K)."""
        eta, phi, pt = place
        axes_BK2 = self._seeds(particles, place)
        pt_BK = axes_BK2.new_zeros(axes_BK2.shape[:2])
        for _ in range(ITERATIONS):
            d_eta, d_phi = self._offsets(particles, place, axes_BK2)
            own = self._nearest(d_eta * d_eta + d_phi * d_phi)
            shares = [share for mine in own * pt for share in (mine, mine * eta, mine * phi)]
            sums_BK3 = _sum(particles, shares).reshape(-1, self.number, 3)
            pt_BK = sums_BK3[..., 0]
            centre_BK2 = sums_BK3[..., 1:] / pt_BK.clamp(min=TINY).unsqueeze(-1)
            axes_BK2 = torch.where((pt_BK > 0).unsqueeze(-1), centre_BK2, axes_BK2)
        order_BK = pt_BK.argsort(dim=1, descending=True, stable=True)
        return axes_BK2.gather(1, order_BK.unsqueeze(-1).expand(-1, -1, 2)), pt_BK.gather(1, order_BK)

    def _seeds(self, particles: Particles, place: Tensor) -> Tensor:
        """(eta, phi) of the particles that the clustering starts from, (B, K, 2)."""
        eta, phi, pt = place
        axes: list[Tensor] = []
        nearest = torch.ones_like(pt)
        for _ in range(self.number):
            score = (pt * nearest.sqrt()).unsqueeze(-1)
            best = (score >= particles.spread(particles.with_features(score).max())).squeeze(-1).to(pt.dtype)
            # Particles that tie for the best share the seed, so that their order plays no role.
            sums_B3 = _sum(particles, [best * eta, best * phi, best])
            axes.append((sums_B3[:, :2] / sums_B3[:, 2:].clamp(min=1)).unsqueeze(1))
            d_eta, d_phi = self._offsets(particles, place, axes[-1])
            squared = (d_eta * d_eta + d_phi * d_phi)[0]
            nearest = squared if len(axes) == 1 else torch.minimum(nearest, squared)
        return torch.cat(axes, dim=1)

    def _offsets(self, particles: Particles, place: Tensor, axes_BK2: Tensor) -> tuple[Tensor, Tensor]:
        """d_eta and d_phi of each particle to each axis, each (K, …)."""
        axes = particles.spread(axes_BK2.transpose(1, 2).flatten(1)).movedim(-1, 0)
        number = axes_BK2.shape[1]
        return place[0] - axes[:number], place[1] - axes[number:]

    def _nearest(self, distance: Tensor) -> Tensor:
        """1 for the nearest axis (the first of equals), 0 for the others, (K, …)."""
        index = torch.arange(self.number, device=distance.device)
        index = index.reshape(-1, *(1,) * (distance.dim() - 1))
        return (distance.argmin(0) == index).to(distance.dtype)


def _sum(particles: Particles, rows: list[Tensor]) -> Tensor:
    """Sums over each jet's particles, (B, number of rows)."""
    return particles.with_features(torch.stack(rows, dim=-1)).sum()
