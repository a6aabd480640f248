"""Jets as an analysis may have them at hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

from jettagger.errors import JettaggerError


def is_list_of_paths(jets: Any) -> bool:
    return isinstance(jets, (list, tuple)) and bool(jets) and all(isinstance(x, (str, Path)) for x in jets)


def named_arrays(jets: Any) -> dict[str, Any]:
    """The named arrays in what the user gave, all of one length."""
    if isinstance(jets, ak.Array) and jets.fields:
        return {name: jets[name] for name in jets.fields}
    if isinstance(jets, np.ndarray) and jets.dtype.names:
        return {name: jets[name] for name in jets.dtype.names}
    if isinstance(jets, Mapping) and jets:
        if scalars := [name for name, x in jets.items() if np.isscalar(x) or x is None]:
            raise JettaggerError(
                f"predict: {scalars[0]} is a {type(jets[scalars[0]]).__name__}, not an array"
            )
        branches = {str(name): x if isinstance(x, np.ndarray) else ak.Array(x) for name, x in jets.items()}
        lengths = {name: len(x) for name, x in branches.items()}
        if len(set(lengths.values())) > 1:
            raise JettaggerError(f"predict: the arrays have different numbers of jets: {lengths}")
        return branches
    raise JettaggerError(
        f"predict: cannot take jets from {type(jets).__name__}: give an awkward record array, a dict of arrays, "
        "a structured NumPy array, or the path of a ROOT file"
    )
