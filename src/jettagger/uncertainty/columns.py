"""What is said of jets as columns, one value a jet: the names that predictions and reports share.

Shapes: N jets, C classes, Q quantiles.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jettagger.data.target_schema import quantile_column
from jettagger.uncertainty.decomposition import Decomposition
from jettagger.uncertainty.regression import TargetPrediction


def class_columns(classes: Sequence[str], scores: Decomposition) -> dict[str, NDArray[Any]]:
    """Columns of what is said of the classes: `<class>`, `std_<class>` and the entropies."""
    columns = {name: scores.probabilities_NC[:, index] for index, name in enumerate(classes)}
    columns |= {f"std_{name}": scores.std_NC[:, index] for index, name in enumerate(classes)}
    return columns | {
        "mutual_information": scores.mutual_information_N,
        "expected_entropy": scores.expected_entropy_N,
        "total_entropy": scores.total_entropy_N,
    }


def target_columns(name: str, predicted: TargetPrediction) -> dict[str, NDArray[Any]]:
    """Columns of what is said of a target: value, error where there is one, spread between networks, quantiles."""
    columns: dict[str, NDArray[Any]] = {name: predicted.value_N}
    if predicted.error_N is not None:
        columns[f"{name}_error"] = predicted.error_N
    columns[f"{name}_std"] = predicted.std_N
    if predicted.quantiles_NQ is not None:
        for index, level in enumerate(predicted.levels):
            columns[quantile_column(name, level)] = np.ascontiguousarray(predicted.quantiles_NQ[:, index])
    return columns
