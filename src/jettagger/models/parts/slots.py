"""Convolutions along the particles of a jet, padding included, in which no padding is computed twice.

Beyond its last particle, and as far beyond as a convolution mixes, a jet looks like a jet without particles. So
one empty jet, the tail, is computed for a whole batch and stands for the padding of all jets: it enters batch
normalisation and the mean as often as it stands for a slot. Results are those of the padded batch.

A group of jets keeps its slots with a margin of one slot on both sides: 0 before the first; after the last what
would follow there, the tail's slot or 0. So the rows of all its jets are one long sequence, and a convolution is
three matrix products, each with the sequence shifted by a row; what it puts into the margins is thrown away.

Shapes: B jets, b jets of a group, P slots, S slots that a group keeps, E = S + 2, F, G features, R rows.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from jettagger.batch import Packed
from jettagger.models.parts.layers import BatchNorm

JETS_PER_GROUP = 64
MOST_GROUPS = 8

Reduce = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Slots:
    """The first slots of every jet, jets of similar length together, and an empty jet for the slots that follow."""

    groups: tuple[Tensor, ...]
    """(b, E, F) each, with margins; all slots that follow would be equal to the tail's."""
    tail_1EF: Tensor
    """An empty jet with all its slots, E = P + 2."""
    place_B: Tensor
    """Where each jet of the batch is found in the groups."""

    @property
    def total(self) -> int:
        """P."""
        return self.tail_1EF.shape[1] - 2

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The tail and the groups."""
        return self.tail_1EF, *self.groups

    def of(self, parts: Iterable[Tensor]) -> "Slots":
        """The same jets with another tail and other groups."""
        tail_1EF, *groups = parts
        return replace(self, tail_1EF=tail_1EF, groups=tuple(groups))

    def plus(self, other: "Slots") -> "Slots":
        """The sum, slot by slot."""
        return self.of(a + b for a, b in zip(self.parts, other.parts, strict=True))

    def kept(self, slots: Sequence[int]) -> "Slots":
        """The same with as many slots a group, or with all where there are fewer; never fewer than before."""
        groups = []
        for x_bEF, wanted in zip(self.groups, slots, strict=True):
            last = min(wanted, self.total)
            more_1SF = self.tail_1EF[:, x_bEF.shape[1] - 1 : last + 2].expand(len(x_bEF), -1, -1)
            groups.append(torch.cat([x_bEF[:, :-1], more_1SF], dim=1) if last + 2 > x_bEF.shape[1] else x_bEF)
        return replace(self, groups=tuple(groups))

    def mean(self) -> Tensor:
        """Mean over all P slots, (B, F), in the order of the batch."""
        sums = [
            x_bEF[:, 1:-1].sum(1) + self.tail_1EF[:, x_bEF.shape[1] - 1 : -1].sum(1) for x_bEF in self.groups
        ]
        return torch.cat(sums).index_select(0, self.place_B) / self.total

    def standing_for(self) -> Tensor:
        """How many slots of other jets each of the tail's stands for, (E,); none for its margins."""
        numbers_E = self.tail_1EF.new_zeros(self.total + 2)
        for x_bEF in self.groups:
            numbers_E[x_bEF.shape[1] - 1 : -1] += len(x_bEF)
        return numbers_E


def grouped(particles: Packed, total: int) -> tuple[Slots, list[int]]:
    """Jets of similar lengths together, and the most particles that a jet of each group has.

    Looks at the lengths, for which an accelerator would have to wait.
    """
    x_BPF = functional.pad(particles.dense(total).features_BPF, (0, 0, 1, 1))
    order_B = particles.lengths_B.argsort(stable=True)
    number = min(MOST_GROUPS, max(1, len(order_B) // JETS_PER_GROUP))
    jets = order_B.tensor_split(number)
    lengths = [min(int(particles.lengths_B[jets_b[-1]]), total) for jets_b in jets]
    groups = [
        x_BPF[:, : length + 2].index_select(0, jets_b) for jets_b, length in zip(jets, lengths, strict=True)
    ]
    # The slot after a group's last particle is empty: of its jets, and of the tail.
    tail_1EF = x_BPF.new_zeros(1, total + 2, x_BPF.shape[2])
    return Slots(tuple(groups), tail_1EF, order_B.argsort()), lengths


def convolve(convolution: nn.Conv2d, slots: Slots) -> Slots:
    """A convolution over three neighbours, with zeros on both sides of a jet; margins come out as 0."""
    if convolution.stride[1] == 1 and convolution.training:
        return slots.of(_Convolve.apply(convolution.weight, convolution.bias, *slots.parts))  # type: ignore[no-untyped-call]
    if convolution.stride[1] == 1:
        # Of PyTorch's own operations, so that it can be vectorised (MC dropout) and differentiated twice.
        matrices, bias_G = _shifted(convolution.weight), convolution.bias
        assert bias_G is not None

        def pass_over(x_bEF: Tensor) -> Tensor:
            neighbours = x_bEF[:, :-2], x_bEF[:, 1:-1], x_bEF[:, 2:]
            before, centre, behind = (x @ w for x, w in zip(neighbours, matrices, strict=True))
            y_bPG = before + centre + behind
            return functional.pad(y_bPG + bias_G.to(y_bPG.dtype), (0, 0, 1, 1))

        return slots.of(map(pass_over, slots.parts))
    weight_GF = convolution.weight[:, :, 0].transpose(1, 2).flatten(1)

    def halve(x_bEF: Tensor) -> Tensor:
        neighbours = x_bEF[:, :-2:2], x_bEF[:, 1:-1:2], x_bEF[:, 2::2]
        y_bSG = functional.linear(torch.cat(neighbours, dim=2), weight_GF, convolution.bias)
        return functional.pad(y_bSG, (0, 0, 1, 1))

    return slots.of(map(halve, slots.parts))


def map_linearly(convolution: nn.Conv2d, slots: Slots) -> Slots:
    """A convolution over one slot, without bias."""
    weight_GF = convolution.weight.flatten(1)
    if convolution.stride[1] == 1:
        return slots.of(functional.linear(x_bEF, weight_GF) for x_bEF in slots.parts)
    tail_1EG, *groups = [
        functional.pad(functional.linear(x_bEF[:, 1:-1:2], weight_GF), (0, 0, 1, 1)) for x_bEF in slots.parts
    ]
    ends = [tail_1EG[:, y_bEG.shape[1] - 1].unsqueeze(1).expand(len(y_bEG), -1, -1) for y_bEG in groups]
    parts = [torch.cat([y_bEG[:, :-1], end_b1G], 1) for y_bEG, end_b1G in zip(groups, ends, strict=True)]
    return slots.of((tail_1EG, *parts))


def normalise(norm: BatchNorm, slots: Slots, *, rectify: bool) -> Slots:
    """Batch normalisation over all P slots of all jets, [ReLU]. Margins have to be 0, and come out as they are meant.

    In evaluation the running statistics are used. A batch of two slots at least is taken for granted.
    """
    running = norm.running_mean, norm.running_var, norm.num_batches_tracked
    assert running[0] is not None
    assert running[1] is not None
    assert running[2] is not None
    weights = norm.weight, norm.bias
    if not norm.training:
        return slots.of(_apply(slots.parts, running[0], running[1], *weights, norm.eps, rectify))
    settings = norm.eps, norm.reduce, rectify
    *parts, count, mean_F, variance_F = _Normalise.apply(  # type: ignore[no-untyped-call]
        settings, slots.standing_for(), *weights, *slots.parts
    )
    with torch.no_grad():
        momentum = norm.momentum or 0.0
        running[0].lerp_(mean_F.to(running[0].dtype), momentum)
        running[1].lerp_((variance_F * (count / (count - 1))).to(running[1].dtype), momentum)
        running[2].add_(1)
    return slots.of(parts)


def _apply(
    parts: Sequence[Tensor],
    mean_F: Tensor,
    variance_F: Tensor,
    weight_F: Tensor,
    bias_F: Tensor,
    eps: float,
    rectify: bool,
) -> list[Tensor]:
    """(x - mean) / σ · weight + bias [ReLU], with margins: 0 before the first slot, the tail's after the last."""
    scale_F = torch.rsqrt(variance_F + eps) * weight_F
    shift_F = bias_F - mean_F * scale_F
    dtype = parts[0].dtype
    normed = [torch.addcmul(shift_F.to(dtype), x_bEF, scale_F.to(dtype)) for x_bEF in parts]
    tail_1EF = normed[0]
    for y_bEF in normed:
        y_bEF[:, 0] = 0
    tail_1EF[:, -1] = 0
    for y_bEF in normed[1:]:
        y_bEF[:, -1] = tail_1EF[:, y_bEF.shape[1] - 1]
    # Last of all: autograd keeps what it gives, which may not change afterwards.
    return [y_bEF.relu_() for y_bEF in normed] if rectify else normed


def _rows(x_bEF: Tensor) -> Tensor:
    return x_bEF.reshape(-1, x_bEF.shape[-1])


def _shifted(weight_GF13: Tensor) -> list[Tensor]:
    """Its three matrices, (F, G) each, for the slot before, the slot itself and the slot behind."""
    return list(weight_GF13[:, :, 0].permute(2, 1, 0).contiguous())


class _Convolve(torch.autograd.Function):
    """The convolution with stride 1: weight (G, F, 1, 3), bias (G,), then parts (b, E, F) -> parts (b, E, G)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias_G: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        narrow = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if narrow else parts[0].dtype
        before, centre, behind = _shifted(weight.to(dtype))
        parts = tuple(x_bEF.to(dtype) for x_bEF in parts)
        convolved = []
        for x_bEF in parts:
            x_RF = _rows(x_bEF)
            y_RG = x_RF.new_empty(len(x_RF), len(bias_G))
            inner_RG = torch.addmm(bias_G.to(dtype), x_RF[:-2], before, out=y_RG[1:-1])
            inner_RG.addmm_(x_RF[1:-1], centre).addmm_(x_RF[2:], behind)
            y_bEG = y_RG.view(*x_bEF.shape[:2], -1)
            y_bEG[:, 0] = 0
            y_bEG[:, -1] = 0
            convolved.append(y_bEG)
        ctx.save_for_backward(weight, *parts)
        return tuple(convolved)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, *parts = ctx.saved_tensors
        matrices = _shifted(weight.to(parts[0].dtype))
        into_weight = [torch.zeros_like(matrix_FG, dtype=weight.dtype) for matrix_FG in matrices]
        into_bias_G = weight.new_zeros(len(weight))
        into_parts: list[Tensor | None] = []
        for index, (x_bEF, g_bEG) in enumerate(zip(parts, gradients, strict=True)):
            # Normalisation gives no gradient to the margins.
            x_RF, g_RG = _rows(x_bEF), _rows(g_bEG)
            inner_RG, last = g_RG[1:-1], len(g_RG) - 2
            into_bias_G += g_RG.sum(0)
            for shift, into_FG in enumerate(into_weight):
                into_FG += x_RF[shift : shift + last].t() @ inner_RG
            if not ctx.needs_input_grad[2 + index]:
                into_parts.append(None)
                continue
            d_RF = torch.empty_like(x_RF)
            d_RF[0] = 0
            d_RF[-1] = 0
            torch.mm(inner_RG, matrices[1].t(), out=d_RF[1:-1])
            for shift in (0, 2):
                d_RF[shift : shift + last].addmm_(inner_RG, matrices[shift].t())
            into_parts.append(d_RF.view(x_bEF.shape))
        return (torch.stack(into_weight, 2).permute(1, 0, 2).unsqueeze(2), into_bias_G, *into_parts)


class _Normalise(torch.autograd.Function):
    """Normalises parts with their common mean and variance, in which the tail's slots count `times_E`.

    Returns the parts, and the number of slots, their mean and their variance.
    """

    @staticmethod
    def forward(
        ctx: Any,
        settings: tuple[float, Reduce | None, bool],
        times_E: Tensor,
        weight_F: Tensor,
        bias_F: Tensor,
        *parts: Tensor,
    ) -> tuple[Tensor, ...]:
        eps, reduce, rectify = settings
        count, mean_F, variance_F = _moments(parts, times_E.to(weight_F.dtype), reduce)
        normed = _apply(parts, mean_F, variance_F, weight_F, bias_F, eps, rectify)
        ctx.settings = settings
        saved = times_E, weight_F, count, mean_F, variance_F
        ctx.save_for_backward(*saved, *parts, *(normed if rectify else ()))
        ctx.mark_non_differentiable(count, mean_F, variance_F)
        return (*normed, count, mean_F, variance_F)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        eps, reduce, rectify = ctx.settings
        times_E, weight_F, count, mean_F, variance_F, *saved = ctx.saved_tensors
        given = list(gradients[:-3])
        parts, normed = saved[: len(given)], saved[len(given) :]
        if rectify:
            pairs = zip(given, normed, strict=True)
            given = [torch.ops.aten.threshold_backward(g, y_bEF, 0) for g, y_bEF in pairs]
        else:
            given = [g.clone() for g in given]
        _clear_margins(given)
        rate_F = torch.rsqrt(variance_F + eps)
        # A gradient of the tail is already that of all the slots that it stands for.
        found = [
            torch.ops.aten.native_batch_norm_backward(
                _rows(g), _rows(x), weight_F, mean_F, variance_F, None, None, False, eps, [False, True, True]
            )
            for g, x in zip(given, parts, strict=True)
        ]
        own_2F = torch.stack([torch.stack(both[1:]) for both in found]).sum(0)
        sums_2F = own_2F if reduce is None else reduce(own_2F)
        scale_F = rate_F * weight_F
        slope_F = -scale_F * rate_F * sums_2F[0] / count
        level_F = -scale_F * sums_2F[1] / count - slope_F * mean_F
        scale_F, slope_F, level_F = (x_F.to(parts[0].dtype) for x_F in (scale_F, slope_F, level_F))
        results: list[Tensor] = []
        for g, x_bEF in zip(given, parts, strict=True):
            d_bEF = torch.addcmul(level_F, x_bEF, slope_F)
            if not results:
                d_bEF *= times_E.unsqueeze(1)
            d_bEF.addcmul_(g, scale_F)
            d_bEF[:, 0] = 0
            d_bEF[:, -1] = 0
            results.append(d_bEF)
        return (None, None, own_2F[0], own_2F[1], *results)


def _clear_margins(gradients: list[Tensor]) -> None:
    """Sets the gradients of all margins to 0; what was behind a group's last slot goes to the tail."""
    tail_1EF, *groups = gradients
    tail_1EF[:, 0] = 0
    tail_1EF[:, -1] = 0
    for g_bEF in groups:
        if g_bEF.shape[1] < tail_1EF.shape[1]:
            tail_1EF[0, g_bEF.shape[1] - 1] += g_bEF[:, -1].sum(0)
        g_bEF[:, 0] = 0
        g_bEF[:, -1] = 0


def _moments(
    parts: Sequence[Tensor], times_E: Tensor, reduce: Reduce | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Number, mean and (biased) variance of all slots: of the groups' own, and of the tail's `times_E`."""
    tail_EF = parts[0][0].to(times_E.dtype)
    margins = [2 * len(x_bEF) for x_bEF in parts[1:]]
    rows = [x_bEF.shape[0] * x_bEF.shape[1] for x_bEF in parts[1:]]
    like = torch.zeros_like(tail_EF[0]), torch.ones_like(tail_EF[0])
    found = [torch.batch_norm_update_stats(_rows(x_bEF), *like, 0.0) for x_bEF in parts[1:]]
    sum_F = times_E @ tail_EF
    for number, (mean_F, _) in zip(rows, found, strict=True):
        sum_F = sum_F + number * mean_F
    both = torch.cat([times_E.sum().view(1) + (sum(rows) - sum(margins)), sum_F])
    both = both if reduce is None else reduce(both)
    count, whole_F = both[0], both[1:] / both[0]
    squares_F = times_E @ (tail_EF - whole_F).square()
    for number, zeros, (mean_F, variance_F) in zip(rows, margins, found, strict=True):
        # The zeros of the margins are taken out again.
        squares_F = squares_F + number * (variance_F + (mean_F - whole_F).square()) - zeros * whole_F.square()
    squares_F = squares_F if reduce is None else reduce(squares_F)
    return count, whole_F, squares_F / count
