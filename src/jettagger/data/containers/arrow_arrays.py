"""From Arrow's columns to NumPy and awkward arrays, without copies where there is nothing to convert."""

from typing import Any, NamedTuple

import numpy as np

from jettagger.errors import JettaggerError


class ArrowLeaf(NamedTuple):
    """What is stored as one column: it has neither fields nor lists of its own."""

    path: tuple[str, ...]
    """Names of the column and of the structs' fields, from the outermost inwards."""
    width: int
    """Bytes of a number; a guess for what is none."""
    in_list: bool


def leaves_of(name: str, kind: Any) -> list[ArrowLeaf]:
    """What a column of the type `kind` is stored as."""
    return [ArrowLeaf((name, *leaf.path), leaf.width, leaf.in_list) for leaf in _leaves(kind)]


def _leaves(kind: Any) -> list[ArrowLeaf]:
    import pyarrow.types as is_

    if is_.is_struct(kind):
        return [leaf for field in kind for leaf in leaves_of(field.name, field.type)]
    if is_.is_map(kind):
        of_map = leaves_of("key", kind.key_type) + leaves_of("value", kind.item_type)
        return [leaf._replace(in_list=True) for leaf in of_map]
    if is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind):
        return [leaf._replace(in_list=True) for leaf in _leaves(kind.value_type)]
    if _is_extension(kind):
        return _leaves(kind.storage_type)
    return [ArrowLeaf((), max(kind.bit_width // 8, 1) if is_.is_primitive(kind) else 8, False)]


def leaf_values(table: Any, path: tuple[str, ...]) -> Any:
    """A column of a table, or the field of it that `path` leads to."""
    import pyarrow as pa

    column = table.column(path[0])
    if column.num_chunks > 1:
        raise JettaggerError(f"'{path[0]}' is too long for one array")
    array = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    return _values(array, path[1:])


def _values(array: Any, path: tuple[str, ...]) -> Any:
    import pyarrow.types as is_

    kind = array.type
    if _is_extension(kind):
        return _values(array.storage, path)
    if is_.is_struct(kind):
        names = [field.name for field in kind]
        # Unlike `field`, it keeps to the slice, and None stays None.
        return _values(array.flatten()[names.index(path[0])], path[1:])
    if is_.is_dictionary(kind):
        return _values(array.dictionary_decode(), path)
    if is_.is_map(kind) or (array.null_count and not (is_.is_floating(kind) or is_.is_null(kind))):
        return _by_awkward(array, path)
    if is_.is_list(kind) or is_.is_large_list(kind):
        return _lists(array, path)
    if is_.is_fixed_size_list(kind):
        content = _values(array.flatten(), path)
        return _regular(content, kind.list_size, len(array))
    return _numbers(array)


def _numbers(array: Any) -> Any:
    import pyarrow as pa
    import pyarrow.types as is_

    kind = array.type
    if is_.is_null(kind):
        return np.full(len(array), np.nan)
    if is_.is_decimal(kind):
        array = array.cast(pa.float64())
    elif is_.is_primitive(kind):
        # None among floating-point numbers becomes NaN here.
        return array.to_numpy(zero_copy_only=False)
    else:
        return _by_awkward(array, ())
    return array.to_numpy(zero_copy_only=False)


def _lists(array: Any, path: tuple[str, ...]) -> Any:
    import awkward as ak

    offsets = array.offsets.to_numpy().astype(np.int64)
    first, end = (offsets[0], offsets[-1]) if len(offsets) else (0, 0)
    content = ak.to_layout(_values(array.values.slice(first, end - first), path))
    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(offsets - first), content))


def _regular(content: Any, length: int, entries: int) -> Any:
    import awkward as ak

    if isinstance(content, np.ndarray):
        return content.reshape(entries, length, *content.shape[1:])
    return ak.Array(ak.contents.RegularArray(ak.to_layout(content), length, entries))


def _by_awkward(array: Any, path: tuple[str, ...]) -> Any:
    """None in place of lists or whole numbers, and texts: what expressions say of them is said there."""
    import awkward as ak

    found = ak.from_arrow(array)
    for name in path:
        found = found[name]
    return found


def _is_extension(kind: Any) -> bool:
    import pyarrow as pa

    return isinstance(kind, pa.BaseExtensionType)
