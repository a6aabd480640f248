"""Convolutions along the particles of a jet, padding included, in which no padding is computed twice.

Beyond its last particle, and as far beyond as a convolution mixes, a jet looks like a jet without particles. So
one empty jet, the tail, is computed for a whole batch and stands for the padding of all jets: it enters batch
normalisation and the mean as often as it stands for a slot. Results are those of the padded batch.

All jets lie in one sequence of rows, the tail last, with margins between them: behind a jet's last slot what would
follow there, the tail's slot or 0; before the next jet's first slot 0. So a layer is one pass over one long image,
whatever the lengths; what a convolution puts into the margins is thrown away.

Shapes: B jets, J = B + 1 with the tail, P slots of the padded batch, R rows, M margins, F, G features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from jettagger.batch import Packed
from jettagger.models.parts.along_rows import convolve_rows
from jettagger.models.parts.layers import BatchNorm
from jettagger.models.parts.sequence import Halving, Layout

Reduce = Callable[[Tensor], Tensor]

ALIGNED = 16
"""Numbers of features that kernels are quick with are multiples of it: 30 times for sums in batch normalisation."""


@dataclass(frozen=True)
class Slots:
    """The slots of jets, in one sequence of rows."""

    x_RF: Tensor
    layout: Layout
    """Where they lie."""

    def halved(self, x_SF: Tensor) -> "Slots":
        """The jets after a halving, of results for every second row, in order.

        Slots that a jet lacks are the tail's. Margins that have to hold 0 hold anything.
        """
        half = self.layout.half
        assert half is not None
        return Slots(_Halve.apply(self.layout.halving, x_SF), half)  # type: ignore[no-untyped-call]

    def plus(self, other: "Slots") -> "Slots":
        """The sum, slot by slot."""
        return replace(self, x_RF=self.x_RF + other.x_RF)

    def mean(self) -> Tensor:
        """Mean over all P slots, (B, F); summed in float32 at least."""
        mean_BF: Tensor = _Mean.apply(self.layout, self.x_RF)  # type: ignore[no-untyped-call]
        return mean_BF


def in_sequence(particles: Packed, total: int, beyond: Sequence[int]) -> Slots:
    """The particles in their slots, zeros elsewhere, and in features that fill them up to a multiple of `ALIGNED`.

    `beyond` holds how many slots more of a jet the layers before the first halving change, before the second, ...
    Looks at the lengths, for which an accelerator would wait.
    """
    lengths_B = particles.lengths_B
    extents_B = lengths_B.clamp(max=total) + beyond[0]
    stages = [(extents_B, total)]
    for more in beyond[1:]:
        extents_B, total = extents_B // 2 + more, (total + 1) // 2
        stages.append((extents_B, total))
    layout: Layout | None = None
    for extents_B, total in reversed(stages):
        layout = Layout.of(extents_B, total, layout)
    assert layout is not None
    begins_B = lengths_B.cumsum(0) - lengths_B
    slot_N = torch.arange(len(particles.jet_N), device=lengths_B.device) - begins_B[particles.jet_N]
    row_N = layout.firsts[particles.jet_N] + slot_N
    keep_N = slot_N < layout.total
    x_NF = particles.features_NF
    width = -(-x_NF.shape[1] // ALIGNED) * ALIGNED
    x_RF = x_NF.new_zeros(layout.rows, width)
    x_RF[:, : x_NF.shape[1]].index_put_((row_N[keep_N],), x_NF[keep_N])
    return Slots(x_RF, layout)


def convolve(convolution: nn.Conv2d, slots: Slots) -> Slots:
    """A convolution over three neighbours, of every slot or of every second; margins hold anything afterwards."""
    stride, training = convolution.stride[1], convolution.training
    weight = _filled(convolution.weight, slots.x_RF.shape[1], 1)
    y_RG = convolve_rows(slots.x_RF, weight, convolution.bias, stride=stride, training=training)
    return replace(slots, x_RF=y_RG) if stride == 1 else slots.halved(y_RG)


def map_linearly(convolution: nn.Conv2d, slots: Slots) -> Slots:
    """A convolution over one slot, of every slot or of every second, without bias."""
    if convolution.stride[1] == 2:
        slots = slots.halved(slots.x_RF[::2])
        # Without bias, so that what holds 0 goes on holding it.
        slots = replace(slots, x_RF=slots.x_RF.index_fill(0, slots.layout.zeros, 0.0))
    y_RG = convolve_rows(slots.x_RF, convolution.weight, None, stride=1, training=convolution.training)
    return replace(slots, x_RF=y_RG)


def _filled(x: Tensor, features: int, axis: int = 0) -> Tensor:
    """With zeros for the features that `in_sequence` has added."""
    missing = features - x.shape[axis]
    return functional.pad(x, (*[0, 0] * (x.dim() - 1 - axis), 0, missing)) if missing else x


def _wide(x: Tensor) -> Tensor:
    """For sums of many numbers: bfloat16 has 8 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def normalise(norm: BatchNorm, slots: Slots, *, rectify: bool) -> Slots:
    """Batch normalisation over all P slots of all jets, [ReLU]; margins come out as they are meant.

    In evaluation the running statistics are used, and in training where all ranks have a single slot, or none. Writes
    into the margins of `slots`, which are not to be used elsewhere.
    """
    means_F, variances_F, batches = norm.running_mean, norm.running_var, norm.num_batches_tracked
    assert means_F is not None
    assert variances_F is not None
    assert batches is not None
    features, width = len(norm.weight), slots.x_RF.shape[1]
    weights = _filled(norm.weight, width), _filled(norm.bias, width)
    running = _filled(means_F, width), _filled(variances_F, width)
    if not norm.training:
        return replace(slots, x_RF=_apply(slots.x_RF, slots.layout, *running, *weights, norm.eps, rectify))
    settings = slots.layout, norm.eps, norm.reduce, rectify
    y_RF, count, mean_F, variance_F = _Normalise.apply(settings, slots.x_RF, *weights, *running)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        momentum = (norm.momentum or 0.0) * (count > 1).to(means_F.dtype)
        means_F.lerp_(mean_F[:features].to(means_F.dtype), momentum)
        unbiased_F = variance_F[:features] * (count / (count - 1).clamp(min=1))
        variances_F.lerp_(unbiased_F.to(variances_F.dtype), momentum)
        batches.add_(count > 1)
    return replace(slots, x_RF=y_RF)


def _apply(
    x_RF: Tensor,
    layout: Layout,
    mean_F: Tensor,
    variance_F: Tensor,
    weight_F: Tensor,
    bias_F: Tensor,
    eps: float,
    rectify: bool,
) -> Tensor:
    """(x - mean) / σ · weight + bias [ReLU], with margins: 0 before the first slot, the tail's after the last."""
    y_RF = functional.batch_norm(x_RF, mean_F, variance_F, weight_F, bias_F, training=False, eps=eps)
    behind_B, repeated_B = layout.followers
    y_RF.index_fill_(0, layout.zeros, 0.0)
    y_RF.index_copy_(0, behind_B, y_RF.index_select(0, repeated_B))
    # Last of all: autograd keeps what it gives, which may not change afterwards.
    return y_RF.relu_() if rectify else y_RF


class _Halve(torch.autograd.Function):
    """Results of a halving, each in its row. No sum over the many jets that take the tail's is in a narrow type."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Halving, Tensor], output: Tensor) -> None:
        ctx.halving = inputs[0]

    @staticmethod
    def forward(halving: Halving, x_SF: Tensor) -> Tensor:
        return x_SF.index_select(0, halving.sources_H)

    @staticmethod
    def backward(ctx: Any, g_HF: Tensor) -> tuple[None, Tensor]:
        halving: Halving = ctx.halving
        g_SF = g_HF.index_select(0, halving.takers_S)
        tail_PF = g_SF[halving.tail_slots]
        borrowed_TF = _wide(g_HF.index_select(0, halving.borrowers_T))
        tail_PF += torch.zeros_like(tail_PF, dtype=borrowed_TF.dtype).index_add(
            0, halving.slots_T, borrowed_TF
        )
        return None, g_SF


class _Mean(torch.autograd.Function):
    """Mean over all P slots of each jet, of which the tail stands for those that are left out."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Layout, Tensor], output: Tensor) -> None:
        ctx.layout = inputs[0]

    @staticmethod
    def forward(layout: Layout, x_RF: Tensor) -> Tensor:
        jets, features = layout.jets, x_RF.shape[1]
        wide = torch.promote_types(x_RF.dtype, torch.float32)
        sums_JF = x_RF.new_zeros((jets + 2, features), dtype=wide).index_add_(0, layout.owners, x_RF.to(wide))
        tail_PF = x_RF[layout.tail_slots].to(wide)
        # What the tail adds behind each slot; nothing where all slots are there.
        upwards_PF = functional.pad(tail_PF.flip(0).cumsum(0).flip(0), (0, 0, 0, 1))
        sums_BF = sums_JF[:jets] + upwards_PF.index_select(0, layout.slots_J[:-1])
        return (sums_BF / layout.total).to(x_RF.dtype)

    @staticmethod
    def backward(ctx: Any, g_BF: Tensor) -> tuple[None, Tensor]:
        layout: Layout = ctx.layout
        g_BF = g_BF / layout.total
        g_RF = functional.pad(g_BF, (0, 0, 0, 2)).index_select(0, layout.owners)
        # Each slot of the tail has the gradients of all the jets that lack it.
        left_out_PF = _wide(g_BF).new_zeros(layout.total + 1, g_BF.shape[1])
        left_out_PF.index_add_(0, layout.slots_J[:-1], _wide(g_BF))
        g_RF[layout.tail_slots] = left_out_PF.cumsum(0)[:-1]
        return None, g_RF


class _Normalise(torch.autograd.Function):
    """Normalises slots with their mean and variance, in which the tail's count as often as they stand for others.

    Returns the rows, and the number of slots, their mean and their variance.
    """

    @staticmethod
    def forward(
        ctx: Any,
        settings: tuple[Layout, float, Reduce | None, bool],
        x_RF: Tensor,
        weight_F: Tensor,
        bias_F: Tensor,
        running_mean_F: Tensor,
        running_variance_F: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        layout, eps, reduce, rectify = settings
        count, mean_F, variance_F = _moments(x_RF, layout, weight_F.dtype, reduce)
        if reduce is not None:  # else there are at least two jets
            mean_F = torch.where(count > 1, mean_F, running_mean_F)
            variance_F = torch.where(count > 1, variance_F, running_variance_F)
        y_RF = _apply(x_RF, layout, mean_F, variance_F, weight_F, bias_F, eps, rectify)
        ctx.settings = settings
        ctx.save_for_backward(weight_F, count, mean_F, variance_F, x_RF, *([y_RF] if rectify else []))
        ctx.mark_non_differentiable(count, mean_F, variance_F)
        return y_RF, count, mean_F, variance_F

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_RF: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        layout, eps, reduce, _rectify = ctx.settings
        weight_F, count, mean_F, variance_F, x_RF, *kept = ctx.saved_tensors
        g_RF = torch.ops.aten.threshold_backward(g_RF, kept[0], 0) if kept else g_RF.clone()
        # What lies behind a jet's last slot is the tail's.
        behind_BF = _wide(g_RF.index_select(0, layout.followers[0]))
        tail_EF = g_RF[layout.tail : layout.tail + 1 + layout.total]
        tail_EF += behind_BF.new_zeros(tail_EF.shape).index_add_(0, layout.slots_J[:-1], behind_BF)
        margins_M = layout.margins
        g_RF.index_fill_(0, margins_M, 0.0)
        # A gradient of the tail is already that of all the slots that it stands for.
        statistics = mean_F, variance_F, None, None, False, eps, [False, True, True]
        own = torch.ops.aten.native_batch_norm_backward(g_RF, x_RF, weight_F, *statistics)[1:]
        own_2F = torch.stack(own)
        sums_2F = own_2F if reduce is None else reduce(own_2F)
        if not ctx.needs_input_grad[1]:
            return None, None, own_2F[0], own_2F[1], None, None
        rate_F = torch.rsqrt(variance_F + eps)
        # Rounded once for all three terms, which cancel in sums over slots.
        narrow_F = (rate_F * weight_F).to(g_RF.dtype)
        shares_2F = sums_2F * (narrow_F.to(sums_2F.dtype) * (count > 1) / -count.clamp(min=1))
        slope_F = shares_2F[0] * rate_F
        level_F = torch.addcmul(shares_2F[1], slope_F, mean_F, value=-1)
        plain = torch.zeros_like(slope_F), torch.ones_like(slope_F)
        d_RF = functional.batch_norm(x_RF, *plain, slope_F, level_F, training=False, eps=0.0)
        d_RF[layout.tail_slots] *= layout.times.unsqueeze(1)
        d_RF.addcmul_(g_RF, narrow_F).index_fill_(0, margins_M, 0.0)
        return None, d_RF, own_2F[0], own_2F[1], None, None


def _moments(
    x_RF: Tensor, layout: Layout, dtype: torch.dtype, reduce: Reduce | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Number, mean and (biased) variance of all slots: of the jets' own, and of the tail's as often as it stands in."""
    margins_M = layout.margins
    # A value from the middle, so that no large numbers are subtracted again.
    middle_F = x_RF.index_select(0, layout.some).median(0).values
    x_RF.index_copy_(0, margins_M, middle_F.expand(len(margins_M), -1))
    like = x_RF.new_zeros(x_RF.shape[1], dtype=dtype), x_RF.new_ones(x_RF.shape[1], dtype=dtype)
    rows_mean_F, rows_variance_F = like  # a rank may have no jets
    if layout.jets:
        rows_mean_F, rows_variance_F = torch.batch_norm_update_stats(x_RF[: layout.tail], *like, 0.0)
    tail_PF = x_RF[layout.tail_slots].to(dtype)
    values_EF = torch.cat([rows_mean_F.unsqueeze(0), middle_F.to(dtype).unsqueeze(0), tail_PF])
    shares_E = layout.shares.to(dtype)
    number = shares_E.new_full((1,), layout.jets * layout.total)
    # Not `@`, which autocast would do in bfloat16.
    both = torch.cat([number, torch.mv(values_EF.t(), shares_E)])
    both = both if reduce is None else reduce(both)
    count = both[0]
    whole_F = both[1:] / count.clamp(min=1)
    squares_F = torch.addmv(layout.tail * rows_variance_F, (values_EF - whole_F).square_().t(), shares_E)
    squares_F = squares_F if reduce is None else reduce(squares_F)
    return count, whole_F, squares_F / count.clamp(min=1)
