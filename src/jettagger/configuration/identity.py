"""Whether two configs, or parts of them, say the same."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from jettagger.configuration.faults import show

_ABSENT = object()


def digest(part: Any) -> str:
    """Hexadecimal SHA-256 of sections, or of dicts, lists and scalars that may hold sections.

    The order of keys counts: it is the order of classes and features.
    """
    text = json.dumps(plain(part), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def plain(part: Any) -> Any:
    """The same in dicts, lists and scalars, with the keys of the YAML."""
    if isinstance(part, BaseModel):
        return part.model_dump(mode="json", by_alias=True)
    if isinstance(part, Mapping):
        return {str(key): plain(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [plain(value) for value in part]
    return part


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, str] = ("before", "now")
) -> list[str]:
    """The keys in which two configs differ, each with both values: 'training.epochs: 20 before, 30 now'."""
    return list(_differences(plain(first), plain(second), names, ()))


def _differences(first: Any, second: Any, names: tuple[str, str], path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        for key in [*first, *(key for key in second if key not in first)]:
            pair = first.get(key, _ABSENT), second.get(key, _ABSENT)
            yield from _differences(*pair, names, (*path, key))
        shared = [[key for key in one if key in other] for one, other in ((first, second), (second, first))]
        if path and shared[0] != shared[1]:
            orders = [", ".join(keys) for keys in shared]
            yield f"{'.'.join(path)}: in the order {orders[0]} {names[0]}, {orders[1]} {names[1]}"
    elif first is _ABSENT or second is _ABSENT or first != second or type(first) is not type(second):
        values = ["absent" if value is _ABSENT else show(value) for value in (first, second)]
        yield f"{'.'.join(path)}: {values[0]} {names[0]}, {values[1]} {names[1]}"
