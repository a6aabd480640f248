"""One collection of a config: its features and coordinates; selected, sorted, truncated particles.

Shapes: J jets, N particles of all jets, F features, K coordinates (eta, phi, pT).
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.batch import COORDINATES, CollectionInput
from jettagger.data.input_schema import CollectionSection
from jettagger.data.names import matching
from jettagger.data.rows import Floats, RawCollection
from jettagger.data.units import no_match
from jettagger.data.values import (
    as_feature,
    describe,
    float32,
    missing,
    parse_features,
    parse_optional,
    particle_level,
    side_by_side,
)
from jettagger.errors import JettaggerError
from jettagger.expressions import Expression, Jagged, Namespace, parse


class CollectionColumns:
    """The expressions of one collection."""

    def __init__(self, name: str, section: CollectionSection) -> None:
        self.name = name
        self.section = section
        where = f"inputs.{name}"
        self._select = parse_optional(section.select, f"{where}.select")
        self._sort_by = parse_optional(section.sort_by, f"{where}.sort_by")
        self._features = parse_features(section.features, f"{where}.features")
        self._coordinates: dict[str, Expression] = {}
        if section.coordinates is not None:
            texts = section.coordinates.model_dump()
            self._coordinates = {k: parse(texts[k], where=f"{where}.coordinates.{k}") for k in COORDINATES}

    @property
    def expressions(self) -> list[Expression]:
        optional = [x for x in (self._select, self._sort_by) if x is not None]
        return [*self._features.values(), *self._coordinates.values(), *optional]

    @property
    def spec(self) -> CollectionInput:
        section = self.section
        return CollectionInput(self.name, describe(section), section.length, section.coordinates is not None)

    def anchors(self, available: tuple[str, ...], needed: Collection[str], where: str) -> frozenset[str]:
        """A branch that tells how many particles there are: one that is `needed` anyhow, or the first that
        `from` matches."""
        matches = matching(self.section.from_, available)
        if not matches:
            raise no_match(self.section.from_, available, where=where, key=f"inputs.{self.name}.from")
        return frozenset([next((name for name in matches if name in needed), matches[0])])

    def evaluate(
        self,
        namespace: Namespace,
        jets: int,
        counts: dict[str, int],
        selected_J: NDArray[np.bool_] | None = None,
    ) -> RawCollection:
        """Selected, sorted, truncated particles of all jets; `selected_J`: see `Columns.inputs`."""
        where = f"inputs.{self.name}"
        columns = {
            name: namespace.evaluate(expression, where=f"{where}.features.{name}")
            for name, expression in self._features.items()
        }
        offsets = self._offsets(columns, where)
        lengths_J, rows = self._truncated(self._rows(namespace, offsets, where), offsets, counts)
        features = []
        for name, value in columns.items():
            flat = particle_level(value, offsets, f"{where}.features.{name}")
            kept = flat if rows is None else flat[rows]
            features.append(as_feature(kept, self.section.features[name]))
        values_NF = side_by_side(features, int(lengths_J.sum()))
        counts |= missing(self.name, columns, values_NF)
        counts[f"empty {self.name}"] = int((lengths_J == 0).sum())
        optional_N = None if selected_J is None else np.repeat(~selected_J, lengths_J)
        coordinates_NK = self._drawn(namespace, offsets, rows, optional_N, where)
        return RawCollection(values_NF, lengths_J, coordinates_NK)

    def _offsets(self, columns: Mapping[str, Any], where: str) -> NDArray[np.int64]:
        for value in columns.values():
            if isinstance(value, Jagged):
                return value.offsets
        raise JettaggerError(
            f"{where}: no feature has one value a particle: write jet-level ones in inputs.jet"
        )

    def _drawn(
        self,
        namespace: Namespace,
        offsets: NDArray[np.int64],
        rows: NDArray[np.int64] | None,
        optional_N: NDArray[np.bool_] | None,
        where: str,
    ) -> Floats | None:
        if not self._coordinates:
            return None
        columns = []
        for name, expression in self._coordinates.items():
            place = f"{where}.coordinates.{name}"
            flat = particle_level(namespace.evaluate(expression, where=place), offsets, place)
            flat = float32(flat if rows is None else flat[rows])
            if optional_N is not None:
                flat = np.where(optional_N & ~np.isfinite(flat), np.float32(0), flat)
            if not np.isfinite(flat).all():
                raise JettaggerError(
                    f"{place}: {(~np.isfinite(flat)).sum()} values are not finite: a particle has to lie "
                    f"somewhere (leave such particles out by inputs.{self.name}.select, or padding by data.slots)"
                )
            columns.append(flat)
        return np.stack(columns, axis=1)

    def _rows(self, namespace: Namespace, offsets: NDArray[np.int64], where: str) -> "_Rows":
        """Rows that pass `select`, in the order of `sort_by`, with the jet of each."""
        rows: NDArray[np.int64] | None = None
        jet_N = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        if self._select is not None:
            place = f"{where}.select"
            keep = particle_level(namespace.evaluate(self._select, where=place), offsets, place)
            if keep.dtype != bool:
                raise JettaggerError(
                    f"{place}: a condition is expected, this has values of type {keep.dtype}"
                )
            if not keep.all():
                rows = np.flatnonzero(keep)
                jet_N = jet_N[rows]
        if self._sort_by is not None:
            place = f"{where}.sort_by"
            order_by = particle_level(namespace.evaluate(self._sort_by, where=place), offsets, place)
            order_by = order_by if rows is None else order_by[rows]
            sorted_already = (order_by[1:] >= order_by[:-1]) | (jet_N[1:] != jet_N[:-1])
            if not sorted_already.all():
                order = np.lexsort((order_by, jet_N))
                rows = order if rows is None else rows[order]
        return _Rows(rows, jet_N)

    def _truncated(
        self, rows: "_Rows", offsets: NDArray[np.int64], counts: dict[str, int]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64] | None]:
        lengths_J = np.bincount(rows.jet_N, minlength=len(offsets) - 1)
        longest = self.section.length
        counts[f"truncated {self.name}"] = too_long = int((lengths_J > longest).sum())
        if not too_long:
            return lengths_J.astype(np.int32), rows.order
        first_J = np.cumsum(lengths_J) - lengths_J
        keep = np.arange(len(rows.jet_N)) - first_J[rows.jet_N] < longest
        index = np.flatnonzero(keep) if rows.order is None else rows.order[keep]
        return np.minimum(lengths_J, longest).astype(np.int32), index


class _Rows(NamedTuple):
    order: NDArray[np.int64] | None
    """None: all, as they stand."""
    jet_N: NDArray[np.int64]
