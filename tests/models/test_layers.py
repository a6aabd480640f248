"""Shared layers against references and closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from jettagger.batch import Dense, Feature, Packed
from jettagger.errors import JettaggerError
from jettagger.models.parts.dropout import Dropout, draw_mask
from jettagger.models.parts.initialisation import gain, initialise
from jettagger.models.parts.layers import BatchNorm, Head
from jettagger.models.parts.normalisation import FeatureNormalisation, measure
from jettagger.models.parts.particles import LastState, Pool, softmax_over_particles

ACTIVATIONS = ["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_twenty_layers_keep_the_size_of_activations(activation):
    width, depth = 512, 20
    head = Head(width, [width] * depth, width, activation=activation, norm="none", dropout=0.0)
    initialise(head, generator(1))
    x = torch.randn(64, width, generator=generator(2))
    sizes = []
    with torch.no_grad():
        for block in list(head)[:-1]:
            sizes.append(float(block.linear(x).square().mean()))
            x = block(x)
    assert 1 / 4 < sizes[-1] / sizes[1] < 4


def test_gains_are_the_published_ones():
    assert gain("relu") == pytest.approx(math.sqrt(2), rel=1e-6)
    assert gain("selu") == pytest.approx(1, rel=1e-6)
    assert gain("tanh") == pytest.approx(1.5927, rel=1e-3)


@pytest.mark.parametrize(("scheme", "variance"), [("he", 2 / 300), ("xavier", 2 / 400), ("lecun", 1 / 300)])
def test_schemes_have_their_spread(scheme, variance):
    layer = nn.Linear(300, 100)
    initialise(layer, generator(), scheme)
    assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(variance), rel=0.02)
    assert not layer.bias.any()


def test_lstm_starts_orthogonal():
    lstm = nn.LSTM(5, 8)
    initialise(lstm, generator())
    for gate in lstm.weight_hh_l0.detach().chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(8), atol=1e-5, rtol=0)
    assert not lstm.bias_hh_l0.any()


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_masks_have_their_rate_and_mean_one(p):
    mask = draw_mask((1000, 401), p, generator())
    spread = math.sqrt(p * (1 - p) / mask.numel())
    assert float((mask == 0).double().mean()) == pytest.approx(p, abs=5 * spread + 2**-17)
    assert float(mask.double().mean()) == pytest.approx(1, abs=5 * spread / (1 - p))
    quarters = (mask == 0).double().flatten()[:400_000].view(-1, 4).mean(0)
    assert np.allclose(quarters, p, atol=10 * spread), "each 16-bit lane of a draw has the same rate"


def test_dropout_refuses_the_global_stream():
    layer = Dropout(0.5, (3,)).train()
    with pytest.raises(AssertionError, match="set_dropout_generator"):
        layer(torch.ones(2, 3))
    assert torch.equal(layer.eval()(torch.ones(2, 3)), torch.ones(2, 3))


def test_batch_norm_over_real_particles_equals_torch():
    x_BPF = torch.randn(6, 5, 3, generator=generator(), dtype=torch.float64)
    mask_BP = torch.rand(6, 5, generator=generator(1)) < 0.6
    ours, torchs = BatchNorm(3).double(), nn.BatchNorm1d(3).double()
    with torch.no_grad():
        y_NF, expected_NF = ours(x_BPF, mask_BP)[mask_BP], torchs(x_BPF[mask_BP])
    torch.testing.assert_close(y_NF, expected_NF, atol=1e-12, rtol=0)
    for (name, a), b in zip(ours.named_buffers(), torchs.buffers(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0, msg=name)


def test_batch_norm_reduces_sums_over_ranks():
    """Two ranks with 2 and 5 rows, whose sums are exchanged, equal one rank with 7."""
    x_RF = torch.randn(7, 3, generator=generator(), dtype=torch.float64)
    whole, part = BatchNorm(3).double(), BatchNorm(3).double()
    expected_RF = whole(x_RF)
    other_F = x_RF[2:].sum(0)
    mean_F = x_RF.mean(0)
    others = [
        torch.cat([torch.tensor([5.0], dtype=torch.float64), other_F]),
        (x_RF[2:] - mean_F).square().sum(0),
    ]
    part.reduce = lambda sums: sums + others.pop(0)
    torch.testing.assert_close(part(x_RF[:2]), expected_RF[:2], atol=1e-12, rtol=0)
    torch.testing.assert_close(part.running_var, whole.running_var, atol=1e-12, rtol=0)


def packed(lengths, features=4, seed=0):
    return Packed(
        torch.randn(sum(lengths), features, generator=generator(seed), dtype=torch.float64),
        torch.tensor(lengths),
    )


def test_softmax_over_particles_equals_torch():
    x = packed([3, 0, 5])
    expected = torch.cat([x.features_NF[:3].softmax(0), x.features_NF[3:].softmax(0)])
    torch.testing.assert_close(softmax_over_particles(x), expected)
    far = x.with_features(x.features_NF - 1e6)
    assert torch.isfinite(softmax_over_particles(far)).all()


def test_pools_of_a_known_jet():
    x = Packed(
        torch.tensor([[1.0, -2.0], [3.0, 4.0]]), torch.tensor([2, 0]), torch.tensor([[0.0, 0, 1], [0, 0, 3]])
    )
    pooled_BG = Pool(2, ["mean", "max", "sum", "pt"], 1, 0.0)(x)
    assert pooled_BG[0].tolist() == [2, 1, 3, 4, 4, 2, 2.5, 2.5]
    assert not pooled_BG[1].any()


def test_lstm_reads_the_hardest_last_and_no_padding():
    x = packed([3, 0, 5])
    layer = LastState(4, 6, 0.0).double()
    with torch.no_grad():
        state_BG = layer(x)
        expected_G = layer.lstm(x.features_NF[:3].flip(0).unsqueeze(0))[1][0][0, 0]
    torch.testing.assert_close(state_BG[0], expected_G)
    assert not state_BG[1].any()


def test_measured_normalisation():
    x_R = np.random.default_rng(0).normal(7, 2, 200_000)
    shift, scale = measure(x_R)
    assert shift == pytest.approx(7, abs=0.02)
    assert scale == pytest.approx(2, rel=0.01)
    assert measure(np.r_[np.zeros(95), np.ones(5)]) == pytest.approx((0.05, math.sqrt(0.05 * 0.95)))
    assert measure(np.full(10, 3.0)) == (3.0, 1.0)
    assert measure(np.array([])) == (0.0, 1.0)


def test_missing_then_scale_then_clip():
    features = [
        Feature("a", (10.0, 2.0), clip=(-3.0, 3.0), missing=12.0),
        Feature("b", "none", missing=-1.0),
        Feature("c", (5.0, 1.0)),
    ]
    layer = FeatureNormalisation(features, "inputs.jet.features")
    x = torch.tensor([[float("nan"), float("inf"), float("-inf")], [100.0, 7.0, 6.0]])
    assert layer(x).tolist() == [[1.0, -1.0, 0.0], [3.0, 7.0, 1.0]]


def test_fit_warns_of_constant_and_empty_features():
    layer = FeatureNormalisation([Feature("flat"), Feature("void"), Feature("fine")], "inputs.jet.features")
    warnings = layer.fit(torch.tensor([[1.0, float("nan"), 1.0], [1.0, float("inf"), 2.0]]))
    assert warnings == [
        "inputs.jet.features.flat is constant (1) in the training sample",
        "inputs.jet.features.void has no finite value in the training sample",
    ]
    assert torch.isfinite(layer(torch.tensor([[1.0, float("nan"), 9.0]]))).all()


@pytest.mark.parametrize("pair", [(float("nan"), 1.0), (0.0, 0.0), (0.0, 1e-60), (1e60, 1.0), (0.0, -1.0)])
def test_impossible_normalisation_names_the_feature(pair):
    with pytest.raises(JettaggerError, match=r"inputs\.jet\.features\.odd: normalisation has shift"):
        FeatureNormalisation([Feature("odd", pair)], "inputs.jet.features")


def test_fit_uses_real_particles_only(make_model, make_jets):
    inputs = make_jets(60)
    dense, model = inputs.dense(), make_model(("particle_cnn", {}))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.fit_inputs(inputs)
    from_packed = {name: value.clone() for name, value in model.state_dict().items()}
    assert any(not torch.equal(before[name], value) for name, value in from_packed.items())
    model.fit_inputs(dense)
    for name, value in model.state_dict().items():
        assert torch.equal(value, from_packed[name]), name


def test_dense_pool_ignores_padding():
    x = packed([3, 0, 2])
    dense = x.dense(7)
    assert isinstance(dense, Dense)
    dirty = dense.with_features(torch.where(dense.mask_BP.unsqueeze(-1), dense.features_BPF, 1e6))
    pool = Pool(4, ["mean", "max", "attention"], 2, 0.0).double()
    torch.testing.assert_close(pool(dirty), pool(x), atol=1e-12, rtol=0)
