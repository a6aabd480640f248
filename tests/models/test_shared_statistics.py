"""Ranks that share a batch sum the statistics of BatchNorm in one order, whatever part of it each has."""

import torch

from jettagger.models.parts.dropout import set_dropout_generator
from jettagger.models.parts.layers import BatchNorm


class Noted(torch.autograd.Function):
    """Stands for a sum over ranks: notes the shapes of what is summed, forwards and backwards."""

    @staticmethod
    def forward(ctx, x, shapes):
        ctx.shapes = shapes
        shapes.append(tuple(x.shape))
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.shapes.append(tuple(gradient.shape))
        return gradient.clone(), None


def test_no_part_of_a_batch_makes_a_rank_sum_otherwise_than_the_others(case, make_model, make_jets):
    found = []
    for number in (0, 1, 2, 5):
        model, shapes = make_model(case).train(), []
        for module in model.modules():
            if isinstance(module, BatchNorm):
                module.reduce = lambda x, shapes=shapes: Noted.apply(x, shapes)
        set_dropout_generator(model, torch.Generator().manual_seed(0))
        model(make_jets(number)).square().sum().backward()
        found.append(shapes)
    assert found[:-1] == 3 * found[-1:]
