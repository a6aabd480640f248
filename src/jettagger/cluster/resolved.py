"""What the batch jobs need to know of a config that has been read and checked."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jettagger.cluster.schema import ClusterSection
from jettagger.cluster.sweep_schema import SweepSection


class Resolved(NamedTuple):
    """A whole config, checked."""

    yaml: str
    """With all defaults written out; it is what the jobs read."""
    cluster: ClusterSection
    sweep: SweepSection | None
    members: int
    folds: int
    """0: none."""
    prepared: str
    """Equal where the same dataset is prepared."""
    tested: bool
    """Whether `jettagger evaluate` finds test jets without --data."""


Resolve = Callable[[Sequence[str]], Resolved]
"""Reads the config with further overrides such as 'model.dropout=0.1'. Raises JettaggerError for any mistake."""
