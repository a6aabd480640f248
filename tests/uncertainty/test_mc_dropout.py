"""MC dropout against exact answers: closed forms, all masks of a small network, every architecture."""

import copy
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from jettagger import models
from jettagger.batch import CollectionInput, Feature, Inputs, InputSpec, Packed
from jettagger.errors import JettaggerError
from jettagger.models.parts.dropout import Dropout, dropout_layers
from jettagger.models.parts.layers import BatchNorm
from jettagger.models.parts.model import JetModel
from jettagger.outputs.description import plain
from jettagger.uncertainty import mc_dropout as module
from jettagger.uncertainty.decomposition import decompose
from jettagger.uncertainty.mc_dropout import mc_dropout, pass_probabilities

SPEC = InputSpec(
    tuple(Feature(f"j{i}") for i in range(4)),
    (CollectionInput("particles", tuple(Feature(f"p{i}") for i in range(3)), 12, coordinates=True),),
)
SETTINGS = {
    "mlp": {"widths": [16, 16], "norm": "batch", "activation": "tanh"},
    "particle_cnn": {
        "widths": [16, 16],
        "dense": [16],
        "norm": "batch",
        "activation": "tanh",
        "summary": ["mean", "max", "attention"],
        "context": ["mean"],
    },
    "image_cnn": {
        "pixels": 9,
        "convolutions": [{"channels": 4, "pool": 2}, {"channels": 4}],
        "dense": [16],
        "activation": "tanh",
    },
}


def jets(number, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths_B = torch.randint(1, 13, (number,), generator=generator)
    rows = int(lengths_B.sum())
    coordinates_NK = torch.randn(rows, 3, generator=generator) * 0.3
    coordinates_NK[:, 2] = coordinates_NK[:, 2].exp()
    particles = Packed(torch.randn(rows, 3, generator=generator), lengths_B, coordinates_NK)
    return Inputs(torch.randn(number, 4, generator=generator), {"particles": particles})


def built(name, dropout=0.2, **more):
    rates = {key: dropout for key in models.config_class(name).model_fields if key.endswith("dropout")}
    settings = SETTINGS.get(name, {}) | rates | more
    config = models.config_class(name).model_validate(settings)
    model = models.build(config, SPEC, 3, torch.Generator().manual_seed(0))
    model.fit_inputs(jets(50))
    return model.eval()


class Thin(JetModel):
    """Dropout before each layer of a small ReLU network on the jet-level features."""

    inputs: ClassVar[InputSpec] = SPEC

    def __init__(self, sizes, p):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.dropouts = nn.ModuleList(Dropout(p, (a,)) for a in sizes[:-1])
        self.set_outputs(plain(sizes[-1]))

    def forward(self, inputs):
        x = inputs.jet_BF
        for i, (dropout, layer) in enumerate(zip(self.dropouts, self.layers, strict=True)):
            x = layer(dropout(x if i == 0 else x.relu()))
        return x

    def fit_inputs(self, sample):
        return []


def logits_of(probabilities):
    return np.log(probabilities[..., 0] / probabilities[..., 1])


def test_variance_of_dropout_before_a_linear_layer():
    """Var = p / (1 - p) sum (w x)²."""
    p, passes = 0.25, 10_000
    generator = torch.Generator().manual_seed(1)
    model = Thin([8, 2], p)
    with torch.no_grad():
        model.layers[0].weight.copy_(0.2 * torch.randn(2, 8, generator=generator))
        model.layers[0].bias.zero_()
    x_BF = torch.randn(3, 8, generator=generator)
    probabilities_TBC = np.stack(list(pass_probabilities(model, Inputs(x_BF, {}), passes, seed=3)))
    w_F = (model.layers[0].weight[0] - model.layers[0].weight[1]).detach().double()
    exact_B = (p / (1 - p) * (w_F * x_BF.double()).square().sum(1)).numpy()
    measured_B = logits_of(probabilities_TBC).var(0)
    assert measured_B == pytest.approx(exact_B, rel=6 * np.sqrt(2 / passes))
    assert logits_of(probabilities_TBC).mean(0) == pytest.approx(
        (x_BF.double() @ w_F).numpy(), abs=6 * np.sqrt(exact_B.max() / passes)
    )


def test_moments_of_all_1024_masks():
    """10 dropped units: mean, spread and mutual information over every mask, each with its probability."""
    p, passes = 0.3, 8_000
    torch.manual_seed(0)
    model = Thin([4, 6, 3], p).double()
    inputs = Inputs(torch.randn(2, 4, dtype=torch.float64), {})
    keep_M10 = (np.arange(1024)[:, None] >> np.arange(10)) & 1
    weight_M = (p ** (1 - keep_M10) * (1 - p) ** keep_M10).prod(1)
    probabilities = []
    for keep_10 in torch.from_numpy(keep_M10).double() / (1 - p):
        model.dropouts[0].mask, model.dropouts[1].mask = keep_10[:4], keep_10[4:]
        probabilities.append(model(inputs).softmax(-1).detach().numpy())
    model.dropouts[0].mask = model.dropouts[1].mask = None
    p_MNC = np.stack(probabilities)
    mean_NC = np.einsum("m,mnc->nc", weight_M, p_MNC)
    variance_NC = np.einsum("m,mnc->nc", weight_M, (p_MNC - mean_NC) ** 2)

    def entropy(q):
        return -(q * np.log(q)).sum(-1)

    information_N = entropy(mean_NC) - weight_M @ entropy(p_MNC)
    result = mc_dropout(model, inputs, passes, seed=1)
    assert result.samples == passes
    assert result.probabilities_NC == pytest.approx(mean_NC, abs=5 * np.sqrt(variance_NC.max() / passes))
    assert result.std_NC**2 == pytest.approx(variance_NC, rel=0.1)
    assert result.mutual_information_N == pytest.approx(information_N, rel=0.1)


@pytest.mark.parametrize("name", models.architectures())
def test_no_silent_dropout(name):
    model, inputs = built(name), jets(20)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        plain = mc_dropout(model, inputs, 8, seed=1)
    with torch.inference_mode():
        inferred = mc_dropout(model, inputs, 8, seed=1)
    assert (plain.std_NC > 0).all()
    assert inferred.std_NC == pytest.approx(plain.std_NC, abs=1e-6)
    assert not model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    mc_dropout(model.train(), inputs, 2, seed=1)
    assert all(layer.training for layer in model.modules() if isinstance(layer, BatchNorm))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Dynamo does not know how to trace:UserWarning"
)  # what it cannot trace runs eagerly
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("name", models.architectures())
def test_no_silent_dropout_under_compile(name):
    model, inputs = built(name), jets(20)
    expected = mc_dropout(model, inputs, 2, seed=1)
    # "eager" traces the graph without needing a C++ compiler.
    compiled = torch.compile(copy.deepcopy(model), backend="eager")
    masks = {path: module._masks(1, range(2), path, d.p, d.shape) for path, d in dropout_layers(model) if d.p}
    passes = []
    for t in range(2):
        for path, layer in dropout_layers(compiled._orig_mod):
            layer.mask = masks[path][t] if path in masks else None
        passes.append(compiled(inputs).softmax(-1).detach().double().numpy())
    assert decompose(np.stack(passes)).std_NC == pytest.approx(expected.std_NC, abs=1e-5)


@pytest.mark.parametrize("name", models.architectures())
def test_zeros_at_rate_p_before_every_weight_layer(name):
    p, drawn = 0.3, 400
    model, inputs = built(name), jets(3)
    masked_outputs, seen = [], []

    def after_dropout(layer, arguments, output):
        masked_outputs.append((output, layer.mask))

    def before_weights(path, arguments):
        mask = next(mask for output, mask in masked_outputs if output is arguments[0])
        assert not arguments[0][(mask == 0).expand_as(arguments[0])].any(), path
        seen.append(path)

    for path, layer in model.named_modules():
        if isinstance(layer, Dropout):
            masks = module._masks(2, range(drawn), path, p, layer.shape)
            rate, spread = (masks == 0).double().mean(), np.sqrt(p * (1 - p) / masks.numel())
            assert float(rate) == pytest.approx(p, abs=5 * spread)
            layer.mask = masks[0]
            layer.register_forward_hook(after_dropout)
        elif isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_pre_hook(lambda _, given, path=path: before_weights(path, given))
    model(inputs)
    weights = [path for path, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert sorted(seen) == sorted(weights)


@pytest.mark.parametrize("name", models.architectures())
def test_a_jet_does_not_depend_on_its_batch(name, monkeypatch):
    model, inputs = built(name), jets(20)
    together = mc_dropout(model, inputs, 11, seed=1)
    dense = inputs.dense().collections["particles"]
    for jet in (0, 7):
        one = type(dense)(
            dense.features_BPF[[jet]], dense.mask_BP[[jet]], dense.coordinates_BPK[[jet]]
        ).packed()
        alone = mc_dropout(model, Inputs(inputs.jet_BF[[jet]], {"particles": one}), 11, seed=1)
        assert alone.std_NC[0] == pytest.approx(together.std_NC[jet], abs=1e-5)
    monkeypatch.setattr(module, "LARGEST_CHUNK", 1)
    one_by_one = mc_dropout(model, inputs, 11, seed=1)
    assert one_by_one.std_NC == pytest.approx(together.std_NC, abs=1e-5)
    assert one_by_one.mutual_information_N == pytest.approx(together.mutual_information_N, abs=1e-5)


def test_dropout_in_the_head_alone_of_a_network_that_groups_its_jets():
    model = built("p_cnn", convolution_dropout=0.0)
    assert (mc_dropout(model, jets(5), 4, seed=1).std_NC > 0).all()


def test_lstm_runs_pass_by_pass_and_says_so(caplog):
    caplog.set_level("INFO")
    model = built("particle_cnn", summary={"lstm": 5})
    assert (mc_dropout(model, jets(5), 4, seed=1).std_NC > 0).all()
    assert "LSTM has no batching rule" in caplog.text


def test_seed_decides_and_the_global_stream_is_left_alone():
    model, inputs = built("mlp"), jets(5)
    state = torch.random.get_rng_state()
    a, b, c = (mc_dropout(model, inputs, 5, seed=seed).std_NC for seed in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_more_passes_begin_with_the_same_ones():
    model, inputs = built("mlp"), jets(5)
    few = list(pass_probabilities(model, inputs, 3, seed=1))
    many = list(pass_probabilities(model, inputs, 7, seed=1))
    assert np.stack(many[:3]) == pytest.approx(np.stack(few), abs=1e-6)


def test_a_model_without_dropout_is_refused():
    with pytest.raises(JettaggerError, match=r"MC dropout needs dropout > 0: set model\.dropout"):
        mc_dropout(built("mlp", dropout=0.0), jets(5), 4, seed=1)


def test_masks_are_put_back_after_an_error():
    model = built("mlp")
    with pytest.raises(RuntimeError):
        mc_dropout(model, Inputs(torch.zeros(2, 9), {}), 4, seed=1)
    assert all(layer.mask is None for _, layer in dropout_layers(model))
