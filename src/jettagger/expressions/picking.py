"""Links by number: for each jet or particle an element of another collection of the jet.

N jets; P particles of all jets.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jettagger.expressions.functions import ArgumentFault, kind_of
from jettagger.expressions.jagged import Jagged, spread
from jettagger.expressions.reductions import Number, able_to_miss

NAME = "at"
SIGNATURE = "at(values, index, missing=nan)"


def pick(values: Jagged, index: NDArray[Any] | Jagged, missing: Number) -> NDArray[Any] | Jagged:
    """Element number `index` of the jet's `values`, in the shape of `index`; `missing` where there is none."""
    flat = index.values if isinstance(index, Jagged) else index
    if kind_of(flat) != "i":
        raise ArgumentFault(1, f"'{NAME}' takes whole numbers as index, and these are {flat.dtype}")
    first, counts = values.offsets[:-1], values.counts
    if isinstance(index, Jagged):
        first, counts = spread(first, index.offsets), spread(counts, index.offsets)
    # Compared before it is made signed: 2**32 - 1 is no -1.
    there = (flat >= 0) & (flat < counts)
    elements = able_to_miss(values.values, missing)
    picked = np.full(len(flat), missing, dtype=elements.dtype)
    picked[there] = elements[first[there] + flat[there].astype(np.int64)]
    return Jagged(picked, index.offsets) if isinstance(index, Jagged) else picked
