"""Units: energies and momenta become GeV, lengths mm, whatever the file holds."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jettagger.data.names import Names, matching
from jettagger.errors import JettaggerError, nearest

LAST_WORDS = frozenset(
    ["e", "energy", "et", "ht", "m", "mass", "met", "momentum", "mt", "p", "pt", "px", "py", "pz", "sdmass"]
)
"""What the last word of a name (behind the last `_` or `.`) says of an energy, in lower case."""
FIRST_WORDS = frozenset(("energy", "mass", "pt", "px", "py", "pz"))
"""The same of the first word behind the last `.`, where more follows: `pt_btagJes`."""
_CAMEL = re.compile(r"[a-z0-9](Energy|Et|Mass|Momentum|Pt|Px|Py|Pz)$")
"""The same of a last word without separator: `TruthLabelPt`."""


class Conversion(NamedTuple):
    """A number in the unit of the file, times `times`, over `over`, is one in ours."""

    unit: str
    ours: str
    times: float = 1.0
    over: float = 1.0

    def __call__(self, array: Any) -> Any:
        """The array in our unit: floating-point numbers keep their type, integers become float64."""
        if self.times == self.over:
            return array
        if isinstance(array, np.ndarray) and array.dtype.kind in "biu":
            array = array.astype(np.float64)
        return array * self.times if self.over == 1.0 else array / self.over

    def __str__(self) -> str:
        return f"{self.unit} → {self.ours}"


CONVERSIONS = {
    "MeV": Conversion("MeV", "GeV", over=1000.0),
    "GeV": Conversion("GeV", "GeV"),
    "TeV": Conversion("TeV", "GeV", times=1000.0),
    "um": Conversion("um", "mm", over=1000.0),
    "mm": Conversion("mm", "mm"),
    "cm": Conversion("cm", "mm", times=10.0),
    "m": Conversion("m", "mm", times=1000.0),
}


def is_energy(name: str) -> bool:
    """Whether a branch is named as an energy, momentum or mass: see docs/layout.md for the rule."""
    last = re.sub(r"_\d+$", "", name).rpartition(".")[2]
    words = last.lower().split("_")
    return words[-1] in LAST_WORDS or words[0] in FIRST_WORDS or bool(_CAMEL.search(last))


def conversions(units: str | Mapping[str, str], names: Names) -> dict[str, Conversion]:
    """Written name -> conversion, for the branches whose unit is not ours."""
    if isinstance(units, str):
        energies = (name for name in names.stored if is_energy(name)) if units == "MeV" else ()
        return dict.fromkeys(energies, CONVERSIONS["MeV"])
    found: dict[str, tuple[str, str]] = {}
    for glob, unit in units.items():
        matches = matching(glob, names.offered)
        for name in dict.fromkeys(
            member for match in matches for member in names.families.get(match, (match,))
        ):
            other, other_unit = found.setdefault(name, (glob, unit))
            if other_unit != unit:
                raise JettaggerError(
                    f"data.units: '{other}' says {other_unit} and '{glob}' says {unit} of '{name}'"
                )
    kept = {name: CONVERSIONS[unit] for name, (_, unit) in found.items()}
    return {name: conversion for name, conversion in kept.items() if conversion.times != conversion.over}


def check_globs(globs: Iterable[str], names: tuple[str, ...], *, where: str, key: str) -> None:
    """Raises JettaggerError for a glob that matches no name."""
    for glob in globs:
        if not matching(glob, names):
            raise no_match(glob, names, where=where, key=key)


def no_match(glob: str, names: tuple[str, ...], *, where: str, key: str) -> JettaggerError:
    """The error for a glob that matches no branch."""
    close = nearest(re.sub(r"[*?\[\]]", "", glob), names)
    suggestion = f": did you mean '{close}'?" if close else ""
    shown = ", ".join(sorted(names)[:20]) + (f", … {len(names) - 20} more" if len(names) > 20 else "")
    return JettaggerError(f"{where}: {key}: no branch matches '{glob}'{suggestion} (there are {shown})")
