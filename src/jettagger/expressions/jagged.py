"""Collections as flat values and offsets: a whole chunk of jets is computed by one NumPy call.

N jets; P particles of all jets, one after the other.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.errors import JettaggerError


class Jagged(NamedTuple):
    """The particles of jet i are `values[offsets[i]:offsets[i + 1]]`. Not to be written into."""

    values: NDArray[Any]  # P
    offsets: NDArray[np.int64]  # N + 1, from 0 to P

    @property
    def counts(self) -> NDArray[np.int64]:
        """Particles of each jet."""
        return np.diff(self.offsets)

    def to_awkward(self) -> Any:
        """The same as an awkward array `N * var * dtype`, without a copy."""
        import awkward as ak

        return ak.Array(
            ak.contents.ListOffsetArray(ak.index.Index64(self.offsets), ak.to_layout(self.values))
        )


def spread(values_N: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[Any]:
    """One value a jet, repeated for each particle of the jet."""
    return np.repeat(values_N, np.diff(offsets))


def from_branch(name: str, array: Any) -> NDArray[Any] | Jagged:
    """A branch as the expressions want it: one entry a jet, or a list of entries a jet.

    Accepts NumPy arrays of one or two axes, `Jagged`, and awkward arrays `N * number`, `N * var * number` and
    `N * k * number`. None becomes NaN among floating-point numbers; float16 becomes float32.
    """
    if isinstance(array, Jagged):
        return _checked(name, array)
    if isinstance(array, np.ma.MaskedArray) or not isinstance(array, np.ndarray):
        array = _from_awkward(name, array)
    if isinstance(array, Jagged):
        return Jagged(_native(name, array.values), array.offsets)
    if array.ndim not in (1, 2):
        raise JettaggerError(f"branch '{name}' is nested {array.ndim} deep; {_ALLOWED}")
    if array.ndim == 1:
        return _native(name, array)
    offsets = np.arange(array.shape[0] + 1, dtype=np.int64) * array.shape[1]
    return Jagged(_native(name, array.reshape(-1)), offsets)


_ALLOWED = "a branch has one number a jet or one list of numbers a jet"


def _native(name: str, values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind not in "biuf":
        raise JettaggerError(f"branch '{name}' holds {values.dtype.name}; {_ALLOWED}")
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _checked(name: str, jagged: Jagged) -> Jagged:
    values, offsets = np.asarray(jagged.values), np.asarray(jagged.offsets, dtype=np.int64)
    fits = values.ndim == 1 and len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == len(values)
    if not fits or np.any(offsets[1:] < offsets[:-1]):
        raise JettaggerError(f"branch '{name}': offsets must rise from 0 to the number of values")
    return Jagged(_native(name, values), offsets)


def _from_awkward(name: str, array: Any) -> NDArray[Any] | Jagged:
    import awkward as ak

    try:
        array = ak.Array(array)
    except (TypeError, ValueError) as error:
        raise JettaggerError(f"branch '{name}' is a {type(array).__name__}; {_ALLOWED}") from error
    layouts = [array.layout]
    while layouts[-1].is_option or layouts[-1].is_list or layouts[-1].is_indexed:
        layouts.append(layouts[-1].content)
    if not (layouts[-1].is_numpy or layouts[-1].is_unknown):
        raise JettaggerError(f"branch '{name}' has the type {array.type}; {_ALLOWED}")
    if any(layout.parameter("__array__") in ("string", "bytestring") for layout in layouts):
        raise JettaggerError(f"branch '{name}' holds text; {_ALLOWED}")
    if array.ndim > 2:
        raise JettaggerError(f"branch '{name}' is nested {array.ndim} deep; {_ALLOWED}")
    if any(layout.is_option for layout in layouts):
        array = _without_none(name, array, layouts[-1])
    layout = ak.to_packed(array).layout
    if array.ndim == 1 or layout.is_numpy:
        flat: NDArray[Any] = ak.to_numpy(array)
        return flat
    layout = layout.to_ListOffsetArray64(True)
    offsets = np.asarray(layout.offsets.data, dtype=np.int64)
    return Jagged(np.asarray(ak.to_numpy(layout.content))[: offsets[-1]], offsets)


def _without_none(name: str, array: Any, innermost: Any) -> Any:
    """None among floating-point numbers becomes NaN of the same type; elsewhere it is refused."""
    import awkward as ak

    if array.ndim == 2:
        if ak.any(ak.is_none(array, axis=0)):
            raise JettaggerError(f"branch '{name}' has None instead of a list of particles")
        array = ak.drop_none(array, axis=0)
    dtype = np.dtype(np.float64) if innermost.is_unknown else innermost.dtype
    if dtype.kind != "f" and ak.any(ak.is_none(array, axis=-1), axis=None):
        raise JettaggerError(f"branch '{name}' has missing values (None), which {dtype.name} cannot hold")
    filling = np.nan if dtype.kind == "f" else 0
    return ak.fill_none(array, dtype.type(filling), axis=-1)
