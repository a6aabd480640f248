"""Expressions of the config: `log(hypot(part_px, part_py))` parsed, checked and computed, never `eval`ed.

    width = parse("sum(pt * dr) / sum(pt)")
    define = {"pt": parse("hypot(part_px, part_py)"), "dr": parse("hypot(part_deta, part_dphi)")}
    required_branches([width], define)                  # the four part_* branches
    Namespace(chunk, define).evaluate(width)            # one value a jet

A value is jet-level (`np.ndarray`, one entry a jet) or collection-level (`Jagged`, one entry a particle).
What belongs to the event stands once for each of its jets, so it is jet-level as well.
docs/expressions.md lists the operators and functions.
"""

from jettagger.expressions.jagged import Jagged
from jettagger.expressions.namespace import Namespace, required_branches, shape_of
from jettagger.expressions.syntax import parse
from jettagger.expressions.tree import Expression

__all__ = ["Expression", "Jagged", "Namespace", "parse", "required_branches", "shape_of"]
