"""P-CNN against the published network, written down with torch's own layers."""

import copy
import statistics
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from jettagger import models
from jettagger.batch import CollectionInput, Feature, Inputs, InputSpec, Packed
from jettagger.models.parts import slots
from jettagger.models.parts.dropout import Dropout, set_dropout_generator
from jettagger.models.parts.layers import BatchNorm

FEATURES, SLOTS = 7, 36
NAMED = tuple(Feature(f"x{i}", normalise="none") for i in range(FEATURES))
SPEC = InputSpec((), (CollectionInput("particles", NAMED, SLOTS),))


class Unit(nn.Module):
    """arXiv:2202.03772: two convolutions with batch norm and ReLU; the shortcut is added after the last ReLU."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(inputs, outputs, 3, stride, 1),
            nn.BatchNorm1d(outputs),
            nn.ReLU(),
            nn.Conv1d(outputs, outputs, 3, 1, 1),
            nn.BatchNorm1d(outputs),
            nn.ReLU(),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv1d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        return self.layers(x) + self.shortcut(x)


def published(outputs):
    """(B, F, P) with zeros in empty slots -> logits."""
    return nn.Sequential(
        nn.BatchNorm1d(FEATURES),
        nn.Conv1d(FEATURES, 32, 3, 1, 1),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        Unit(32, 64, 1),
        Unit(64, 64, 1),
        Unit(64, 64, 2),
        Unit(64, 64, 1),
        Unit(64, 128, 2),
        Unit(128, 128, 1),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(128, 512),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(512, outputs),
    )


def weight_layers(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear | nn.BatchNorm1d)]


def same_weights(ours, theirs):
    """Gives `theirs` our weights; layers come in the same order, but that our shortcut follows both convolutions."""
    for a, b in zip(weight_layers(ours), weight_layers(theirs), strict=True):
        with torch.no_grad():
            for name, value in a.state_dict().items():
                b.state_dict()[name].copy_(value.reshape(b.state_dict()[name].shape))


def build(dropout=0.0, seed=0, **settings):
    config = models.config_class("p_cnn").model_validate({"dropout": dropout, **settings})
    model = models.build(config, SPEC, 3, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def jets(number, dtype=torch.float32, lengths=(0, SLOTS + 5)):
    generator = torch.Generator().manual_seed(number)
    lengths_B = torch.randint(*lengths, (number,), generator=generator)
    features_NF = torch.randn(int(lengths_B.sum()), FEATURES, generator=generator, dtype=dtype)
    return Inputs(None, {"particles": Packed(features_NF, lengths_B)})


def padded(inputs):
    return inputs.dense({"particles": SLOTS}).collections["particles"].features_BPF.transpose(1, 2)


@pytest.mark.parametrize("form", ["packed", "dense"])
@pytest.mark.parametrize("training", [False, True])
def test_equals_the_published_network(form, training):
    # In training the statistics of a batch add rounding of their own, hence more digits.
    dtype, tolerance = (torch.float64, 1e-10) if training else (torch.float32, 1e-5)
    ours, theirs = build().to(dtype), published(3).to(dtype)
    same_weights(ours, theirs)
    ours.train(training)
    theirs.train(training)[-2].eval()
    inputs = jets(40, dtype)
    given = inputs if form == "packed" else inputs.dense({"particles": SLOTS + 9})
    torch.testing.assert_close(ours(given), theirs(padded(inputs)), rtol=tolerance, atol=tolerance)
    for a, b in zip(weight_layers(ours), weight_layers(theirs), strict=True):
        for (name, left), right in zip(a.named_buffers(), b.buffers(), strict=True):
            torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("lengths", [(0, SLOTS + 5), (0, 2), (SLOTS, SLOTS + 1), (1, 4)])
def test_gradients_equal_those_of_the_published_network(lengths, training):
    ours, theirs = build().double().train(training), published(3).double().train(training)
    theirs[-2].eval()
    same_weights(ours, theirs)
    inputs = jets(30, torch.float64, lengths)
    x_NF = inputs.collections["particles"].features_NF.requires_grad_()
    x_BFP = padded(inputs).detach().requires_grad_()
    target_BC = torch.randn(30, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    ((ours(inputs) - target_BC) ** 2).sum().backward()
    ((theirs(x_BFP) - target_BC) ** 2).sum().backward()
    mask_BP = inputs.dense({"particles": SLOTS}).collections["particles"].mask_BP
    kept = Packed(x_NF.grad, inputs.collections["particles"].lengths_B).dense(SLOTS)
    torch.testing.assert_close(
        kept.features_BPF[mask_BP], x_BFP.grad.transpose(1, 2)[mask_BP], rtol=1e-9, atol=1e-10
    )
    for a, b in zip(weight_layers(ours), weight_layers(theirs), strict=True):
        for (name, left), right in zip(a.named_parameters(), b.parameters(), strict=True):
            assert left.grad is not None
            torch.testing.assert_close(
                left.grad, right.grad.reshape(left.shape), rtol=1e-9, atol=1e-9, msg=f"{name} of {a}"
            )


@pytest.mark.parametrize("total", [1, 2, 3, 5, 21, 37, 38])
@pytest.mark.parametrize("training", [False, True])
def test_any_number_of_slots_gives_what_the_padded_batch_gives(total, training):
    spec = InputSpec((), (CollectionInput("particles", NAMED, total),))
    config = models.config_class("p_cnn").model_validate({"dropout": 0.0})
    model = models.build(config, spec, 3, torch.Generator().manual_seed(1)).double().train(training)
    inputs, found = jets(25, torch.float64), []
    for given in (inputs, inputs.dense({"particles": total})):
        copied = copy.deepcopy(model)
        logits_BC = copied(given)
        logits_BC.square().sum().backward()
        found.append([logits_BC.detach(), *(p.grad for p in copied.parameters())])
    for packed, dense in zip(*found, strict=True):
        torch.testing.assert_close(packed, dense, rtol=1e-8, atol=1e-9)


def test_dropout_in_convolutions_draws_for_every_slot():
    model, inputs = build(convolution_dropout=0.3).train(), jets(30)
    seen = []
    for module in model.modules():
        if isinstance(module, Dropout):
            module.register_forward_hook(lambda module, given, output: seen.append(output.shape))
    set_dropout_generator(model, torch.Generator().manual_seed(0))
    model(inputs)
    assert (30, 32, 1, SLOTS) in seen


def test_statistics_are_reduced_over_ranks():
    """Two ranks with the same jets have the statistics of one; their gradients are those of twice the loss."""
    inputs, grads = jets(30, torch.float64), []
    for reduce in (None, lambda x: 2 * x):
        model = build().double().train()
        for module in model.modules():
            if isinstance(module, BatchNorm):
                module.reduce = reduce
        copy.deepcopy(model)(inputs).square().sum().backward()
        logits_BC = model(inputs)
        logits_BC.square().sum().backward()
        grads.append((logits_BC.detach(), model.first.convolution.weight.grad))
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


class SumOfThreads(torch.autograd.Function):
    """The sum over threads that stand for ranks: see `distribution._Sum`."""

    @staticmethod
    def forward(ctx, x, meet):
        ctx.meet = meet
        return meet(x)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.meet(gradient), None


def meeting(threads):
    """A function that each thread calls with a tensor: it returns their sum, and fails where the shapes differ."""
    barrier, given = threading.Barrier(threads, timeout=20), {}

    def meet(x):
        given[threading.get_ident()] = x.clone()
        barrier.wait()
        assert len({one.shape for one in given.values()}) == 1
        total = torch.stack(list(given.values())).sum(0)
        barrier.wait()
        return total

    return meet


@pytest.mark.parametrize("shares", [(1, 2), (0, 3), (2, 1), (0, 1)])
def test_ranks_agree_however_few_jets_one_has(shares):
    model, inputs, meet = build().double().train(), jets(sum(shares), torch.float64), meeting(len(shares))
    packed = inputs.collections["particles"]
    parts = packed.lengths_B.split(shares)
    rows = packed.features_NF.split([int(lengths_B.sum()) for lengths_B in parts])

    def work(number):
        ranked = copy.deepcopy(model)
        for module in ranked.modules():
            if isinstance(module, BatchNorm):
                module.reduce = lambda x: SumOfThreads.apply(x, meet)
        logits_BC = ranked(Inputs(None, {"particles": Packed(rows[number], parts[number])}))
        logits_BC.square().sum().backward()
        return logits_BC.detach(), [p.grad for p in ranked.parameters()], ranked.input_norm.running_var

    with ThreadPoolExecutor(len(shares)) as pool:
        found = list(pool.map(work, range(len(shares))))
    logits_BC = model(inputs.dense({"particles": SLOTS}))
    logits_BC.square().sum().backward()
    torch.testing.assert_close(torch.cat([one[0] for one in found]), logits_BC, rtol=1e-9, atol=1e-10)
    for p, *of_ranks in zip(model.parameters(), *(one[1] for one in found), strict=True):
        torch.testing.assert_close(sum(of_ranks), p.grad, rtol=1e-8, atol=1e-9)
    for one in found:
        torch.testing.assert_close(one[2], model.input_norm.running_var, rtol=1e-9, atol=1e-10)


def test_bfloat16_stays_close_in_training():
    model, inputs = build().train(), jets(30)
    expected_BC = copy.deepcopy(model)(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        logits_BC = model(inputs)
    logits_BC.float().square().sum().backward()
    torch.testing.assert_close(logits_BC.float(), expected_BC, rtol=0.1, atol=0.15)
    assert all(torch.isfinite(p.grad).all() and p.grad.dtype == p.dtype for p in model.parameters())


def gradients(model, inputs, labels_B, *, narrow):
    copied = copy.deepcopy(model).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        logits_BC = copied(inputs)
    nn.functional.cross_entropy(logits_BC.float(), labels_B).backward()
    return torch.cat([p.grad.flatten() for p in copied.parameters()])


def test_gradients_in_bfloat16_are_as_good_as_those_of_the_padded_batch():
    """For most weights: where rounding switches off a ReLU of the padding, all jets differ, in either form."""
    spec = InputSpec((), (CollectionInput("particles", NAMED, 128),))
    config = models.config_class("p_cnn").model_validate({"dropout": 0.0})
    inputs = jets(512, lengths=(5, 60))
    dense = inputs.dense({"particles": 128})
    labels_B = torch.randint(3, (512,), generator=torch.Generator().manual_seed(0))
    ratios = []
    for seed in range(5):
        model = models.build(config, spec, 3, torch.Generator().manual_seed(seed))
        exact = gradients(model, dense, labels_B, narrow=False)
        packed, padded = (
            (gradients(model, x, labels_B, narrow=True) - exact).norm() for x in (inputs, dense)
        )
        ratios.append(float(packed / padded))
    assert statistics.median(ratios) < 1.2, ratios


@pytest.mark.parametrize("value", [1.0, 3.0, 30.0])
def test_a_constant_feature_of_full_jets_has_no_negative_variance(value):
    model, inputs = build().train(), jets(64, lengths=(SLOTS, SLOTS + 1))
    inputs.collections["particles"].features_NF[:, 3] = value
    expected_BC = copy.deepcopy(model)(inputs.dense({"particles": SLOTS}))
    torch.testing.assert_close(model(inputs), expected_BC, rtol=1e-3, atol=1e-3)


def sequence(inputs, beyond=(5, 4, 4)):
    return slots.in_sequence(inputs.collections["particles"], SLOTS, beyond)


def test_autocast_leaves_the_statistics_of_normalisation_in_float32():
    inputs = jets(300)
    found = []
    for narrow in (False, True):
        norm = BatchNorm(FEATURES).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            slots.normalise(norm, sequence(inputs), rectify=False)
        found.append(torch.cat([norm.running_mean, norm.running_var]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-7)


def test_the_tail_has_the_gradients_of_all_the_jets_that_take_its_slots():
    """Also in bfloat16, in which 256 + 1 would be 256."""
    whole = sequence(jets(600, lengths=(1, 2)))
    x_SF = torch.zeros(whole.layout.rows // 2, 16, dtype=torch.bfloat16, requires_grad=True)
    half = whole.halved(x_SF)
    g_HF = torch.ones_like(half.x_RF).index_fill(0, half.layout.zeros, 0.0)
    half.x_RF.backward(g_HF)
    tail_PF = x_SF.grad[whole.layout.tail // 2 :][: half.layout.total]
    # Of the slots after halving its own give the first, the tail's the others, and the margin behind.
    computed = int(half.layout.slots_J[0])
    own = int(whole.layout.slots_J[0]) // 2
    expected_P = torch.ones(half.layout.total)
    expected_P[own : computed + 1] += 600
    torch.testing.assert_close(tail_PF[:, 0].float(), expected_P, rtol=0.004, atol=0)


@pytest.mark.parametrize("features", [1, 7, 16, 17])
def test_any_number_of_features_is_that_of_the_padded_batch(features):
    spec = InputSpec((), (CollectionInput("particles", (NAMED * 3)[:features], SLOTS),))
    model = (
        models.build(models.config_class("p_cnn")(), spec, 3, torch.Generator().manual_seed(1))
        .double()
        .train()
    )
    packed = jets(5, torch.float64).collections["particles"]
    generator = torch.Generator().manual_seed(2)
    x_NF = torch.randn(len(packed.features_NF), features, dtype=torch.float64, generator=generator)
    inputs = Inputs(None, {"particles": Packed(x_NF, packed.lengths_B)})
    found = []
    for one in (inputs, inputs.dense({"particles": SLOTS})):
        copied = copy.deepcopy(model)
        set_dropout_generator(copied, torch.Generator().manual_seed(3))
        copied(one).square().sum().backward()
        found.append([*(p.grad for p in copied.parameters()), *copied.buffers()])
    for once, padded in zip(*found, strict=True):
        torch.testing.assert_close(once, padded, rtol=1e-8, atol=1e-9)


def test_gradients_in_evaluation_can_be_differentiated_again():
    model, inputs = build().double().eval(), jets(4, torch.float64)
    packed = inputs.collections["particles"]
    found = []
    for dense in (False, True):
        x_NF = packed.features_NF.clone().requires_grad_()
        one = Inputs(None, {"particles": Packed(x_NF, packed.lengths_B)})
        logits_BC = model(one.dense({"particles": SLOTS}) if dense else one)
        [first_NF] = torch.autograd.grad(logits_BC.square().sum(), x_NF, create_graph=True)
        found.append(torch.autograd.grad(first_NF.square().sum(), x_NF)[0])
    assert found[1].abs().max() > 1
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("outlier", [0.0, 100.0, 1e4])
def test_an_outlier_in_the_first_slot_leaves_the_statistics_right(outlier):
    particles = jets(2000, lengths=(1, 8)).collections["particles"]
    particles.features_NF[0] = outlier
    found = []
    for dtype in (torch.float32, torch.float64):
        norm = BatchNorm(FEATURES).to(dtype).train()
        narrow = Packed(particles.features_NF.to(dtype), particles.lengths_B)
        slots.normalise(norm, sequence(Inputs(None, {"particles": narrow})), rectify=False)
        found.append(torch.cat([norm.running_mean, norm.running_var - 0.9]).double())
    torch.testing.assert_close(*found, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_ranks_with_fewer_than_two_slots_between_them_use_the_running_statistics(number):
    """As BatchNorm does everywhere else."""
    spec = InputSpec((), (CollectionInput("particles", NAMED, 1),))
    model = (
        models.build(models.config_class("p_cnn")(), spec, 3, torch.Generator().manual_seed(1))
        .double()
        .train()
    )
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.running_mean += 0.3
            module.reduce = lambda x: x + 0  # the other ranks have no jets
    inputs = jets(number, torch.float64, lengths=(1, 2))
    found = []
    for one in (inputs, inputs.dense({"particles": 1})):
        copied = copy.deepcopy(model)
        set_dropout_generator(copied, torch.Generator().manual_seed(3))
        logits_BC = copied(one)
        logits_BC.square().sum().backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in copied.parameters()]
        found.append([logits_BC, *gradients, *copied.buffers()])
    for once, padded in zip(*found, strict=True):
        torch.testing.assert_close(once, padded, rtol=1e-8, atol=1e-7)
    assert int(copied.input_norm.num_batches_tracked) == (number > 1)
