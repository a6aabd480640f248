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


@pytest.mark.parametrize(
    ("inputs", "outputs", "parameters"),
    [(17, 10, 354_540), (13, 10, 354_148), (7, 10, 353_560), (7, 2, 349_456)],
)
def test_p_cnn_has_its_published_number_of_parameters(inputs, outputs, parameters):
    """arXiv:2202.03772: 354k; arXiv:1902.09914: 348k. The batch norm of the inputs is counted."""
    spec = InputSpec((), (CollectionInput("particles", features(inputs), 128),))
    model = built("p_cnn", spec, outputs)
    assert summarise(model).parameters == parameters
    assert sum(row.parameters for row in summarise(model).layers) == parameters


LITE = {"neighbours": 7, "edges": [[32, 32, 32], [64, 64, 64]], "dense": [128]}


@pytest.mark.parametrize(
    ("inputs", "outputs", "settings", "parameters"),
    [(17, 10, {}, 370_156), (7, 2, {}, 366_160), (7, 2, LITE, 26_416)],
)
def test_particle_net_has_its_published_number_of_parameters(inputs, outputs, settings, parameters):
    """arXiv:2202.03772: 370k; arXiv:1902.08570: 366k, and 26k for ParticleNet-Lite."""
    spec = InputSpec((), (CollectionInput("particles", features(inputs), 128, coordinates=True),))
    model = built("particle_net", spec, outputs, **settings)
    assert summarise(model).parameters == parameters
    assert sum(row.parameters for row in summarise(model).layers) == parameters


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


def test_flops_of_p_cnn():
    """Two operations for each weight in each slot: 10 slots, then 5 of the second stage."""
    spec = InputSpec((), (CollectionInput("particles", features(3), 10),))
    model = built("p_cnn", spec, 2, first=4, stages=[[6], [8]], dense=[5])
    first = 3 * 3 * 4 + (3 * 4 * 6 + 3 * 6 * 6 + 4 * 6)
    second = 3 * 6 * 8 + 3 * 8 * 8 + 6 * 8
    assert summarise(model).flops == 2 * (10 * first + 5 * second + 8 * 5 + 5 * 2)


def test_flops_of_particle_net():
    """The first layer of an edge convolution runs once for each particle, the others for each edge."""
    spec = InputSpec((), (CollectionInput("particles", features(3), 10, coordinates=True),))
    model = built("particle_net", spec, 2, neighbours=4, edges=[[6, 7]], dense=[5])
    assert summarise(model).flops == 2 * (10 * (6 * 6 + 3 * 7) + 10 * 4 * 6 * 7 + 7 * 5 + 5 * 2)
    assert summarise(model, {"particles": 5}).flops == 2 * (5 * (6 * 6 + 3 * 7) + 5 * 4 * 6 * 7 + 45)


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


@pytest.mark.parametrize("stages", [[[4]], [[4, 4], [4]], [[4], [4, 4], [4]]])
def test_receptive_field_of_p_cnn_is_the_support_of_the_gradient(stages):
    spec = InputSpec((), (CollectionInput("particles", features(2), 128),))
    model = built("p_cnn", spec, 2, first=3, stages=stages, dense=[]).double().eval()
    support = torch.zeros(128, dtype=torch.bool)
    for seed in range(20):  # a ReLU passes a gradient on half of the time
        generator = torch.Generator().manual_seed(seed)
        x_BF1P = torch.randn(1, 2, 1, 128, generator=generator, dtype=torch.float64, requires_grad=True)
        y_BF1P = torch.nn.Sequential(model.input_norm, model.first, *model.stages)(x_BF1P)
        y_BF1P[..., y_BF1P.shape[-1] // 2].sum().backward()
        support |= x_BF1P.grad[0].abs().sum((0, 1)) > 0
    slots = support.nonzero()
    assert model.receptive_field()[0].size == int(slots.max() - slots.min()) + 1


def test_receptive_field_of_particle_net_grows_with_the_layers(spec, make_jets):
    for edges, reach in (([[6]], 4), ([[6], [6]], 16), ([[6]] * 3, 20)):
        model = built("particle_net", spec, 2, neighbours=3, edges=edges)
        assert model.receptive_field()[0].size == reach


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
        ("p_cnn", InputSpec(jet=features(2)), {}, "p_cnn needs a collection of particles"),
        (
            "p_cnn",
            InputSpec((), tuple(CollectionInput(n, features(2), 9) for n in ("a", "b"))),
            {},
            r"say which collection p_cnn looks at \(one of a, b\)",
        ),
        (
            "p_cnn",
            InputSpec((), (CollectionInput("tracks", features(2), 9),)),
            {"collection": "track"},
            "unknown collection 'track': did you mean 'tracks'",
        ),
        (
            "particle_net",
            InputSpec((), (CollectionInput("tracks", features(2), 9),)),
            {},
            r"particle_net needs to know where particles lie: add inputs\.tracks\.coordinates",
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
