"""The nearest neighbours of each particle among the real particles of its jet.

Shapes: B jets, b jets of a group, N real particles of all jets together, P slots, S slots of a group, F features
of a place (or coordinates), K neighbours.
"""

import torch
from torch import Tensor

from jettagger.batch import Dense, Packed, Particles
from jettagger.models.parts.particles import coordinates_of, features_of

JETS_PER_GROUP = 16


class Neighbourhood:
    """Finds neighbours in a batch of jets, wherever its particles are placed.

    Jets of similar length are looked at together, as every particle is compared with every other of its jet.
    """

    def __init__(self, particles: Particles) -> None:
        self.lead = features_of(particles).shape[:-1]
        """(N,) or (B, P)."""
        self.groups: list[tuple[Tensor, Tensor, Tensor]] = []
        """Rows (b, S) of the flattened particles, which of them are real (b, S), and the first rows (b,)."""
        if isinstance(particles, Dense):
            jets, slots = particles.mask_BP.shape
            rows_BP = torch.arange(jets * slots, device=particles.mask_BP.device).view(jets, slots)
            self.groups.append((rows_BP, particles.mask_BP, rows_BP[:, 0]))
            self.order_R: Tensor | None = None
        else:
            self.order_R = self._group(particles)

    def nearest(self, place: Tensor, number: int) -> Tensor:
        """Rows of the `number` nearest others of each particle, nearest first: (N, F) -> (N, K), (B, P, F) ->
        (B, P, K).

        A jet with too few particles repeats them, nearest first; a lone particle is its own neighbour, and so is
        a slot without a particle.
        """
        flat_RF = place.detach().flatten(0, -2)
        if flat_RF.shape[0] == 0:  # len() would make it a constant of an exported network
            return torch.zeros((*self.lead, number), dtype=torch.int64, device=place.device)
        found = []
        for rows_bS, real_bS, first_b in self.groups:
            place_bSF = flat_RF.index_select(0, rows_bS.flatten()).view(*rows_bS.shape, -1)
            rows_bSK = _nearest_slots(place_bSF, real_bS, number) + first_b[:, None, None]
            rows_RK = rows_bSK.flatten(0, 1)
            if self.order_R is not None:
                rows_RK = rows_RK.index_select(0, real_bS.flatten().nonzero().squeeze(1))
            found.append(rows_RK)
        rows_RK = torch.cat(found) if len(found) > 1 else found[0]
        if self.order_R is not None:
            rows_RK = rows_RK.index_select(0, self.order_R)
        return rows_RK.view(*self.lead, number)

    def _group(self, particles: Packed) -> Tensor:
        """Fills `groups`; where each particle will be found in what they give, one after the other, (N,)."""
        lengths_B = particles.lengths_B
        first_B = lengths_B.cumsum(0) - lengths_B
        order_B = lengths_B.argsort(stable=True)
        last = max(len(particles.features_NF) - 1, 0)
        # An accelerator is faster with one large group than with a few that fit.
        number = 1 if lengths_B.is_cuda else max(1, len(order_B) // JETS_PER_GROUP)
        for jets_b in order_B.tensor_split(number):
            lengths_b, first_b = lengths_B[jets_b], first_B[jets_b]
            slots_S = torch.arange(max(int(lengths_b[-1:].sum()), 1), device=lengths_B.device)
            real_bS = slots_S < lengths_b.unsqueeze(1)
            self.groups.append(((first_b.unsqueeze(1) + slots_S).clamp(max=last), real_bS, first_b))
        rows = [rows_bS.flatten()[real_bS.flatten()] for rows_bS, real_bS, _ in self.groups]
        return torch.cat(rows).argsort()


def known_place(particles: Particles) -> Tensor:
    """(eta, phi) of each particle, in rad; on the jet axis if that is not finite."""
    coordinates = coordinates_of(particles)
    assert coordinates is not None
    place = coordinates[..., :2]
    return torch.where(torch.isfinite(place).all(-1, keepdim=True), place, 0.0)


def _nearest_slots(place_bSF: Tensor, real_bS: Tensor, number: int) -> Tensor:
    """Slots of the nearest others, (b, S, K), as `nearest` describes it."""
    slots = place_bSF.shape[1]
    distance_bSS = _squared_distances(place_bSF)
    itself_SS = torch.eye(slots, dtype=torch.bool, device=place_bSF.device)
    excluded_bSS = ~real_bS.unsqueeze(1) | itself_SS
    distance_bSS = distance_bSS.masked_fill(excluded_bSS, torch.inf)
    most = max(1, min(number, slots - 1))
    nearest_bSK = distance_bSS.topk(most, dim=2, largest=False, sorted=True).indices
    others_b11 = (real_bS.sum(1) - 1).clamp(min=0, max=most)[:, None, None]
    turns_K = torch.arange(number, device=place_bSF.device)
    turns_bSK = (turns_K % others_b11.clamp(min=1)).expand(-1, slots, -1)
    own_S1 = torch.arange(slots, device=place_bSF.device).unsqueeze(1)
    return torch.where((others_b11 > 0) & real_bS.unsqueeze(2), nearest_bSK.gather(2, turns_bSK), own_S1)


def _squared_distances(place_bSF: Tensor) -> Tensor:
    """Between all slots of a jet, (b, S, S), in float32 at least: neighbours are told apart by the last digits."""
    if place_bSF.dtype in (torch.bfloat16, torch.float16):
        place_bSF = place_bSF.float()
    with torch.autocast(place_bSF.device.type, enabled=False):
        squares_bS = place_bSF.square().sum(2)
        products_bSS = torch.baddbmm(squares_bS.unsqueeze(1), place_bSF, place_bSF.transpose(1, 2), alpha=-2)
        return products_bSS + squares_bS.unsqueeze(2)
