"""RNTuples: their fields as columns, and the checksums that uproot leaves unread.

ROOT puts a checksum (XXH3, 64 bits) at the end of each list of an RNTuple and, unless told not to, behind each page.
uproot compares those of the header and the footer; those of the page lists and of the pages are compared here,
on the bytes that are read anyway. Other writers leave the pages' out, uproot's own among them.
"""

import re
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import uproot
import xxhash
from numpy.typing import NDArray

from jettagger.errors import JettaggerError

_CHECKSUM = struct.Struct("<Q")


class RNTuple:
    """An RNTuple of a file."""

    def __init__(self, tree: Any, location: str) -> None:
        self._location = location
        self._tree = _guarded(tree, location)
        self._lock = Lock()
        self.entries = int(self._tree.num_entries)
        """Number of entries."""

    @cached_property
    def columns(self) -> dict[str, Any]:
        """Fields that hold data, by name.

        A name is the way to the field, with dots. RNTuples may not have dots in names, so ATLAS writes
        AnalysisJetsAuxDyn:pt for what is AnalysisJetsAuxDyn.pt in a TTree: it has the second name here.
        """
        fields = self._tree.all_fields
        _link(self._tree, fields)
        named = [
            field
            for field in fields
            if field.path is not None
            and not field.fields
            and field.record.struct_role != uproot.const.RNTupleFieldRole.RECORD
        ]
        return {field.path.replace(":.", ".").replace(":", "."): field for field in named}

    def forms(self, names: Collection[str]) -> dict[str, Any]:
        """Awkward's form of an entry of each column, as the header describes it."""
        paths = {name: self.columns[name].path for name in names}
        form, _ = self._tree.to_akform(filter_name=frozenset(paths.values()).__contains__)
        return {name: _form_at(form, path.split(".")) for name, path in paths.items()}

    def size(self, names: Collection[str]) -> float:
        """Uncompressed bytes of some columns, as the page lists tell."""
        return float(sum(self._cluster_bytes(names)))

    def edges(self, names: Collection[str]) -> NDArray[np.int64]:
        """Entries at which a cluster begins."""
        return np.array([cluster.num_first_entry for cluster in self._tree.cluster_summaries], np.int64)

    def read(self, names: Collection[str], start: int, stop: int) -> dict[str, Any]:
        """The columns of entries [start, stop)."""
        paths = {name: self.columns[name].path for name in names}
        with self._clusters_before(stop):
            arrays = self._tree.arrays(
                filter_name=frozenset(paths.values()).__contains__, entry_start=start, entry_stop=stop
            )
        return {name: _at(arrays, path.split(".")) for name, path in paths.items()}

    @contextmanager
    def _clusters_before(self, stop: int) -> Iterator[None]:
        """Hides the clusters from `stop` on: where one begins there, uproot decompresses it and throws it away."""
        with self._lock:
            clusters = self._tree.cluster_summaries
            needed = int(np.searchsorted(self.edges(()), stop, side="left"))
            self._tree._cluster_summaries = clusters[: max(needed, 1)]
            try:
                yield
            finally:
                self._tree._cluster_summaries = clusters

    def _cluster_bytes(self, names: Collection[str]) -> list[float]:
        """Uncompressed bytes of some columns in each cluster."""
        paths = frozenset(self.columns[name].path for name in names)
        form, _ = self._tree.to_akform(filter_name=paths.__contains__)
        numbers = {int(number) for number in re.findall(r'"column-(\d+)', form.to_json())}
        bits = {number: self._tree.column_records[number].nbits for number in numbers}
        return [
            sum(
                page.num_elements * bits[number] / 8
                for number in numbers
                if number < len(cluster)
                for page in cluster[number].pages
            )
            for cluster in self._tree.page_link_list
        ]


def _at(arrays: Any, way: list[str]) -> Any:
    for step in way:
        fields = arrays.fields
        # Of a pair that is read in part, awkward counts from 0 again.
        arrays = arrays[fields[0] if step not in fields and len(fields) == 1 else step]
    return arrays


def _form_at(form: Any, way: list[str]) -> Any:
    if not way:
        return form
    if form.is_record:
        return _form_at(form.content(way[0] if way[0] in form.fields else 0), way[1:])
    return form.copy(content=_form_at(form.content, way))


def _link(tree: Any, fields: list[Any]) -> None:
    """Gives each field its list of fields, for which uproot searches all of them again for each."""
    below: dict[int, list[Any]] = {}
    for number, record in enumerate(tree.field_records):
        if record.parent_field_id != number:
            below.setdefault(record.parent_field_id, []).append(fields[number])

    def shown(number: int) -> list[Any]:
        found = []
        for field in below.get(number, ()):
            found.extend(shown(field.field_id) if field.is_anonymous else [field])
        return found

    for field in fields:
        field._fields = shown(field.field_id)


class _Guard:
    """Reads pages and page lists in uproot's place, and compares them with their checksums."""

    def __init__(self, tree: Any, location: str) -> None:
        self._tree = tree
        self._location = location
        self._read_page = tree.read_page
        self._with_checksum: set[int] = set()

    def read_page(self, destination: Any, cluster: int, column: int, page: int, metadata: Any) -> None:
        """Fills `destination` with the numbers of a page, through `read_locator`."""
        description = self._tree.page_link_list[cluster][column].pages[page]
        if description.has_checksum:
            self._with_checksum.add(description.locator.offset)
        try:
            self._read_page(destination, cluster, column, page, metadata)
        except Exception as error:
            field = self._tree.all_fields[self._tree.column_records[column].field_id]
            while field.path is None:  # what a vector holds has no name of its own
                field = field.parent
            raise JettaggerError(
                f"cannot read {self._location}: page {page} of branch '{field.path}' in cluster {cluster} "
                f"is damaged: {error}"
            ) from error

    def read_locator(self, locator: Any, uncompressed_bytes: int) -> tuple[Any, Any]:
        """The uncompressed bytes at a place in the file, and uproot's cursor at their beginning."""
        checksum_bytes = _CHECKSUM.size if locator.offset in self._with_checksum else 0
        end = locator.offset + locator.num_bytes
        chunk = self._tree.file.source.chunk(locator.offset, end + checksum_bytes)
        if checksum_bytes:
            content = np.asarray(chunk.raw_data)
            if not _matches(content[: locator.num_bytes], content[locator.num_bytes :]):
                raise ValueError("its checksum is not the one stored with it")
        cursor = uproot.source.cursor.Cursor(locator.offset)
        if locator.num_bytes >= uncompressed_bytes:
            return chunk, cursor
        whole = uproot.compression.decompress(chunk, cursor, {}, locator.num_bytes, uncompressed_bytes)
        return whole, uproot.source.cursor.Cursor(0)


def _matches(content: NDArray[np.uint8], stored: NDArray[np.uint8]) -> bool:
    found = xxhash.xxh3_64_intdigest(np.ascontiguousarray(content).data)
    return len(stored) == _CHECKSUM.size and _CHECKSUM.unpack(stored.tobytes())[0] == found


def _guarded(tree: Any, location: str) -> Any:
    """The tree, whose pages and page lists are compared with their checksums whenever they are read."""
    guard = _Guard(tree, location)
    tree.read_page, tree.read_locator = guard.read_page, guard.read_locator
    for record in tree.footer.cluster_group_records:
        link = record.page_list_link
        chunk, _ = guard.read_locator(link.locator, link.env_uncomp_size)
        envelope = np.asarray(chunk.raw_data)
        if not _matches(envelope[: -_CHECKSUM.size], envelope[-_CHECKSUM.size :]):
            raise JettaggerError(
                f"cannot read {location}: a list of pages is damaged: its checksum is not the one stored with it"
            )
    return tree
