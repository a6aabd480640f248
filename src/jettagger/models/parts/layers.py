"""Layers without particles: activations, batch normalisation, dense blocks, the dense head.

Shapes: B jets, R rows (jets or particles), P particle slots, F features, C classes.

A block is norm -> dropout -> weights -> activation, so that dropout stands directly before every weight
layer. Chained, this is DeepJet's order (arXiv:2008.10519): weights -> activation -> norm -> dropout.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from jettagger.models.parts.dropout import Dropout

Activation = Literal["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"]
Norm = Literal["none", "batch", "layer"]
Layer = TypeVar("Layer", bound=nn.Module)

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def activation_layer(name: str) -> nn.Module:
    """A module, so that attribution methods see it; `linear` is the identity."""
    return _ACTIVATIONS[name]()


def followed_by(activation: str, layer: Layer) -> Layer:
    """Notes on a weight layer which activation follows it: its initialisation depends on that."""
    vars(layer)["followed_by"] = activation
    return layer


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over rows (R, F), slots (B, P, F) with a mask, or images (B, F, H, W).

    Padding never enters the statistics. A batch with fewer than two values a feature is normalised with the
    running statistics. arXiv:1502.03167.
    """

    reduce: Callable[[Tensor], Tensor] | None = None
    """Sums a tensor over the ranks of a distributed training, differentiably; set by the trainer."""
    real_rows: Mapping[int, Tensor] | None = None
    """Where members of an ensemble are trained together: of how many rows how many are real. The others come last and
    only make the members' rows equally many. Set by the trainer."""

    def forward(self, x: Tensor, mask_BP: Tensor | None = None) -> Tensor:
        """The input's shape is kept; features are the last axis with a mask, else the second."""
        if not self.training:
            return self._apply_statistics(x, mask_BP is not None, False)
        if mask_BP is None and self.real_rows is not None:
            if len(x) not in self.real_rows:
                raise RuntimeError(
                    f"batch normalisation over {len(x)} rows that are neither jets nor particles"
                )
            mask_R = torch.arange(len(x), device=x.device) < self.real_rows[len(x)]
            return self._over_real_rows(x, None, mask_R.view(-1, *(1 for _ in x.shape[2:])))
        if mask_BP is None and self.reduce is None:
            return self._apply_statistics(x, False, x.numel() > x.shape[1])
        return self._over_real_rows(x, mask_BP)

    def _apply_statistics(self, x: Tensor, features_last: bool, train: bool) -> Tensor:
        rows = x.flatten(0, 1) if features_last else x
        if train and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        y = functional.batch_norm(
            rows, self.running_mean, self.running_var, self.weight, self.bias,
            train, self.momentum or 0.0, self.eps,
        )  # fmt: skip
        return y.view(x.shape)

    def _over_real_rows(self, x: Tensor, mask_BP: Tensor | None, real: Tensor | None = None) -> Tensor:
        """`real` says in place of a mask which places (all axes but the features) count."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        rows = x.movedim(1, -1) if mask_BP is None else x
        if real is not None:
            real = real.to(rows.dtype).expand(rows.shape[:-1])
        else:
            real = rows.new_ones(rows.shape[:-1]) if mask_BP is None else mask_BP.to(rows.dtype)
        axes = tuple(range(rows.dim() - 1))
        masked = rows.to(self.running_mean.dtype) * real.unsqueeze(-1)
        sums = torch.cat([real.sum().view(1), masked.sum(axes)])
        sums = self.reduce(sums) if self.reduce else sums
        count, mean_F = sums[0].clamp(min=1), sums[1:] / sums[0].clamp(min=1)
        squares_F = ((rows - mean_F).square() * real.unsqueeze(-1)).sum(axes)
        squares_F = self.reduce(squares_F) if self.reduce else squares_F
        enough = count > 1
        with torch.no_grad():
            step = enough.to(mean_F.dtype) * (self.momentum or 0.0)
            unbiased_F = squares_F / (count - 1).clamp(min=1)
            self.running_mean.add_(step * (mean_F - self.running_mean))
            self.running_var.add_(step * (unbiased_F - self.running_var))
            self.num_batches_tracked.add_(enough)
        mean_F = torch.where(enough, mean_F, self.running_mean)
        variance_F = torch.where(enough, squares_F / count, self.running_var)
        y = (rows - mean_F) * torch.rsqrt(variance_F + self.eps) * self.weight + self.bias
        return y.movedim(-1, 1) if mask_BP is None else y


def norm_layer(kind: Norm, features: int) -> nn.Module:
    """Normalisation of `features` inputs; `none` is the identity."""
    if kind == "batch":
        return BatchNorm(features)
    return nn.LayerNorm(features) if kind == "layer" else nn.Identity()


class DenseBlock(nn.Module):
    """norm -> dropout -> linear -> activation, (R, F) -> (R, G)."""

    def __init__(self, inputs: int, outputs: int, activation: str, norm: Norm, dropout: float) -> None:
        super().__init__()
        self.norm = norm_layer(norm, inputs)
        self.dropout = Dropout(dropout, (inputs,))
        self.linear = followed_by(activation, nn.Linear(inputs, outputs))
        self.activation = activation_layer(activation)

    def forward(self, x_RF: Tensor) -> Tensor:
        """(R, F) -> (R, G)."""
        y_RG: Tensor = self.activation(self.linear(self.dropout(self.norm(x_RF))))
        return y_RG


class Head(nn.Sequential):
    """Dense blocks and a linear output: (B, F) -> logits (B, C). The first takes its inputs as they are."""

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        outputs: int,
        *,
        activation: Activation,
        norm: Norm,
        dropout: float,
        first_dropout: float | None = None,
    ) -> None:
        super().__init__()
        sizes = [inputs, *widths, outputs]
        for i, (n_in, n_out) in enumerate(pairwise(sizes)):
            rate = dropout if i or first_dropout is None else first_dropout
            last = i == len(widths)
            self.append(
                DenseBlock(n_in, n_out, "linear" if last else activation, norm if i else "none", rate)
            )
