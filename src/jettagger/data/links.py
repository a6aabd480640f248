"""Links between jets and the particles that lie beside them in an event.

A link is a row: of a table with the numbers of a jet and of a particle, of the particles themselves where each
carries the number of its jet, or of the lists in which jets name their particles.

Shapes: E events, J jets of all events, N particles of all events, R rows.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.data.input_schema import IndexSection
from jettagger.data.nested import Events, Flat, Lists, differing, starts
from jettagger.errors import JettaggerError
from jettagger.expressions import Jagged


class Linked(NamedTuple):
    """A collection whose particles are found by links."""

    input: str
    by: IndexSection
    particles: tuple[str, ...]
    """Names that `from` matches, but for those of the table."""
    table: tuple[str, ...]
    """Columns of the table of links; also those of particles that carry the number of their jet."""


class LinkBranches(NamedTuple):
    """The branches that link particles to jets, opened; see `IndexSection`."""

    jet: tuple[str, Lists] | None
    particle: tuple[str, Lists] | None
    key: tuple[str, Lists] | None
    """ATLAS links: 0 where a link leads nowhere, such as to a track that was thinned away."""
    id: tuple[str, Lists] | None


class _Rows(NamedTuple):
    """Links, one a row."""

    jet_R: NDArray[np.int64]
    event_R: NDArray[np.int64]
    row_R: NDArray[np.int64]
    """Position of the row in the table."""
    particle_R: NDArray[np.int64]
    """Number of the particle in its event."""

    def taken(self, which: NDArray[Any]) -> "_Rows":
        """Some rows, in another order."""
        return _Rows(*(column[which] for column in self))


class Links:
    """Which particles are those of which jet."""

    def __init__(
        self,
        name: str,
        events: Events,
        branches: LinkBranches,
        particles: tuple[str, Lists] | None,
        counts: dict[str, int],
    ) -> None:
        """`name`: the input. `particles`: any branch of the particles, which tells how many there are; None where
        only columns of the table itself are used. `counts` is told of links that lead nowhere."""
        self._events, self._key = events, f"{events.where}: inputs.{name}.index"
        table_name, table = branches.jet or branches.particle  # type: ignore[misc]
        self._table_name, self._table_E = table_name, table.offsets_E
        self._particles = particles
        rows = self._rows(table_name, table, branches)
        linked_R = (rows.jet_R >= 0) & (rows.particle_R >= 0)
        if unlinked := int((~linked_R).sum()):
            counts[f"unlinked {name}"] = unlinked
            rows = rows.taken(linked_R)
        if branches.jet is not None:
            self._below(table_name, rows.jet_R, events.counts_E[rows.event_R], rows.event_R, "jets")
            rows = rows._replace(jet_R=events.offsets_E[rows.event_R] + rows.jet_R)
        if np.any(rows.jet_R[1:] < rows.jet_R[:-1]):
            rows = rows.taken(np.argsort(rows.jet_R, kind="stable"))
        self.offsets_J = starts(np.bincount(rows.jet_R, minlength=len(events)))
        self._row_R, self._index_R = rows.row_R, rows.row_R
        if particles is not None and branches.particle is not None:
            anchor, lists = particles
            limit_R = lists.counts[rows.event_R]
            self._below(branches.particle[0], rows.particle_R, limit_R, rows.event_R, f"'{anchor}'")
            self._index_R = lists.offsets_E[rows.event_R] + rows.particle_R
        elif particles is not None:
            self._equal(*particles)

    def _rows(self, name: str, table: Lists, branches: LinkBranches) -> _Rows:
        """The rows as they stand, with -1 for no jet or no particle; jets by their number in the event where the
        table says it, else in the chunk."""
        if branches.jet is None:
            rows = self._listed(name, table)
        else:
            jet_R, event_R = self._numbers(name, table), _events_of(table)
            row_R = np.arange(len(jet_R))
            particle_R = row_R - table.offsets_E[event_R]
            if branches.particle is not None:
                self._equal(*branches.particle)
                particle_R = self._numbers(*branches.particle)
            rows = _Rows(jet_R, event_R, row_R, particle_R)
        if branches.key is not None:
            rows = rows._replace(jet_R=np.where(self._keys(branches.key, rows.event_R) == 0, -1, rows.jet_R))
        if branches.id is not None:
            rows = rows._replace(particle_R=self._by_id(*branches.id, rows.event_R, rows.particle_R))
        return rows

    def of_particles(self, name: str, value: NDArray[Any] | Lists) -> Flat:
        """A branch of the particles, for each jet."""
        assert self._particles is not None
        anchor, known = self._particles
        flat = self._flat(name, value, anchor, known.offsets_E)
        return Jagged(flat[self._index_R], self.offsets_J)

    def of_table(self, name: str, value: NDArray[Any] | Lists) -> Flat:
        """A column of the table of links, for each jet."""
        flat = self._flat(name, value, self._table_name, self._table_E)
        return Jagged(flat[self._row_R], self.offsets_J)

    def _flat(
        self, name: str, value: NDArray[Any] | Lists, anchor: str, offsets_E: NDArray[np.int64]
    ) -> NDArray[Any]:
        if not isinstance(value, Lists) or isinstance(value.flat, Jagged):
            raise JettaggerError(
                f"{self._key}: '{name}' is no list of numbers an event, which links could pick from"
            )
        if (event := differing(value.offsets_E, offsets_E)) is not None:
            raise JettaggerError(
                f"{self._key}: event {self._events.first + event} has {value.counts[event]} elements in '{name}' "
                f"and {np.diff(offsets_E)[event]} in '{anchor}'"
            )
        return value.flat

    def _listed(self, name: str, table: Lists) -> _Rows:
        """Where each jet lists its particles."""
        events = self._events
        if not isinstance(table.flat, Jagged):
            raise JettaggerError(
                f"{self._key}.particle: '{name}' has one number a jet; a list of them is expected"
            )
        events.of_jets(name, table, "data.jets")
        jet_R = np.repeat(np.arange(len(events)), table.flat.counts)
        particle_R = self._whole(name, table.flat.values)
        return _Rows(jet_R, events.entry_J[jet_R], np.arange(len(jet_R)), particle_R)

    def _numbers(self, name: str, value: Lists) -> NDArray[np.int64]:
        if isinstance(value.flat, Jagged):
            raise JettaggerError(
                f"{self._key}: '{name}' has a list in the list of an event; numbers are expected"
            )
        return self._whole(name, value.flat)

    def _whole(self, name: str, values_R: NDArray[Any]) -> NDArray[np.int64]:
        if values_R.dtype.kind not in "iu":
            raise JettaggerError(f"{self._key}: '{name}' holds {values_R.dtype}, not whole numbers")
        # Unsigned branches write 'none' as their largest number.
        none = values_R == np.iinfo(values_R.dtype).max if values_R.dtype.kind == "u" else values_R < 0
        return np.where(none, -1, values_R.astype(np.int64))

    def _equal(self, name: str, value: Lists) -> None:
        if (event := differing(value.offsets_E, self._table_E)) is not None:
            raise JettaggerError(
                f"{self._key}: event {self._events.first + event} has {value.counts[event]} rows in '{name}' and "
                f"{np.diff(self._table_E)[event]} in '{self._table_name}'"
            )

    def _keys(self, key: tuple[str, Lists], event_R: NDArray[np.int64]) -> NDArray[Any]:
        name, value = key
        keys_R = value.flat.values if isinstance(value.flat, Jagged) else value.flat
        if len(keys_R) != len(event_R):
            raise JettaggerError(
                f"{self._key}: '{name}' has {len(keys_R)} links, '{self._table_name}' {len(event_R)}"
            )
        if len(several := np.unique(keys_R[keys_R != 0])) > 1:
            raise JettaggerError(
                f"{self._key}: '{name}' has {len(several)} keys ({several[0]}, {several[1]}): the links lead into "
                "different collections, and one is expected"
            )
        return keys_R

    def _by_id(
        self, name: str, ids: Lists, event_R: NDArray[np.int64], wanted_R: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The position of the particle that has the wanted number in its event; -1 where none has."""
        ids_N, event_N = self._numbers(name, ids), _events_of(ids)
        values, rank_N = np.unique(ids_N, return_inverse=True)
        place_N = event_N * len(values) + rank_N
        order = np.argsort(place_N, kind="stable")
        rank_R = np.searchsorted(values, wanted_R)
        known_R = (rank_R < len(values)) & (wanted_R >= 0)
        known_R[known_R] = values[rank_R[known_R]] == wanted_R[known_R]
        place_R = event_R * len(values) + rank_R
        at_R = np.searchsorted(place_N[order], place_R)
        known_R &= at_R < len(order)
        known_R[known_R] = place_N[order][at_R[known_R]] == place_R[known_R]
        next_R = np.minimum(at_R + 1, max(len(order) - 1, 0))
        twice_R = known_R & (at_R + 1 < len(order))
        twice_R[twice_R] = place_N[order][next_R[twice_R]] == place_R[twice_R]
        if (twice := np.flatnonzero(twice_R)).size:
            row = twice[0]
            raise JettaggerError(
                f"{self._key}.id: event {self._events.first + event_R[row]} has several particles with "
                f"'{name}' = {wanted_R[row]}"
            )
        found_R = np.full(len(wanted_R), -1, np.int64)
        found_R[known_R] = order[at_R[known_R]] - ids.offsets_E[event_R[known_R]]
        return found_R

    def _below(
        self,
        name: str,
        number_R: NDArray[np.int64],
        limit_R: NDArray[np.int64],
        event_R: NDArray[np.int64],
        of: str,
    ) -> None:
        if (wrong := np.flatnonzero(number_R >= limit_R)).size:
            row = wrong[0]
            raise JettaggerError(
                f"{self._key}: event {self._events.first + event_R[row]} has '{name}' = {number_R[row]}, and "
                f"{limit_R[row]} {'jets' if of == 'jets' else f'elements in {of}'}"
            )


def _events_of(value: Lists) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(value.counts)), value.counts)


def key_of(index: IndexSection) -> str | None:
    """The branch beside an ATLAS link that says where it leads."""
    if index.particle is None or not index.particle.endswith(".m_persIndex"):
        return None
    return index.particle.removesuffix("m_persIndex") + "m_persKey"


def columns_of_table(
    index: IndexSection, offered: tuple[str, ...], nested: frozenset[str]
) -> tuple[str, ...]:
    """Branches of the same prefix as the one with the numbers of the jets."""
    if index.jet is None:
        return ()
    prefix = index.jet[: max(index.jet.rfind("_"), index.jet.rfind(".")) + 1]
    return tuple(name for name in offered if prefix and name.startswith(prefix) and name not in nested)


def two_ways(one: str, other: str, particle: str, where: str) -> JettaggerError:
    return JettaggerError(
        f"{where}: inputs.{one} and inputs.{other} both have '{particle}', and link it to the jets in different ways"
    )
