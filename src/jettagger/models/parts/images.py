"""Jet images drawn on the device from particle coordinates.

Shapes: B jets, R rows (N packed particles, or B x P slots), C channels, H x W pixels (H rows of phi, W
columns of eta).

Steps of arXiv:1803.00107: centre, rotate, flip, normalise, pixelise; each can be left out.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from jettagger.batch import CollectionInput, Packed, Particles
from jettagger.errors import JettaggerError, unknown_name


class Rows(NamedTuple):
    """Particles one a row; padding has pT 0 and `real` 0."""

    eta_R: Tensor
    phi_R: Tensor
    pt_R: Tensor
    real_R: Tensor
    """1 for a particle, 0 for padding."""
    jet_R: Tensor
    jets: int

    def per_jet(self, x_R: Tensor) -> Tensor:
        """Sum over each jet's rows, given back to each row: (R,)."""
        return self.sum(x_R).index_select(0, self.jet_R)

    def sum(self, x_R: Tensor) -> Tensor:
        """Sum over each jet's rows, (B,)."""
        return x_R.new_zeros(self.jets).scatter_add(0, self.jet_R, x_R)


class Channel(NamedTuple):
    """What a pixel adds up: pT or the number of particles, times a raw feature if there is one."""

    weight: str
    """pt or count."""
    feature: int | None


def parse_channel(text: str, collection: CollectionInput) -> Channel:
    """`pt`, `count`, `pt * feature` or `count * feature`."""
    match = re.fullmatch(r"\s*(pt|count)\s*(?:\*\s*(\w+)\s*)?", text)
    if not match:
        raise JettaggerError(
            f"model.channels: '{text}' is none of pt, count, pt * <feature>, count * <feature> "
            f"(features of inputs.{collection.name}: {', '.join(f.name for f in collection.features)})"
        )
    names = [feature.name for feature in collection.features]
    if match[2] is not None and match[2] not in names:
        raise unknown_name("feature", match[2], names, where=f"model.channels: '{text}'")
    return Channel(match[1], None if match[2] is None else names.index(match[2]))


def centred(rows: Rows) -> Rows:
    """The pT-weighted centroid at (0, 0)."""
    total_R = or_one(rows.per_jet(rows.pt_R))
    eta_R = rows.eta_R - rows.per_jet(rows.pt_R * rows.eta_R) / total_R
    phi_R = rows.phi_R - rows.per_jet(rows.pt_R * rows.phi_R) / total_R
    return rows._replace(eta_R=eta_R, phi_R=phi_R)


def rotated(rows: Rows) -> Rows:
    """The principal axis along eta, turned so that the half at eta > 0 holds more pT.

    theta = atan(2 M11 / (M20 - M02 + sqrt(4 M11² + (M20 - M02)²))), Mij = sum pT eta^i phi^j, of
    arXiv:1803.00107's code, written as atan2(2 M11, M20 - M02) / 2, which is the same angle and also defined
    where M11 = 0.
    """
    eta_B, phi_B = rows.sum(rows.pt_R * rows.eta_R.square()), rows.sum(rows.pt_R * rows.phi_R.square())
    mixed_B = rows.sum(rows.pt_R * rows.eta_R * rows.phi_R)
    # ONNX has no atan2 of its own: what exporters write for it fails at (0, 0), a jet of one particle.
    difference_B = torch.where((mixed_B == 0) & (eta_B == phi_B), 1.0, eta_B - phi_B)
    angle_R = (torch.atan2(2 * mixed_B, difference_B) / 2).index_select(0, rows.jet_R)
    cos_R, sin_R = angle_R.cos(), angle_R.sin()
    eta_R = rows.eta_R * cos_R + rows.phi_R * sin_R
    phi_R = rows.phi_R * cos_R - rows.eta_R * sin_R
    turn_R = heavier_side(rows, eta_R)
    return rows._replace(eta_R=eta_R * turn_R, phi_R=phi_R * turn_R)


def flipped(rows: Rows) -> Rows:
    """Mirrored so that the right half (eta > 0) and the upper half (phi > 0) hold more pT."""
    return rows._replace(
        eta_R=rows.eta_R * heavier_side(rows, rows.eta_R), phi_R=rows.phi_R * heavier_side(rows, rows.phi_R)
    )


def heavier_side(rows: Rows, x_R: Tensor) -> Tensor:
    """+1 where most of the jet's pT lies at x > 0, else -1, (R,)."""
    return torch.where(rows.per_jet(rows.pt_R * x_R.sign()) >= 0, 1.0, -1.0).to(x_R.dtype)


def or_one(total: Tensor) -> Tensor:
    """A sum to divide by: 1 where it is 0, for a jet without particles."""
    return torch.where(total > 0, total, 1.0)


class JetImage(nn.Module):
    """Draws the images: coordinates (eta, phi, pT) -> (B, C, H, W), W = H = `pixels`."""

    def __init__(
        self,
        channels: Sequence[Channel],
        *,
        pixels: int,
        half_width: float,
        centre: bool,
        rotate: bool,
        flip: bool,
        normalise: bool,
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.pixels = pixels
        self.half_width = half_width
        self.centre, self.rotate, self.flip, self.normalise = centre, rotate, flip, normalise

    def forward(self, particles: Particles) -> Tensor:
        """(B, C, H, W) in the coordinates' precision; a jet without particles is black."""
        rows = self.placed(particles)
        features_RF = raw_features(particles)
        weights_CR = torch.stack([self._weight(channel, rows, features_RF) for channel in self.channels])
        column_R, row_R, inside_R = self._pixel(rows)
        index_R = (rows.jet_R * self.pixels + row_R) * self.pixels + column_R
        images_CX = weights_CR.new_zeros(len(self.channels), rows.jets * self.pixels**2)
        # where, not a product: what lies outside need not be finite.
        weights_CR = torch.where(inside_R, weights_CR, 0.0)
        images_CX = images_CX.scatter_add(1, index_R.expand_as(weights_CR), weights_CR)
        return images_CX.view(len(self.channels), rows.jets, self.pixels, self.pixels).transpose(0, 1)

    def placed(self, particles: Particles) -> Rows:
        """The particles after centring, rotation, flips and normalisation."""
        rows = rows_of(particles)
        if self.centre:
            rows = centred(rows)
        if self.rotate:
            rows = rotated(rows)
        if self.flip:
            rows = flipped(rows)
        if self.normalise:
            rows = rows._replace(pt_R=rows.pt_R / or_one(rows.per_jet(rows.pt_R)))
        return rows

    def outside(self, particles: Particles) -> Tensor:
        """Fraction of each jet's pT that lies outside the image, (B,)."""
        rows = self.placed(particles)
        outside_B = rows.sum(torch.where(self._pixel(rows)[2], 0.0, rows.pt_R))
        return outside_B / or_one(rows.sum(rows.pt_R))

    def _pixel(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        scale = self.pixels / (2 * self.half_width)
        column_R = ((rows.eta_R + self.half_width) * scale).floor()
        row_R = ((rows.phi_R + self.half_width) * scale).floor()
        inside_R = (column_R >= 0) & (column_R < self.pixels) & (row_R >= 0) & (row_R < self.pixels)
        last = self.pixels - 1
        return column_R.clamp(0, last).long(), row_R.clamp(0, last).long(), inside_R

    def _weight(self, channel: Channel, rows: Rows, features_RF: Tensor) -> Tensor:
        weight_R = rows.pt_R if channel.weight == "pt" else rows.real_R
        return weight_R if channel.feature is None else weight_R * features_RF[:, channel.feature]


def rows_of(particles: Particles) -> Rows:
    """Packed or dense particles as rows; coordinates that are not finite take no part."""
    if isinstance(particles, Packed):
        assert particles.coordinates_NK is not None
        x_RK, jet_R, jets = particles.coordinates_NK, particles.jet_N, len(particles.lengths_B)
        real_R = torch.ones_like(jet_R, dtype=torch.bool)
    else:
        assert particles.coordinates_BPK is not None
        jets, slots = particles.mask_BP.shape
        x_RK, real_R = particles.coordinates_BPK.flatten(0, 1), particles.mask_BP.flatten()
        jet_R = torch.arange(jets, device=x_RK.device).unsqueeze(1).expand(jets, slots).flatten()
    real_R = real_R & torch.isfinite(x_RK).all(1)
    x_RK = torch.where(real_R.unsqueeze(1), x_RK, 0.0)
    return Rows(x_RK[:, 0], x_RK[:, 1], x_RK[:, 2], real_R.to(x_RK.dtype), jet_R, jets)


def raw_features(particles: Particles) -> Tensor:
    """(R, F), with 0 for padding and for values that are not finite."""
    if isinstance(particles, Packed):
        x_RF = particles.features_NF
    else:
        x_RF = torch.where(particles.mask_BP.unsqueeze(-1), particles.features_BPF, 0.0).flatten(0, 1)
    return torch.where(torch.isfinite(x_RF), x_RF, 0.0)


class PixelNormalisation(nn.Module):
    """Divides each pixel by (its sigma + bias) and each channel to unit root mean square, once measured."""

    divisor_CHW: Tensor

    def __init__(self, channels: int, pixels: int) -> None:
        super().__init__()
        self.register_buffer("divisor_CHW", torch.ones(channels, pixels, pixels))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """The input's shape is kept."""
        return images_BCHW / self.divisor_CHW

    def fit(self, images_BCHW: Tensor, bias: float | None, names: Sequence[str]) -> list[str]:
        """Measures the pixels; bias in units of the channel's largest sigma, None: one divisor a channel."""
        warnings = []
        for name, images_BHW, divisor_HW in zip(names, images_BCHW.unbind(1), self.divisor_CHW, strict=True):
            x_BHW = images_BHW.double()
            if float(x_BHW.abs().max()) == 0:
                warnings.append(f"model.channels: '{name}' is 0 in every pixel of the training sample")
                divisor_HW.fill_(1.0)
                continue
            sigma_HW = x_BHW.std(0, correction=0)
            shape_HW = torch.ones_like(sigma_HW)
            if bias is not None and float(sigma_HW.max()) > 0:
                shape_HW = sigma_HW / sigma_HW.max() + bias
            fitted_HW = shape_HW * (x_BHW / shape_HW).square().mean().sqrt()
            if not bool(torch.isfinite(fitted_HW.float()).all()) or float(fitted_HW.float().min()) <= 0:
                raise JettaggerError(f"model.channels: pixels of '{name}' cannot be normalised")
            divisor_HW.copy_(fitted_HW)
        return warnings


def convolved_size(size: int, kernel: int, padding: int, pool: int) -> int:
    """Pixels along a side after a convolution and a pooling."""
    return math.floor((size + 2 * padding - kernel + 1) / pool)
