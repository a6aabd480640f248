"""From a container's entries to jets: names, units, filled slots, and jets that are nested in events.

`Layout` stands between what a file stores and what expressions see. It serves files and arrays in memory alike,
so that training and `Tagger` cannot drift apart. All of it acts on each entry alone.

Shapes: E entries, J jets.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.data.schema import DataConfig


class Jets(NamedTuple):
    """The jets of a chunk of entries."""

    branches: Mapping[str, Any]
    """By the names that expressions use; one entry a jet."""
    entry_J: NDArray[np.int64]
    """Entry of the chunk that each jet belongs to; ascends."""
    index_J: NDArray[np.int64]
    """Number of the jet in its entry, from 0."""
    counts_E: NDArray[np.int64] | None
    """Jets of each entry; None where an entry is a jet."""

    def __len__(self) -> int:
        return len(self.entry_J)


class Layout:
    """How the files of a config are laid out."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config

    def names(self, stored: Collection[str]) -> tuple[str, ...]:
        """The names that expressions may use, where a file stores `stored`."""
        return tuple(stored)

    def stored(self, names: Collection[str], stored: Collection[str], *, where: str) -> frozenset[str]:
        """What is to be read of `stored` so that `jets` gives `names`.

        Raises JettaggerError, naming the file `where`, for a name or a branch of the config that is not there.
        """
        return frozenset(names)

    def jets(self, branches: Mapping[str, Any], *, where: str) -> Jets:
        """The jets of some entries, given what `stored` asked for. Raises JettaggerError for what does not fit."""
        entries = len(next(iter(branches.values())))
        return Jets(branches, np.arange(entries), np.zeros(entries, np.int64), None)
