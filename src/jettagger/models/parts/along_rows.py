"""Convolutions along one long sequence of rows, as oneDNN is quickest with.

Shapes: R rows, S results (R, or R / 2), F, G features.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

PIECES = 16
"""Equal parts of the sequence over which the gradient of weights is summed; of an even number of rows each."""


def convolve_rows(
    x_RF: Tensor, weight: Tensor, bias_G: Tensor | None, *, stride: int, training: bool
) -> Tensor:
    """A convolution with `weight` (G, F, 1, 1 or 3), zeros before the first row and after the last.

    (R, G), or (R / 2, G) with stride 2, around every second row from the first on. In training its gradient cannot be
    differentiated again.
    """
    if not training:
        return rows(_convolve(x_RF, weight, bias_G, stride))
    parts = (None if part is None else _as_autocast_has_it(part) for part in (x_RF, weight, bias_G))
    return rows(_AlongRows.apply(stride, *parts))  # type: ignore[no-untyped-call]


def image(x_RF: Tensor, pieces: int = 1) -> Tensor:
    """The rows as images of one row, (pieces, F, 1, R / pieces), features innermost as convolutions like it best."""
    return x_RF.view(pieces, 1, -1, x_RF.shape[1]).permute(0, 3, 1, 2)


def rows(image_1F1R: Tensor) -> Tensor:
    """The rows of one image, (R, F)."""
    return image_1F1R.permute(0, 2, 3, 1).flatten(0, 2)


def _convolve(x_RF: Tensor, weight: Tensor, bias_G: Tensor | None, stride: int) -> Tensor:
    return functional.conv2d(image(x_RF), weight, bias_G, (1, stride), (0, weight.shape[3] // 2))


def _as_autocast_has_it(x: Tensor) -> Tensor:
    """Autocast does not look into a Function."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


class _AlongRows(torch.autograd.Function):
    """A convolution whose gradient of weights is summed over pieces, a quarter to a third quicker than over one.

    What passes from one piece into the next is added.
    """

    @staticmethod
    def forward(ctx: Any, stride: int, x_RF: Tensor, weight: Tensor, bias_G: Tensor | None) -> Tensor:
        ctx.stride = stride
        ctx.save_for_backward(x_RF, weight)
        return _convolve(x_RF, weight, bias_G, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_1G1S: Tensor) -> tuple[Tensor | None, ...]:
        x_RF, weight = ctx.saved_tensors
        g_SG = rows(g_1G1S).contiguous()
        _, of_x, of_weight, of_bias = ctx.needs_input_grad

        def gradients(pieces: int, *wanted: bool) -> tuple[Tensor | None, ...]:
            images = image(g_SG, pieces), image(x_RF, pieces)
            shape = [1, ctx.stride], [0, weight.shape[3] // 2], [1, 1], False, [0, 0], 1
            found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
                *images, weight, [len(weight)], *shape, list(wanted)
            )
            return found

        d_1F1R = gradients(1, of_x, False, False)[0]
        _, d_weight, d_bias_G = gradients(PIECES, False, of_weight, of_bias)
        if d_weight is not None and weight.shape[3] == 3:
            # The first row of a piece and the last of the one before, for one another.
            (g_first, g_last), (x_first, x_last) = _edges(g_SG), _edges(x_RF)
            d_weight[:, :, 0, 0] += g_first[1:].t() @ x_last[:-1]
            if ctx.stride == 1:
                d_weight[:, :, 0, 2] += g_last[:-1].t() @ x_first[1:]
        return None, None if d_1F1R is None else rows(d_1F1R), d_weight, d_bias_G


def _edges(x_RF: Tensor) -> tuple[Tensor, Tensor]:
    """First and last row of each piece, (PIECES, F) both."""
    pieces = x_RF.view(PIECES, -1, x_RF.shape[1])
    return pieces[:, 0], pieces[:, -1]
