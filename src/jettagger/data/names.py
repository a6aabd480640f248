"""From the names that files store to names that expressions can write.

`Jet/Jet.Tau[5]` (Delphes) is written `Jet.Tau`, `AnalysisJetsAuxDyn:pt` (ATLAS) `AnalysisJetsAuxDyn.pt`. Numbered
branches `E_0`, `E_1`, …, `E_199` are also offered together, as `E` with 200 slots.
"""

import keyword
import re
from collections.abc import Iterable, Mapping
from fnmatch import translate
from functools import lru_cache
from typing import NamedTuple

from jettagger.errors import JettaggerError

_PLAIN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_NUMBERED = re.compile(r"(.*[^_])_(0|[1-9]\d*)")


class Names(NamedTuple):
    """What a file's branches are called."""

    offered: tuple[str, ...]
    """All that expressions may use: branches in the order of the file, then families."""
    stored: Mapping[str, str]
    """Written name -> stored name."""
    several: Mapping[str, tuple[str, ...]]
    """Written name -> the stored names that it could mean, where these are several."""
    families: Mapping[str, tuple[str, ...]]
    """Family -> its numbered branches, by their written names."""
    plain: bool
    """Every branch is written as it is stored, and there is no family."""

    @property
    def family_of(self) -> dict[str, str]:
        """Numbered branch -> its family."""
        return {member: family for family, members in self.families.items() for member in members}

    def storage(self, name: str, *, where: str) -> tuple[str, ...]:
        """The stored branches behind a name. Raises JettaggerError for one that could mean several."""
        members = self.families.get(name, (name,))
        for member in members:
            if member in self.several:
                both = "' and '".join(self.several[member])
                raise JettaggerError(
                    f"{where}: '{member}' could mean '{both}', which are written alike: rename one of them"
                )
        return tuple(self.stored.get(member, member) for member in members)


@lru_cache(maxsize=64)
def names_of(stored: tuple[str, ...]) -> Names:
    """The names for the branches of a file."""
    meant: dict[str, list[str]] = {}
    for name in stored:
        meant.setdefault(written(name), []).append(name)
    families = _families(meant)
    return Names(
        offered=(*meant, *families),
        stored={name: found[0] for name, found in meant.items()},
        several={name: tuple(found) for name, found in meant.items() if len(found) > 1},
        families=families,
        plain=not families and all(found == [name] for name, found in meant.items()),
    )


def written(stored: str) -> str:
    """How a stored name is written in expressions; a name that can be written stays as it is."""
    if _PLAIN.fullmatch(stored) and not any(keyword.iskeyword(part) for part in stored.split(".")):
        return stored
    # uproot calls the members of a split branch by their path: Jet/Jet.PT.
    parent, _, name = stored.rpartition("/")
    parent = parent.rpartition("/")[2].rstrip(".")
    if not (parent and name.startswith(f"{parent}.")):
        name = stored
    name = re.sub(r"(\[\d*\])+$", "", name)
    name = re.sub(r"[:/.]+", ".", name).strip(".")
    name = re.sub(r"[^\w.]", "_", name, flags=re.ASCII)
    return ".".join(_word(part) for part in name.split("."))


def _word(part: str) -> str:
    if not part or part[0].isdigit():
        return f"_{part}"
    return f"{part}_" if keyword.iskeyword(part) else part


def _families(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Names that end in _0, _1, … without a gap, where the name without number is free."""
    taken = frozenset(names)
    numbers: dict[str, set[int]] = {}
    for name in taken:
        if match := _NUMBERED.fullmatch(name):
            numbers.setdefault(match[1], set()).add(int(match[2]))
    return {
        name: tuple(f"{name}_{number}" for number in range(len(found)))
        for name, found in sorted(numbers.items())
        if name not in taken and len(found) > 1 and found == set(range(len(found)))
    }


@lru_cache(maxsize=1024)
def matching(pattern: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names that a glob matches, with upper and lower case told apart."""
    match = re.compile(translate(pattern)).match
    return tuple(name for name in names if match(name))
