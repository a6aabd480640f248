"""Parameter counts and receptive fields against hand calculations."""

import pytest
import torch

from jettagger import models
from jettagger.batch import CollectionInput, Feature, Inputs, InputSpec, Packed
from jettagger.errors import JettaggerError
from jettagger.models.parts.layers import BatchNorm
from jettagger.models.parts.summary import summarise


def features(number):
    return tuple(Feature(f"x{i}") for i in range(number))


def built(name, spec, outputs, **settings):
    config = models.config_class(name).model_validate(settings)
    return models.build(config, spec, outputs, torch.Generator().manual_seed(0))


def test_small_mlp_has_321_weights_and_39_biases():
    model = built("mlp", InputSpec(jet=features(7)), 5, widths=[8, 9, 9, 8])
    biases = [p.numel() for p in model.parameters() if p.dim() == 1]
    assert sum(p.numel() for p in model.parameters() if p.dim() == 2) == 321
    assert sum(biases) == 39
    assert sum(biases[:-1]) == 34
    summary = summarise(model)
    assert summary.parameters == 360
    assert summary.flops == 2 * 321
    assert [row.shape for row in summary.layers] == [(8,), (9,), (9,), (8,), (5,)]
    assert "360 parameters" in str(summary)


def test_deepcsv_has_47504_parameters():
    model = built("mlp", InputSpec(jet=features(66)), 4, widths=[100] * 5)
    assert summarise(model).parameters == 47_504


def test_deepjet_has_its_published_number_of_parameters():
    """266,252 trained values with PyTorch's two LSTM biases, and 3,006 batch-norm statistics."""
    spec = InputSpec(
        features(15),
        (
            CollectionInput("charged", features(16), 25),
            CollectionInput("neutral", features(6), 25),
            CollectionInput("vertices", features(12), 4),
        ),
    )
    model = built(
        "particle_cnn",
        spec,
        6,
        widths=[64, 32, 32, 8],
        summary={"lstm": 150},
        collections={
            "neutral": {"widths": [32, 16, 4], "summary": {"lstm": 50}},
            "vertices": {"summary": {"lstm": 50}},
        },
        dense=[200, *[100] * 7],
        norm="batch",
        input_batch_norm=True,
        dropout=0.1,
    )
    assert summarise(model).parameters == 266_252
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    assert sum(norm.running_mean.numel() + norm.running_var.numel() for norm in norms) == 3_006


def test_published_image_network_has_263842_parameters():
    """The public code that goes with arXiv:1803.00107."""
    spec = InputSpec((), (CollectionInput("particles", features(3), 50, coordinates=True),))
    model = built(
        "image_cnn",
        spec,
        2,
        pixels=37,
        half_width=1.6,
        padding="valid",
        norm="none",
        convolutions=[
            {"channels": 32, "kernel": 4, "pool": 2},
            {"channels": 64, "kernel": 4, "pool": 2},
            {"channels": 64, "kernel": 2, "pool": 2},
        ],
        dense=[256, 256],
    )
    assert summarise(model).parameters == 263_842


def test_flops_grow_with_the_particles():
    spec = InputSpec((), (CollectionInput("particles", features(3), 50),))
    model = built("particle_cnn", spec, 2, widths=[8], summary=["mean"], dense=[])
    assert summarise(model).flops == 2 * (50 * 24 + 16)
    assert summarise(model, {"particles": 10}).flops == 2 * (10 * 24 + 16)


@pytest.mark.parametrize(
    "convolutions",
    [
        [{"channels": 3, "kernel": 3}],
        [{"channels": 3, "kernel": 3, "pool": 2}, {"channels": 2, "kernel": 3}],
        [{"channels": 3, "kernel": 5, "pool": 2}, {"channels": 2, "kernel": 3, "pool": 2}],
    ],
)
def test_receptive_field_is_the_support_of_the_gradient(convolutions):
    spec = InputSpec((), (CollectionInput("particles", features(1), 50, coordinates=True),))
    model = built(
        "image_cnn", spec, 2, pixels=41, half_width=0.82, convolutions=convolutions, norm="none",
        activation="sigmoid",
    ).double().eval()  # fmt: skip
    support = torch.zeros(41, 41, dtype=torch.bool)
    for seed in range(40):  # max pooling passes a gradient to one pixel at a time
        generator = torch.Generator().manual_seed(seed)
        image_BCHW = torch.randn(1, 1, 41, 41, generator=generator, dtype=torch.float64, requires_grad=True)
        maps_BCHW = model.convolutions(image_BCHW)
        centre = maps_BCHW.shape[-1] // 2
        maps_BCHW[0, :, centre, centre].sum().backward()
        support |= image_BCHW.grad[0, 0] != 0
    columns = support.any(0).nonzero()
    width = int(columns.max() - columns.min()) + 1
    pixels, radians = model.receptive_field()
    assert (pixels.size, pixels.unit) == (width, "pixels")
    assert radians.size == pytest.approx(width * 0.04)


def test_receptive_field_of_particles_is_one_without_context(spec, make_jets):
    for context, reach in (([], 1), (["mean"], 20)):
        model = built("particle_cnn", spec, 2, context=context, activation="gelu")
        assert model.receptive_field()[0].size == reach
        x = make_jets(1).collections["particles"]
        rows = x.features_NF.clone().requires_grad_()
        blocks = model.branches["particles"].blocks
        blocks(Packed(rows, x.lengths_B)).features_NF[0].sum().backward()
        assert rows.grad.any(1).sum() == (1 if reach == 1 else len(rows))


@pytest.mark.parametrize(
    ("name", "spec", "settings", "message"),
    [
        ("mlp", InputSpec(), {}, r"add inputs\.jet\.features"),
        ("particle_cnn", InputSpec(jet=features(2)), {}, "needs a collection of particles"),
        ("image_cnn", InputSpec(jet=features(2)), {}, r"add inputs\.particles\.coordinates"),
        (
            "image_cnn",
            InputSpec((), (CollectionInput("tracks", features(2), 9),)),
            {},
            r"add inputs\.tracks\.coordinates",
        ),
        (
            "image_cnn",
            InputSpec((), (CollectionInput("tracks", features(2), 9, True),)),
            {"channels": ["pt * x3"]},
            "unknown feature 'x3'.*allowed: x0, x1",
        ),
        (
            "image_cnn",
            InputSpec((), (CollectionInput("tracks", features(2), 9, True),)),
            {"channels": ["energy"]},
            "'energy' is none of pt, count",
        ),
        (
            "image_cnn",
            InputSpec((), tuple(CollectionInput(n, features(2), 9, True) for n in ("a", "b"))),
            {},
            r"say which collection to draw \(one of a, b\)",
        ),
        (
            "image_cnn",
            InputSpec((), (CollectionInput("tracks", features(2), 9, True),)),
            {"pixels": 8, "convolutions": [{"channels": 2, "pool": 9}]},
            "no pixel is left after number 1",
        ),
        (
            "particle_cnn",
            InputSpec((), (CollectionInput("tracks", features(2), 9),)),
            {"collections": {"track": {}}},
            "unknown collection 'track': did you mean 'tracks'",
        ),
        (
            "particle_cnn",
            InputSpec((), (CollectionInput("tracks", features(2), 9),)),
            {"summary": ["pt"]},
            r"add inputs\.tracks\.coordinates",
        ),
        (
            "particle_cnn",
            InputSpec((), (CollectionInput("tracks", features(2), 9),)),
            {"summary": ["attention"], "widths": [10]},
            "4 heads do not divide",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_explained(name, spec, settings, message):
    with pytest.raises(JettaggerError, match=message):
        built(name, spec, 2, **settings)


def test_inputs_knows_what_a_model_looks_at(spec, make_jets):
    assert built("mlp", spec, 2).inputs == InputSpec(jet=spec.jet)
    image = built("image_cnn", spec, 2, jet_features=False, pixels=9)
    only = Inputs(None, {"particles": make_jets(3).collections["particles"]})
    assert image.inputs == InputSpec((), spec.collections[:1])
    assert image(only).shape == (3, 2)
