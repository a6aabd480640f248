"""An inspection as plain numbers with stable keys: inspection.json."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from jettagger import __version__
from jettagger.inspection.inspect import Inspection

FORMAT = 1


def to_json(inspection: Inspection) -> dict[str, Any]:
    """What json.dumps takes: the fields of the results by their names; what is not defined is null."""
    content = plain(inspection)
    return {"format": FORMAT, "jettagger": __version__, "status": inspection.status, **content}


def plain(value: Any) -> Any:
    """Numbers, texts, lists and maps alone. Shape suffixes are left out of the keys."""
    if is_dataclass(value) and not isinstance(value, type):
        return {_key(field.name): plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {_key(name): plain(getattr(value, name)) for name in value._fields}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.8g}") if math.isfinite(value) else None
    return value


def _key(name: str) -> str:
    """`matrix_VV` is `matrix`."""
    head, _, tail = name.rpartition("_")
    return head if head and tail.isupper() else name
