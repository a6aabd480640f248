"""Random numbers keyed by what they are for: never global state, never a rank, never the clock.

A stream is named by a seed and any number of parts, `(seed, "dropout", member, step)`, and is the
same on every machine and in whatever order streams are asked for.
"""

import hashlib
import operator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Part = int | str


def key(seed: int, *parts: Part) -> int:
    """A 63-bit integer that names the stream (seed, *parts). NumPy's integers count as Python's do."""
    text = "\x1f".join(_labelled(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def _labelled(part: Part) -> str:
    """The type is part of the name (3 is not "3"), and a separator in a text is doubled."""
    if isinstance(part, str):
        return f"str:{part}".replace("\x1f", "\x1f\x1f")
    return f"int:{operator.index(part)}"


def numpy_generator(seed: int, *parts: Part) -> np.random.Generator:
    """NumPy's generator of the stream (seed, *parts)."""
    return np.random.Generator(np.random.PCG64(key(seed, *parts)))


def torch_generator(seed: int, *parts: Part, device: str = "cpu") -> "torch.Generator":
    """PyTorch's generator of the stream (seed, *parts) on `device`."""
    import torch

    return torch.Generator(device=device).manual_seed(key(seed, *parts))


def uniform_of(identity_N: NDArray[np.int64], seed: int, *parts: Part) -> NDArray[np.float64]:
    """One number in [0, 1) for each identity, the same whatever else stands in the array.

    Identities are event numbers or global jet indices. SplitMix64 (doi:10.1145/2660193.2660195).
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    state = identity_N.astype(np.int64).view(np.uint64) * golden + np.uint64(key(seed, *parts)) + golden
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
