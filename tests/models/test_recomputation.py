"""Activation checkpointing: every architecture has the same gradients to the last bit, and keeps less in memory."""

import copy

import pytest
import torch
from torch import nn

from jettagger.errors import JettaggerError
from jettagger.models.parts.dropout import set_dropout_generator
from jettagger.training.recomputation import recomputed


def step(model, inputs, seed=3):
    """Gradients and buffers after one step, and how many bytes were kept for it."""
    generator = torch.Generator().manual_seed(seed)
    set_dropout_generator(model, generator)
    model.train()
    kept = {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = model(inputs).square().sum()
    forward_state = generator.get_state()
    loss.backward()
    assert torch.equal(generator.get_state(), forward_state), "later draws do not hang on the second pass"
    gradients = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    return gradients, dict(model.named_buffers()), sum(kept.values())


def test_the_same_gradients(case, make_model, make_jets):
    model = make_model(case, dropout=0.3)
    again = copy.deepcopy(model)
    inputs = make_jets(40)
    gradients, buffers, _ = step(model, inputs)
    with recomputed(again):
        once_more, buffers_again, _ = step(again, inputs)
    for name, gradient in gradients.items():
        assert gradient is None or torch.equal(gradient, once_more[name]), name
    for name, buffer in buffers.items():
        assert torch.equal(buffer, buffers_again[name]), name
    again.eval(), model.eval()
    assert torch.equal(again(inputs), model(inputs))
    assert all("forward" not in vars(module) for module in again.modules())


def test_less_is_kept():
    block = [nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()]
    network = nn.Sequential(nn.Sequential(*(nn.Sequential(*copy.deepcopy(block)) for _ in range(5))))
    x_BF = torch.randn(1000, 64)
    *_, whole = step(network, x_BF)
    with recomputed(network):
        *_, less = step(network, x_BF)
    assert less < 0.6 * whole


def test_a_network_without_a_chain():
    with (
        pytest.raises(JettaggerError, match="has no chain of layers to compute again"),
        recomputed(nn.Linear(2, 2)),
    ):
        pass
