"""Dropout whose masks come from where they are asked for: a generator in training, given masks in MC dropout.

Shapes: F features (or C, H, W of an image), T passes.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from jettagger.batch import Rows

Probability = Annotated[float, Field(ge=0, lt=1)]

LEVELS = 1 << 16


class Dropout(nn.Module):
    """Zeroes each input with probability `p` and scales the others by 1 / (1 - p).

    In training the masks come from `generator`, never from the global stream. When `mask` is set it
    multiplies the input instead, in training and evaluation alike; otherwise evaluation changes nothing.
    """

    def __init__(self, p: float, shape: tuple[int, ...], of: Literal["jet", "particle"] = "jet") -> None:
        super().__init__()
        self.p = p
        self.of = of
        """What the rows of the input are."""
        self.shape = shape
        """Shape of one mask that all jets and particles share: (F,), or (C, H, W) for images."""
        self.generator: torch.Generator | None = None
        self.mask: Tensor | None = None
        """Broadcast against the input; holds 0 and 1 / (1 - p)."""
        self.rows: Rows | None = None
        """In training: which rows of a batch that several ranks share the input is. The mask of the whole batch is
        drawn, so that every rank draws the same numbers, and theirs are used."""

    def forward(self, x: Tensor) -> Tensor:
        """The input's shape is kept."""
        if self.mask is not None:
            return x * self.mask.to(x.dtype)
        if not self.training or self.p == 0:
            return x
        assert self.generator is not None, "dropout in training without set_dropout_generator"
        if self.rows is None:
            return x * draw_mask(x.shape, self.p, self.generator, x.device, x.dtype)
        first, count = self.rows.first, self.rows.count
        assert len(x) == count, f"{len(x)} rows, but this rank's part of the batch has {count} {self.of}s"
        whole = torch.Size((self.rows.total, *x.shape[1:]))
        return x * draw_mask(whole, self.p, self.generator, x.device, x.dtype)[first : first + count]

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"p={self.p}"

    # Copies (for averaging, stacking) share the generator: torch cannot copy one.
    def __deepcopy__(self, memo: dict[int, object]) -> "Dropout":
        copied = Dropout(self.p, self.shape, self.of)
        copied.generator, copied.training = self.generator, self.training
        return copied


def draw_mask(
    shape: tuple[int, ...],
    p: float,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """0 with probability p, else 1 / (1 - p).

    On the CPU four masks are cut out of each 64-bit draw, three times as fast as uniform numbers; p is
    rounded to a multiple of 2^-16 there (the scale follows it, so that the mean stays exactly 1).
    """
    if generator.device.type != "cpu":
        kept = torch.rand(shape, generator=generator, device=generator.device) >= p
        return kept.to(device, dtype) / (1 - p)
    size = torch.Size(shape)
    dropped = min(round(p * LEVELS), LEVELS - 1)
    # random_() alone would leave the sign bit clear, and with it one mask in four biased.
    bits = torch.empty((size.numel() + 3) // 4, dtype=torch.int64).random_(
        -(2**63), None, generator=generator
    )
    kept = bits.view(torch.int16)[: size.numel()].view(size) >= dropped - LEVELS // 2
    return kept.to(device, dtype).mul_(LEVELS / (LEVELS - dropped))


def dropout_layers(model: nn.Module) -> Iterator[tuple[str, Dropout]]:
    """Every dropout layer of a model with its path, in a fixed order."""
    return ((path, module) for path, module in model.named_modules() if isinstance(module, Dropout))


def set_dropout_generator(model: nn.Module, generator: torch.Generator | None) -> None:
    """All dropout layers draw from `generator` from now on, one after the other."""
    for _, layer in dropout_layers(model):
        layer.generator = generator
