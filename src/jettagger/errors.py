"""The error a user sees, and the nearest valid name that it suggests."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class JettaggerError(Exception):
    """A mistake in what the user gave: one readable message, exit status 2, no traceback."""

    said: bool = False
    """Whether another process says it already."""


ALSO_CALLED = {
    **{"learning_rate": "lr", "gradient_accumulation": "accumulate", "amp": "precision"},
    **{"fp16": "float16", "half": "float16", "fp32": "float32", "bf16": "bfloat16"},
    **{"bce": "binary_cross_entropy", "sqrt": "square_root", "init": "initialisation"},
    **{"gpu": "cuda", "vmap": "vectorised"},
}
"""Names that others give to what is meant, too far from ours in spelling to be found by it."""


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The valid name that `name` stands for elsewhere, or the closest in spelling, or None when none is close."""
    by_lower_case = {candidate.lower(): candidate for candidate in allowed}
    meant = ALSO_CALLED.get(name.lower())
    if meant in by_lower_case:
        return by_lower_case[meant]
    matches = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.6)
    return by_lower_case[matches[0]] if matches else None


def unknown_name(
    kind: str, name: str, allowed: Iterable[str], *, where: str | Path | None = None
) -> JettaggerError:
    """The error for a name that is not among `allowed`: what, where, nearest, and what was allowed.

    >>> str(unknown_name("optimiser", "adamm", ["adam", "sgd"]))
    "unknown optimiser 'adamm': did you mean 'adam'? (allowed: adam, sgd)"
    """
    names = sorted(allowed)
    close = nearest(name, names)
    suggestion = f": did you mean '{close}'?" if close else ""
    shown = ", ".join(names[:20]) + (f", … {len(names) - 20} more" if len(names) > 20 else "")
    place = f"{where}: " if where is not None else ""
    return JettaggerError(f"{place}unknown {kind} '{name}'{suggestion} (allowed: {shown or 'none'})")
