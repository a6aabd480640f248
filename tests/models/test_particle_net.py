"""ParticleNet against a plain reference, jet by jet, as arXiv:1902.08570 describes it."""

import pytest
import torch
from torch import nn

from jettagger import models
from jettagger.batch import CollectionInput, Feature, Inputs, InputSpec, Packed
from jettagger.models.parts import neighbours
from jettagger.models.parts.neighbours import Neighbourhood

FEATURES, NEIGHBOURS = 5, 4
NAMED = tuple(Feature(f"x{i}", normalise="none") for i in range(FEATURES))
SPEC = InputSpec((), (CollectionInput("particles", NAMED, 30, coordinates=True),))


def jets(lengths, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    lengths_B = torch.tensor(lengths)
    rows = int(lengths_B.sum())
    features_NF = torch.randn(rows, FEATURES, generator=generator, dtype=dtype)
    coordinates_NK = torch.randn(rows, 3, generator=generator, dtype=dtype)
    return Inputs(None, {"particles": Packed(features_NF, lengths_B, coordinates_NK)})


def build(**settings):
    given = {"neighbours": NEIGHBOURS, "edges": [[8, 6], [6, 6], [9]], "dense": [7], **settings}
    config = models.config_class("particle_net").model_validate(given)
    model = models.build(config, SPEC, 3, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def nearest_others(places, number):
    """For each place the numbers of the nearest others; repeated, nearest first, where there are too few."""
    found, places = [], places.detach()
    for i, place in enumerate(places):
        others = [j for j in range(len(places)) if j != i] or [i]
        others.sort(key=lambda j: float(((places[j] - place) ** 2).sum()))
        nearest = others[:number]
        found.append([nearest[t % len(nearest)] for t in range(number)])
    return found


def batch_norm(norm, rows, training):
    mean = rows.mean(0) if training else norm.running_mean
    variance = rows.var(0, unbiased=False) if training else norm.running_var
    return (rows - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def reference(model, inputs, training):
    """All jets, each by itself but for batch normalisation; every edge is written down."""
    x = inputs.collections["particles"]
    lengths = x.lengths_B.tolist()
    places = [jet[:, :2] for jet in x.coordinates_NK.split(lengths)]
    rows = batch_norm(model.input_norm, x.features_NF, training)
    for block in model.blocks:
        features, edges, owners = rows.split(lengths), [], 0
        for place, feature in zip(places, features, strict=True):
            for i, others in enumerate(nearest_others(place, NEIGHBOURS)):
                edges += [torch.cat([feature[i], feature[j] - feature[i]]) for j in others]
            owners += len(place)
        edges = torch.stack(edges)
        for layer, norm in zip([block.first, *block.layers], block.norms, strict=True):
            edges = torch.relu(batch_norm(norm, edges @ layer.weight.T, training))
        mean = edges.view(owners, NEIGHBOURS, -1).mean(1)
        shortcut = rows
        if block.shortcut is not None:
            shortcut = batch_norm(block.shortcut_norm, rows @ block.shortcut[1].weight.T, training)
        rows = torch.relu(shortcut + mean)
        places = rows.split(lengths)
    summed = torch.stack([jet.sum(0) / max(len(jet), 1) for jet in rows.split(lengths)])
    first, last = model.head
    hidden = torch.relu(nn.functional.linear(summed, first.linear.weight, first.linear.bias))
    return nn.functional.linear(hidden, last.linear.weight, last.linear.bias)


@pytest.mark.parametrize("form", ["packed", "dense"])
@pytest.mark.parametrize("training", [False, True])
def test_equals_the_reference(form, training, monkeypatch):
    monkeypatch.setattr(neighbours, "JETS_PER_GROUP", 3)
    model, inputs = build().train(training), jets([9, 0, 1, 2, 4, 5, 6, 20, 30, 3])
    expected = reference(model, inputs, training)
    given = inputs if form == "packed" else inputs.dense({"particles": 33})
    torch.testing.assert_close(model(given), expected, rtol=1e-5, atol=1e-5)


def test_gradients_equal_those_of_the_reference():
    model, inputs = build().double().train(), jets([9, 1, 2, 20, 5], torch.float64)
    names, parameters = zip(*model.named_parameters(), strict=True)
    ours = torch.autograd.grad(model(inputs).square().sum(), parameters)
    theirs = torch.autograd.grad(reference(model, inputs, True).square().sum(), parameters)
    for name, a, b in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10, msg=name)


def test_neighbours_are_real_particles_of_the_same_jet(monkeypatch):
    monkeypatch.setattr(neighbours, "JETS_PER_GROUP", 2)
    particles = jets([7, 0, 1, 3, 12]).collections["particles"]
    place = particles.coordinates_NK[:, :2]
    found = Neighbourhood(particles).nearest(place, 5).tolist()
    expected, first = [], 0
    for jet in place.split(particles.lengths_B.tolist()):
        expected += [[first + j for j in others] for others in nearest_others(jet, 5)]
        first += len(jet)
    assert found == expected
    assert found[7] == [7] * 5  # a lone particle is its own neighbour
    dense = particles.dense(15)
    rows = Neighbourhood(dense).nearest(dense.coordinates_BPK[..., :2], 5)
    assert dense.mask_BP.flatten()[rows[dense.mask_BP]].all()


def test_only_empty_jets_survive():
    model = build().train()
    logits_BC = model(jets([0, 0]))
    assert torch.isfinite(logits_BC).all()
    assert torch.equal(logits_BC[0], logits_BC[1])


def test_equal_places_are_no_fault():
    inputs = jets([8, 3])
    particles = inputs.collections["particles"]
    same = Packed(
        torch.zeros_like(particles.features_NF),
        particles.lengths_B,
        torch.zeros_like(particles.coordinates_NK),
    )
    assert torch.isfinite(build().train()(Inputs(None, {"particles": same}))).all()
