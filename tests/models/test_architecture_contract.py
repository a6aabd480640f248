"""What every architecture must fulfil; those in `models/` are found, not listed."""

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from jettagger import models
from jettagger.batch import Dense, Inputs, Packed
from jettagger.errors import JettaggerError
from jettagger.models.parts.dropout import Dropout, dropout_layers, set_dropout_generator


def randomised(model, seed=5):
    """Norm weights away from 1 and 0, so that nothing agrees by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def select(inputs, chosen):
    """Some jets, in the order asked for."""
    collections = {}
    for name, x in inputs.collections.items():
        dense = x.dense()
        coordinates = None if dense.coordinates_BPK is None else dense.coordinates_BPK[chosen]
        collections[name] = replace(
            dense,
            features_BPF=dense.features_BPF[chosen],
            mask_BP=dense.mask_BP[chosen],
            coordinates_BPK=coordinates,
        ).packed()
    return Inputs(inputs.jet_BF[chosen], collections)


def test_architectures_are_found():
    assert {"mlp", "image_cnn", "p_cnn", "particle_cnn", "particle_net"} <= set(models.architectures())
    assert "parts" not in models.architectures()


def test_names_are_known_without_torch():
    code = "import sys, jettagger.models as m; assert m.architectures(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_architecture_is_named():
    with pytest.raises(JettaggerError, match="'particel_cnn': did you mean 'particle_cnn'"):
        models.config_class("particel_cnn")


def test_config_documents_every_field(case):
    config = models.config_class(case[0])
    assert config.model_fields["architecture"].default == case[0]
    assert all(field.description for field in config.model_fields.values())


@pytest.mark.parametrize("number", [1, 2, 9])
def test_logits_have_their_shape_and_are_finite(case, make_model, make_jets, number):
    model = make_model(case)
    logits_BC = model(make_jets(number))
    assert logits_BC.shape == (number, 3)
    assert logits_BC.dtype == torch.float32
    assert torch.isfinite(logits_BC).all()


def test_a_batch_of_one_can_be_trained_on(case, make_model, make_jets):
    model = make_model(case, dropout=0.2).train()
    set_dropout_generator(model, torch.Generator().manual_seed(0))
    model(make_jets(1)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert all(torch.isfinite(buffer).all() for buffer in model.buffers())


def test_every_parameter_has_a_gradient(case, make_model, make_jets):
    model = randomised(make_model(case)).train()
    logits_BC = model(make_jets(40))
    nn.functional.cross_entropy(logits_BC, torch.arange(40) % 3).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert without == []


@pytest.mark.parametrize("training", [False, True])
def test_packed_and_dense_agree(case, make_model, make_jets, training):
    inputs = make_jets(17, dtype=torch.float64)
    packed = randomised(make_model(case)).double().train(training)
    dense = copy.deepcopy(packed)
    longer = inputs.dense({"particles": 25, "vertices": 6})
    torch.testing.assert_close(dense(longer), packed(inputs), rtol=0, atol=1e-10)
    for (name, a), b in zip(packed.named_buffers(), dense.buffers(), strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-10, msg=name)


def test_padding_is_ignored(case, make_model, make_jets):
    model = make_model(case)
    if model.fixed_length:
        pytest.skip("declares fixed_length")
    clean = make_jets(9).dense({"particles": 25, "vertices": 6})
    dirty = {}
    for name, x in clean.collections.items():
        padding_BP1 = ~x.mask_BP.unsqueeze(-1)
        coordinates = x.coordinates_BPK
        dirty[name] = replace(
            x,
            features_BPF=torch.where(padding_BP1, 3e38, x.features_BPF),
            coordinates_BPK=None if coordinates is None else torch.where(padding_BP1, 7e37, coordinates),
        )
    for training in (False, True):
        model.train(training)
        expected = copy.deepcopy(model)(clean)
        assert torch.equal(copy.deepcopy(model)(Inputs(clean.jet_BF, dirty)), expected)


def test_jets_do_not_see_each_other(case, make_model, make_jets):
    model, inputs = make_model(case), make_jets(12)
    together_BC = model(inputs)
    chosen = torch.tensor([7, 1, 4])
    torch.testing.assert_close(model(select(inputs, chosen)), together_BC[chosen], rtol=1e-5, atol=1e-5)


def test_order_of_particles_plays_no_role_where_claimed(case, make_model, make_jets):
    model, inputs = make_model(case).double(), make_jets(12, dtype=torch.float64)
    collections = {}
    for name, x in inputs.collections.items():
        generator = torch.Generator().manual_seed(3)
        order_N = torch.argsort(x.jet_N + 0.999 * torch.rand(len(x.jet_N), generator=generator))
        coordinates = None if x.coordinates_NK is None else x.coordinates_NK[order_N]
        collections[name] = Packed(x.features_NF[order_N], x.lengths_B, coordinates)
    gap = (model(Inputs(inputs.jet_BF, collections)) - model(inputs)).abs().max()
    assert (gap < 1e-10) == model.order_invariant


def test_dropout_stands_before_every_weight_layer(case, make_model, make_jets):
    model = make_model(case)
    dropped, missing = set(), []

    def after(module, arguments, output):
        dropped.add(id(output))
        kept.append(output)

    def before(name):
        def look(module, arguments):
            # An LSTM reads its particles in reverse: the same values, rearranged.
            if not isinstance(module, nn.LSTM) and id(arguments[0]) not in dropped:
                missing.append(name)

        return look

    kept = []
    for name, module in model.named_modules():
        if isinstance(module, Dropout):
            module.register_forward_hook(after)
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.LSTM):
            module.register_forward_pre_hook(before(name))
    model(make_jets(5))
    weights = sum(isinstance(m, nn.Linear | nn.Conv2d | nn.LSTM) for m in model.modules())
    assert missing == []
    assert len(list(dropout_layers(model))) == weights


def test_training_masks_come_from_the_generator_alone(case, make_model, make_jets):
    model, inputs = make_model(case, dropout=0.3).train(), make_jets(12)
    state = torch.random.get_rng_state()
    logits = []
    for seed in (1, 1, 2):
        member = copy.deepcopy(model)
        set_dropout_generator(member, torch.Generator().manual_seed(seed))
        logits.append(member(inputs))
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_weights_come_from_the_generator_alone(case, make_model):
    state = torch.random.get_rng_state()
    first, same, other = (make_model(case, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for (name, a), b in zip(first.state_dict().items(), same.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for (name, a), b in zip(first.named_parameters(), other.parameters(), strict=True):
        assert a.dim() == 1 or not torch.equal(a, b), name


def test_state_holds_everything(case, make_model, make_jets, spec):
    trained, inputs = randomised(make_model(case)), make_jets(9)
    with torch.no_grad():
        trained.train()(inputs)
    name, settings = case
    config = models.config_class(name).model_validate(settings)
    fresh = models.build(config, spec, 3, torch.Generator().manual_seed(8)).eval()
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(inputs), trained.eval()(inputs))


def test_values_that_are_not_finite_are_replaced(case, make_model, make_jets):
    model, inputs = make_model(case), make_jets(9)
    for fill in (float("nan"), float("inf"), -float("inf")):
        spoilt = {}
        for name, x in inputs.collections.items():
            features_NF = x.features_NF.clone()
            features_NF[::3] = fill
            coordinates_NK = None if x.coordinates_NK is None else x.coordinates_NK.clone()
            if coordinates_NK is not None:
                coordinates_NK[::4, 1] = fill
            spoilt[name] = Packed(features_NF, x.lengths_B, coordinates_NK)
        jet_BF = inputs.jet_BF.clone()
        jet_BF[::2, 1] = fill
        assert torch.isfinite(model(Inputs(jet_BF, spoilt))).all()


def test_bfloat16_autocast_stays_close(case, make_model, make_jets):
    model, inputs = make_model(case), make_jets(20)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low_BC = model(inputs)
    torch.testing.assert_close(low_BC.float(), model(inputs).detach(), rtol=0.1, atol=0.1)


class Flat(nn.Module):
    """A model whose inputs are tensors, as exporters want them."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, jet_BF, particles_BPF, real_BP, coordinates_BPK, vertices_BPF, real_vertices_BP):
        particles = Dense(particles_BPF, real_BP, coordinates_BPK)
        collections = {"particles": particles, "vertices": Dense(vertices_BPF, real_vertices_BP)}
        return self.model(Inputs(jet_BF, collections))


def tensors_of(inputs):
    dense = inputs.dense({"particles": 20, "vertices": 4}).collections
    particles, vertices = dense["particles"], dense["vertices"]
    return (
        inputs.jet_BF,
        particles.features_BPF,
        particles.mask_BP,
        particles.coordinates_BPK,
        vertices.features_BPF,
        vertices.mask_BP,
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # LSTM keeps its weights twice
def test_dense_forward_can_be_traced_for_any_batch_size(case, make_model, make_jets):
    flat = Flat(make_model(case))
    batch = torch.export.Dim("batch", min=1, max=4096)
    example, other = tensors_of(make_jets(5)), tensors_of(make_jets(11, seed=4))
    exported = torch.export.export(flat, example, dynamic_shapes=tuple({0: batch} for _ in example))
    torch.testing.assert_close(exported.module()(*other), flat(*other), rtol=1e-5, atol=1e-5)
