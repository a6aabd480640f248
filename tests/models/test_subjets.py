"""Subjets: found where they are, the same for every order and form, and mirrored as they should be."""

import pytest
import torch

from jettagger import models
from jettagger.batch import Packed
from jettagger.errors import JettaggerError
from jettagger.models.parts.subjets import Subjets

K = 3
RADIUS = 0.8
OWN = slice(K, 2 * K)
DISTANCES = slice(0, K)
GEOMETRY = slice(2 * K, 2 * K + 5)
"""Behind the one feature that the particles bring: distance, d_eta, d_phi, two shares."""


def three_clusters(seed=0, spread=0.01):
    """One jet: 4, 6 and 5 particles around three axes, which lie further apart than they are wide."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.tensor([[0.3, 0.1], [-0.25, 0.2], [0.0, -0.35]], dtype=torch.float64)
    of_N = torch.tensor([0] * 4 + [1] * 6 + [2] * 5)
    at_N2 = axes[of_N] + spread * torch.randn(len(of_N), 2, generator=generator, dtype=torch.float64)
    pt_N = torch.tensor([100.0, 30.0, 10.0], dtype=torch.float64)[of_N] * (
        0.5 + torch.rand(len(of_N), generator=generator, dtype=torch.float64)
    )
    return torch.cat([at_N2, pt_N.unsqueeze(1)], dim=1), of_N


def found(coordinates_NK, lengths=None, signed=(), features_NF=None, dense=False):
    """The appended features, packed."""
    lengths_B = torch.tensor([len(coordinates_NK)] if lengths is None else lengths)
    if features_NF is None:
        features_NF = torch.zeros(len(coordinates_NK), 1, dtype=torch.float64)
    particles = Packed(features_NF, lengths_B, coordinates_NK)
    block = Subjets(K, signed, RADIUS)
    out = block(particles.dense(20)).packed() if dense else block(particles)
    assert torch.equal(out.features_NF[:, : features_NF.shape[1]], features_NF)
    assert out.features_NF.shape[1] == features_NF.shape[1] + block.size
    return out.features_NF[:, features_NF.shape[1] :]


def many(number=30, seed=4):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 15, (number,), generator=generator).tolist()
    lengths[3:6] = [0, 1, 2]
    rows = sum(lengths)
    coordinates = torch.randn(rows, 3, generator=generator, dtype=torch.float64) * 0.3
    coordinates[:, 2] = torch.exp(2 + 3 * coordinates[:, 2])
    features = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    return coordinates, lengths, features


def test_three_separated_clusters_are_found():
    coordinates, of_N = three_clusters()
    x = found(coordinates)
    pt_N = coordinates[:, 2]
    axes = torch.stack(
        [
            (pt_N[of_N == k, None] * coordinates[of_N == k, :2]).sum(0) / pt_N[of_N == k].sum()
            for k in range(K)
        ]
    )
    sums = torch.stack([pt_N[of_N == k].sum() for k in range(K)])
    order = sums.argsort(descending=True)
    scale = 2 / RADIUS
    distance = (coordinates[:, None, :2] - axes[order]).norm(dim=-1)
    torch.testing.assert_close(x[:, DISTANCES], distance * scale, rtol=0, atol=1e-9)
    assert torch.equal(order[x[:, OWN].argmax(1)], of_N)
    assert (x[:, OWN].sum(1) == 1).all()
    offset = coordinates[:, :2] - axes[of_N]
    geometry = x[:, GEOMETRY]
    torch.testing.assert_close(geometry[:, 0], offset.norm(dim=1) * 2 * scale, rtol=0, atol=1e-9)
    torch.testing.assert_close(geometry[:, 1:3], offset * 2 * scale, rtol=0, atol=1e-9)
    share = torch.log(pt_N / sums[of_N]) / 2 + 1.5
    torch.testing.assert_close(geometry[:, 3], share, rtol=0, atol=1e-4)
    torch.testing.assert_close(geometry[:, 4], torch.log(sums[of_N] / sums.sum()), rtol=0, atol=1e-4)


def test_packed_and_dense_agree():
    coordinates, lengths, features = many()
    packed = found(coordinates, lengths, (1,), features)
    torch.testing.assert_close(
        found(coordinates, lengths, (1,), features, dense=True), packed, rtol=0, atol=1e-10
    )


def test_order_plays_no_role():
    coordinates, lengths, features = many()
    before = found(coordinates, lengths, (0,), features)
    generator = torch.Generator().manual_seed(0)
    jet_N = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    order = torch.randperm(len(jet_N), generator=generator)
    order = order[jet_N[order].argsort(stable=True)]
    assert not torch.equal(order, torch.arange(len(order)))
    after = found(coordinates[order], lengths, (0,), features[order])
    torch.testing.assert_close(after, before[order], rtol=0, atol=1e-10)


def test_jets_do_not_see_each_other():
    coordinates, lengths, features = many()
    whole = found(coordinates, lengths, (), features)
    start = sum(lengths[:10])
    rows = slice(start, start + lengths[10])
    torch.testing.assert_close(
        found(coordinates[rows], [lengths[10]], (), features[rows]), whole[rows], rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("dense", [False, True])
def test_few_particles(dense):
    """None, one, two, and several in one place."""
    coordinates = torch.tensor(
        [[0.1, 0.2, 5.0], [0.0, 0.3, 9.0], [0.2, -0.3, 4.0], *[[0.1, 0.1, 2.0]] * 4], dtype=torch.float64
    )
    x = found(coordinates, [0, 1, 2, 4, 0], dense=dense)
    assert torch.isfinite(x).all()
    assert (x[:, OWN].sum(1) == 1).all()
    torch.testing.assert_close(x[:3, GEOMETRY][:, :3], torch.zeros(3, 3, dtype=torch.float64))
    assert x[1, OWN].argmax() == 0, "the harder one is the first subjet"
    assert x[2, OWN].argmax() != 0


def test_no_jet_has_particles():
    assert found(torch.empty(0, 3, dtype=torch.float64), [0, 0]).shape == (0, 2 * K + 5)


@pytest.mark.parametrize(("axis", "flipped"), [(0, 1), (1, 2)])
def test_a_reflection_flips_only_what_is_odd(axis, flipped):
    """In eta: d_eta. In phi: d_phi, and the features that take its sign."""
    coordinates, lengths, features = many()
    before = found(coordinates, lengths, (0, 1), features)
    mirrored = coordinates.clone()
    mirrored[:, axis] *= -1
    after = found(mirrored, lengths, (0, 1), features)
    sign = torch.ones(before.shape[1], dtype=torch.float64)
    sign[2 * K + flipped] = -1
    if axis == 1:
        sign[2 * K + 5 :] = -1
    torch.testing.assert_close(after, before * sign, rtol=0, atol=1e-10)


def test_signed_features_take_the_side_of_the_axis():
    coordinates, of_N = three_clusters()
    features = torch.full((len(of_N), 2), 3.0, dtype=torch.float64)
    x = found(coordinates, None, (1,), features)
    assert x.shape[1] == 2 * K + 6
    assert torch.equal(x[:, -1], 3 * torch.sign(x[:, 2 * K + 2]))


def test_geometry_has_no_gradient_and_features_have():
    coordinates, lengths, features = many()
    features.requires_grad_()
    coordinates.requires_grad_()
    found(coordinates, lengths, (0,), features).sum().backward()
    assert coordinates.grad is None
    assert features.grad[:, 0].abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"collections": {"vertices": {"subjets": {}}}},
            r"model\.subjets: add inputs\.vertices\.coordinates",
        ),
        (
            {"collections": {"particles": {"subjets": {"signed": ["p11"]}}}},
            r"model\.subjets\.signed: unknown feature 'p11': did you mean 'p1'\?",
        ),
    ],
)
def test_settings_that_do_not_fit(spec, settings, message):
    config = models.config_class("particle_cnn").model_validate({"architecture": "particle_cnn", **settings})
    with pytest.raises(JettaggerError, match=message):
        models.check(config, spec, 3)
