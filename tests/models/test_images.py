"""Drawing jet images: each step against what it promises."""

import math

import pytest
import torch

from jettagger.batch import Packed
from jettagger.models.parts.images import Channel, JetImage, PixelNormalisation, flipped, rotated, rows_of

OFF = {"centre": False, "rotate": False, "flip": False, "normalise": False}
PT = (Channel("pt", None),)


def particles(rows, lengths=None, features=None):
    coordinates_NK = torch.tensor(rows, dtype=torch.float64)
    features_NF = torch.zeros(len(rows), 1) if features is None else torch.tensor(features).double()
    return Packed(features_NF, torch.tensor(lengths or [len(rows)]), coordinates_NK)


def random_jets(seed=0, jets=6):
    generator = torch.Generator().manual_seed(seed)
    x_NK = torch.randn(30 * jets, 3, generator=generator, dtype=torch.float64) * 0.2
    x_NK[:, 2] = torch.exp(6 * x_NK[:, 2])
    return Packed(torch.zeros(len(x_NK), 1), torch.full((jets,), 30), x_NK)


def image(channels=PT, pixels=5, half_width=0.5, **steps):
    return JetImage(channels, pixels=pixels, half_width=half_width, **(OFF | steps))


def test_pixels_add_up_what_falls_into_them():
    # 5 pixels of 0.2: eta -0.5..0.5 are columns, phi rows.
    x = particles([[0.0, 0.0, 2.0], [0.05, 0.05, 3.0], [0.4, -0.4, 7.0], [0.6, 0.0, 100.0]])
    drawn_HW = image()(x)[0, 0]
    assert float(drawn_HW[2, 2]) == 5
    assert float(drawn_HW[0, 4]) == 7
    assert float(drawn_HW.sum()) == 12
    assert float(image().outside(x)) == pytest.approx(100 / 112)


def test_channels_weight_with_raw_features():
    channels = [Channel("pt", 0), Channel("count", None), Channel("count", 0)]
    x = particles([[0, 0, 2.0], [0, 0, 3.0], [0, 0, 4.0]], features=[[1.0], [float("nan")], [2.0]])
    assert image(channels)(x)[0, :, 2, 2].tolist() == [10, 3, 3]


def test_empty_jets_are_black():
    drawn_BCHW = image(centre=True, rotate=True, flip=True, normalise=True)(particles([[0.1, 0, 1]], [0, 1]))
    assert not drawn_BCHW[0].any()
    assert float(drawn_BCHW[1].sum()) == 1


def test_centred_rotated_flipped_normalised():
    draw = image(centre=True, rotate=True, flip=True, normalise=True)
    rows = draw.placed(random_jets())
    for x_R in (rows.eta_R, rows.phi_R):
        torch.testing.assert_close(rows.sum(rows.pt_R * x_R), torch.zeros(6).double(), atol=1e-12, rtol=0)
        assert (rows.sum(rows.pt_R * x_R.sign()) >= -1e-12).all()
    mixed_B = rows.sum(rows.pt_R * rows.eta_R * rows.phi_R)
    torch.testing.assert_close(mixed_B, torch.zeros(6).double(), atol=1e-12, rtol=0)
    spread_B = rows.sum(rows.pt_R * rows.eta_R**2) - rows.sum(rows.pt_R * rows.phi_R**2)
    assert (spread_B > 0).all(), "the principal axis lies along eta"
    torch.testing.assert_close(rows.sum(rows.pt_R), torch.ones(6).double())


def test_angle_is_the_published_formula():
    x = random_jets(1)
    rows = rows_of(x)
    m20, m02 = rows.sum(rows.pt_R * rows.eta_R**2), rows.sum(rows.pt_R * rows.phi_R**2)
    m11 = rows.sum(rows.pt_R * rows.eta_R * rows.phi_R)
    theta_B = torch.atan(2 * m11 / (m20 - m02 + torch.sqrt(4 * m11**2 + (m20 - m02) ** 2)))
    theta_R = theta_B[rows.jet_R]
    eta_R = rows.eta_R * theta_R.cos() + rows.phi_R * theta_R.sin()
    turned = rotated(rows)
    torch.testing.assert_close(turned.eta_R.abs(), eta_R.abs(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.2, 2.0, math.pi, 5.0])
@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_image_does_not_depend_on_how_the_jet_lies(angle, mirror):
    x = random_jets()
    eta, phi, pt = x.coordinates_NK.unbind(1)
    moved_NK = torch.stack(
        [
            0.1 + eta * math.cos(angle) - mirror * phi * math.sin(angle),
            eta * math.sin(angle) + mirror * phi * math.cos(angle) - 0.2,
            3 * pt,
        ],
        dim=1,
    )
    draw = image(centre=True, rotate=True, flip=True, normalise=True, pixels=9)
    moved = Packed(x.features_NF, x.lengths_B, moved_NK)
    torch.testing.assert_close(draw(moved), draw(x), atol=1e-9, rtol=0)


def test_flip_alone_mirrors():
    turned = flipped(rows_of(particles([[-0.3, 0.1, 5.0], [0.2, -0.1, 1.0]])))
    assert turned.eta_R.tolist() == pytest.approx([0.3, -0.2])
    assert turned.phi_R.tolist() == pytest.approx([0.1, -0.1])


def test_packed_and_dense_draw_the_same():
    x = random_jets()
    draw = image(centre=True, rotate=True, flip=True, normalise=True, pixels=9)
    torch.testing.assert_close(draw(x.dense(40)), draw(x), atol=1e-14, rtol=0)


def test_pixel_normalisation_gives_unit_size_and_lifts_faint_pixels():
    images_BCHW = torch.rand(500, 2, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    images_BCHW[:, :, 0, 0] *= 0.01
    images_BCHW[:, 1] = 0
    layer = PixelNormalisation(2, 3).double()
    assert layer.fit(images_BCHW, 0.1, ["pt", "count"]) == [
        "model.channels: 'count' is 0 in every pixel of the training sample"
    ]
    y_BCHW = layer(images_BCHW)
    assert float(y_BCHW[:, 0].square().mean()) == pytest.approx(1)
    before, after = images_BCHW[:, 0, 0, 0].std(), y_BCHW[:, 0, 0, 0].std() / y_BCHW[:, 0, 1, 1].std()
    assert float(after) > 5 * float(before / images_BCHW[:, 0, 1, 1].std())
    layer.fit(images_BCHW, None, ["pt", "count"])
    assert float(layer.divisor_CHW[0].std()) == pytest.approx(0, abs=1e-12)


def test_model_draws_images_of_unit_size(make_model, make_jets):
    model = make_model(("image_cnn", {"pixels": 9}))
    assert torch.isfinite(model.normalise_pixels.divisor_CHW).all()
    assert (model.normalise_pixels.divisor_CHW > 0).all()
    assert float(model.images(make_jets(60, seed=99)).square().mean()) == pytest.approx(1, rel=1e-4)
