"""From a container's entries to jets: names, units, filled slots, and jets that are nested in events.

`Layout` stands between what a file stores and what expressions see. It serves files and arrays in memory alike,
so that training and `Tagger` cannot drift apart. All of it acts on each entry alone.

Shapes: E entries, J jets.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jettagger.data.input_schema import CollectionSection
from jettagger.data.links import LinkBranches, Linked, Links, columns_of_table, key_of, two_ways
from jettagger.data.names import Names, matching, names_of
from jettagger.data.nested import Events, Lists, opened
from jettagger.data.schema import DataConfig
from jettagger.data.slots import Filled, SlotRules
from jettagger.data.units import CONVERSIONS, Conversion, check_globs, conversions, no_match
from jettagger.errors import JettaggerError, unknown_name
from jettagger.expressions import Jagged
from jettagger.expressions.jagged import from_branch

BLOCK_ROWS = 4096
"""Rows of numbered branches that are put side by side at a time: they stay in the processor's cache."""


class Branches(Mapping[str, Any]):
    """Branches that are made when they are first asked for."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Any]) -> None:
        self._names, self._make = dict.fromkeys(names), make
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            if name not in self._names:
                raise KeyError(name)
            self._made[name] = self._make(name)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Jets:
    """The jets of a chunk of entries."""

    branches: Mapping[str, Any]
    """By the names that expressions use; one entry a jet."""
    entry_J: NDArray[np.int64]
    """Entry of the chunk that each jet belongs to; ascends."""
    index_J: NDArray[np.int64]
    """Number of the jet in its entry, from 0."""
    counts_E: NDArray[np.int64] | None
    """Jets of each entry; None where an entry is a jet."""
    counts: dict[str, int] = field(default_factory=dict)
    """What was converted, and which links lead nowhere: complete once the branches were used. `MeV <branch>`:
    jets whose values were converted; `unlinked <input>`: links; `overfull <glob>`: jets with more particles than
    slots."""

    def __len__(self) -> int:
        return len(self.entry_J)


def described(counts: Mapping[str, int]) -> list[str]:
    """What `Jets.counts` say, in words: which branches were converted, and what was left out."""
    converted: dict[str, list[str]] = {}
    lines = []
    for key, count in counts.items():
        kind, _, subject = key.partition(" ")
        if kind in CONVERSIONS:
            converted.setdefault(str(CONVERSIONS[kind]), []).append(subject)
        elif kind == "unlinked" and count:
            lines.append(f"{subject}: {count} of the links in inputs.{subject}.index lead nowhere")
        elif kind == "overfull" and count:
            lines.append(f"data.slots.{subject}: {count} jets have more particles than there are slots")
    return [f"converted from {units}: {', '.join(names)}" for units, names in converted.items()] + lines


class Layout:
    """How the files of a config are laid out."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        data = config.data
        self._slots = SlotRules(data.slots)
        self._units: str | dict[str, str] = data.units if isinstance(data.units, str) else dict(data.units)
        self._jets = data.jets
        self._sections = {
            name: section for name, section in config.inputs.items() if isinstance(section, CollectionSection)
        }
        self._plain = not self._slots and self._units == "GeV" and self._jets is None

    def names(self, stored: Collection[str]) -> tuple[str, ...]:
        """The names that expressions may use, where a file stores `stored`."""
        return names_of(tuple(stored)).offered

    def converted(self, stored: Collection[str]) -> dict[str, str]:
        """What is converted of a file's branches: name -> the units, such as `MeV → GeV`."""
        found = conversions(self._units, names_of(tuple(stored)))
        return {name: str(conversion) for name, conversion in found.items()}

    def stored(self, names: Collection[str], stored: Collection[str], *, where: str) -> frozenset[str]:
        """What is to be read of `stored` so that `jets` gives `names`.

        Raises JettaggerError, naming the file `where`, for a name or a branch of the config that is not there.
        """
        known = names_of(tuple(stored))
        if self._plain and known.plain:
            return frozenset(names)
        if not isinstance(self._units, str):
            check_globs(self._units, known.offered, where=where, key="data.units")
        wanted, families = frozenset(names), known.family_of
        if not isinstance(self._units, str):
            # What is read is converted by its names alone, and part of a family has not the family's name.
            found = {match for glob in self._units for match in matching(glob, known.offered)}
            wanted |= {families[name] for name in wanted if families.get(name) in found}
        if self._slots:
            # A numbered branch is known to hold nothing only from its family.
            rules = self._slots.of(known.offered, where=where)
            wanted |= {families[name] for name in wanted if families.get(name) in rules}
            wanted |= self._slots.needed(wanted, known.offered, where=where)
        if self._jets is not None:
            wanted |= self._nesting(wanted, known.offered, where)
        return frozenset(branch for name in wanted for branch in known.storage(name, where=where))

    def jets(self, branches: Mapping[str, Any], *, where: str, first: int = 0) -> Jets:
        """The jets of some entries, given what `stored` asked for. Raises JettaggerError for what does not fit.

        `first` is the number of the first entry in the file, for errors.
        """
        known = names_of(tuple(branches))
        if self._plain and known.plain:
            entries = len(next(iter(branches.values())))
            return Jets(branches, np.arange(entries), np.zeros(entries, np.int64), None)
        counts: dict[str, int] = {}
        leaves = _Leaves(branches, known, conversions(self._units, known), where)
        if self._jets is None:
            entries = len(next(iter(branches.values())))
            raw = Branches(known.offered, leaves.flat)
            found = Jets(raw, np.arange(entries), np.zeros(entries, np.int64), None, counts)
        else:
            found = self._nested(leaves, where, first, counts)
        counts |= {f"{leaves.units[name].unit} {name}": len(found) for name in leaves.units}
        return self._with_slots(found, known, where)

    def _with_slots(self, found: Jets, known: Names, where: str) -> Jets:
        if not self._slots:
            return found
        rules = self._slots.of(known.offered, where=where, whole=False)
        families = known.family_of
        raw = found.branches
        filled = Filled(raw, len(found), found.counts, where=where)

        def made(name: str) -> Any:
            if (family := families.get(name)) in rules and family is not None:
                slot = known.families[family].index(name)
                value = from_branch(name, raw[name])
                return filled.numbered(family, raw[family], rules[family], slot, np.asarray(value))
            if name not in rules:
                return raw[name]
            value = from_branch(name, raw[name])
            return filled(name, value, rules[name]) if isinstance(value, Jagged) else value

        return Jets(Branches(raw, made), found.entry_J, found.index_J, found.counts_E, found.counts)

    def _linked(self, offered: tuple[str, ...], where: str) -> tuple[dict[str, Linked], tuple[str, ...]]:
        """Name -> how its collection is linked; and the names that have one value (or list) a jet."""
        assert self._jets is not None
        of_jets = matching(self._jets, offered)
        nested = frozenset(of_jets)
        found: dict[str, Linked] = {}
        plain: dict[str, str] = {}
        for name, section in self._sections.items():
            particles = tuple(x for x in matching(section.from_, offered) if x not in nested)
            if section.index is None:
                plain |= dict.fromkeys(particles, name)
                continue
            table = columns_of_table(section.index, offered, nested)
            linked = Linked(name, section.index, tuple(x for x in particles if x not in table), table)
            for particle in (*linked.particles, *table):
                other = found.setdefault(particle, linked)
                if other.by != section.index:
                    raise two_ways(other.input, name, particle, where)
        for particle, name in plain.items():
            if particle in found:
                raise two_ways(found[particle].input, name, particle, where)
        return found, of_jets

    def _nesting(self, wanted: Collection[str], offered: tuple[str, ...], where: str) -> frozenset[str]:
        """What tells the jets of each event, and the particles of each jet that are `wanted`."""
        assert self._jets is not None
        linked, of_jets = self._linked(offered, where)
        if not of_jets:
            raise no_match(self._jets, offered, where=where, key="data.jets")
        needed: set[str] = set()
        used = {id(linked[name]): linked[name] for name in wanted if name in linked}.values()
        for collection in used:
            key = f"{where}: inputs.{collection.input}.index"
            for role, name in collection.by.model_dump(exclude_none=True).items():
                if name not in offered:
                    raise unknown_name("branch", name, offered, where=f"{key}.{role}")
                needed.add(name)
            if (links := key_of(collection.by)) and links in offered:
                needed.add(links)
            if collection.particles and not needed.union(wanted).intersection(collection.particles):
                needed.add(collection.particles[0])
        if not needed.union(wanted).intersection(of_jets):
            needed.add(next((name for name in of_jets if name.lower().endswith("pt")), of_jets[0]))
        return frozenset(needed)

    def _nested(self, leaves: "_Leaves", where: str, first: int, counts: dict[str, int]) -> Jets:
        offered = leaves.names.offered
        linked, of_jets = self._linked(offered, where)
        if not of_jets:
            raise no_match(self._jets or "", offered, where=where, key="data.jets")
        nested = frozenset(of_jets)
        anchor = next(name for name in of_jets if name in leaves.names.stored)
        lists = leaves.opened(anchor)
        if not isinstance(lists, Lists):
            raise JettaggerError(
                f"{where}: data.jets matches '{anchor}', which has one number an event, not a list with one a jet"
            )
        events = Events(lists.offsets_E, where=where, first=first)
        links: dict[int, Links] = {}

        def one(name: str) -> Any:
            value = leaves.opened(name)
            if name in nested:
                return events.of_jets(name, value, anchor)
            if name not in linked:
                return events.of_event(name, value)
            collection = linked[name]
            key = id(collection)
            if key not in links:
                links[key] = _links(collection, events, leaves, counts)
            if name in collection.table:
                return links[key].of_table(name, value)
            return links[key].of_particles(name, value)

        def made(name: str) -> Any:
            members = leaves.names.families.get(name)
            return one(name) if members is None else _side_by_side(name, members, one, where)

        index_J = np.arange(len(events)) - events.offsets_E[:-1][events.entry_J]
        return Jets(Branches(offered, made), events.entry_J, index_J, events.counts_E, counts)


class _Leaves:
    """The branches as they were read, in our units."""

    def __init__(
        self, branches: Mapping[str, Any], names: Names, units: Mapping[str, Conversion], where: str
    ) -> None:
        self.names, self.units = names, units
        self._branches, self._where = branches, where
        self._opened: dict[str, NDArray[Any] | Lists] = {}

    def __getitem__(self, name: str) -> Any:
        (stored,) = self.names.storage(name, where=self._where)
        array = self._branches[stored]
        return self.units[name](array) if name in self.units else array

    def flat(self, name: str) -> Any:
        """The branch, or the family, where an entry is a jet."""
        members = self.names.families.get(name)
        if members is None:
            return self[name]
        return _side_by_side(name, members, lambda member: from_branch(member, self[member]), self._where)

    def opened(self, name: str) -> NDArray[Any] | Lists:
        """The branch of an event."""
        if name not in self._opened:
            self._opened[name] = opened(name, self[name])
        return self._opened[name]


def _side_by_side(
    family: str, members: tuple[str, ...], one: Callable[[str], NDArray[Any] | Jagged], where: str
) -> Jagged:
    """Numbered branches as the slots of one."""
    columns = []
    for member in members:
        value = one(member)
        if isinstance(value, Jagged):
            raise JettaggerError(
                f"{where}: '{family}' stands for {members[0]} … {members[-1]} together, and "
                f"'{member}' has a list of numbers a jet, not one"
            )
        columns.append(value)
    rows = len(columns[0])
    values = np.empty((rows, len(columns)), np.result_type(*columns))
    for start in range(0, rows, BLOCK_ROWS):
        for number, column in enumerate(columns):
            values[start : start + BLOCK_ROWS, number] = column[start : start + BLOCK_ROWS]
    return Jagged(values.reshape(-1), np.arange(rows + 1, dtype=np.int64) * len(columns))


def _links(collection: Linked, events: Events, leaves: _Leaves, counts: dict[str, int]) -> Links:
    def read(name: str | None) -> tuple[str, Lists] | None:
        if name is None or name not in leaves.names.stored:
            return None
        value = leaves.opened(name)
        if not isinstance(value, Lists):
            raise JettaggerError(
                f"{events.where}: inputs.{collection.input}.index: '{name}' has one number an event, not a list"
            )
        return name, value

    index = collection.by
    anchor = next((name for name in collection.particles if name in leaves.names.stored), None)
    branches = LinkBranches(read(index.jet), read(index.particle), read(key_of(index)), read(index.id))
    return Links(collection.input, events, branches, read(anchor), counts)
