"""From the text of an expression to a tree of our own few nodes; every other syntax is refused by name.

Python's parser reads the text, because operators and precedence are then those that everyone knows. Its tree
is only walked: nothing is ever compiled or run.
"""

import ast
import math
import re
import warnings
from collections.abc import Mapping
from typing import NoReturn, TypeVar

from jettagger.errors import JettaggerError, nearest, unknown_name
from jettagger.expressions import picking
from jettagger.expressions.functions import FUNCTIONS
from jettagger.expressions.reductions import REDUCTIONS
from jettagger.expressions.tree import (
    Apply,
    Compare,
    Expression,
    Name,
    Node,
    Number,
    Pick,
    Reduce,
    Span,
    fault,
)

MAX_LENGTH = 10_000
MAX_DEPTH = 100
CONSTANTS: dict[str, float] = {"pi": math.pi, "inf": math.inf, "nan": math.nan}


def parse(text: str | int | float, *, where: str = "") -> Expression:
    """The expression that `text` (or a bare number) stands for; an error shows the place of the fault."""
    if isinstance(text, bool | int | float):
        text = _number_text(text, where)
    if not isinstance(text, str):
        raise fault("", (0, 0), f"expected an expression, got {type(text).__name__}", where)
    text = re.sub(r"\s", " ", text).strip()
    _refuse_foreign(text, where)
    walker = _Walker(text, where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text, mode="eval").body
        node = walker.node(tree, MAX_DEPTH)
    except SyntaxError as error:
        raise _syntax_fault(text, error, where) from None
    except (RecursionError, MemoryError, ValueError):
        raise fault(text, (0, 0), _TOO_DEEP, where) from None
    return Expression(text, frozenset(walker.names), node, where)


_TOO_DEEP = f"the expression is nested more than {MAX_DEPTH} deep: split it with definitions (define)"

_FOREIGN = {
    r"&&": "'&&' is not known here: write '&' or 'and'",
    r"\|\|": "'||' is not known here: write '|' or 'or'",
    r"!(?!=)": "'!' is not known here: write '~' or 'not'",
    r"\?": "'? :' is not known here: write where(condition, x, y)",
    r"::": "'::' is not known here: functions stand without a namespace, as in abs(x)",
    r"['\"`]": "texts are not known in expressions: only numbers, names, operators and functions",
    r"[#\\;@$]": "this character is not known in expressions",
    r"[^\x20-\x7e]": "only ASCII characters are known in expressions",
}


def _number_text(number: float, where: str) -> str:
    try:
        return repr(number)
    except ValueError:
        raise fault("", (0, 0), "this number is too large", where) from None


def _refuse_foreign(text: str, where: str) -> None:
    """What Python's parser would describe in words that do not help a physicist."""
    if not text:
        raise fault("", (0, 0), "the expression is empty", where)
    if len(text) > MAX_LENGTH:
        message = f"the expression has {len(text):,} characters; at most {MAX_LENGTH:,} are read"
        raise fault(text, (0, 0), message, where)
    for pattern, message in _FOREIGN.items():
        if match := re.search(pattern, text):
            raise fault(text, match.span(), message, where)
    depth = 0
    for column, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth > MAX_DEPTH:
            raise fault(text, (column, column + 1), _TOO_DEEP, where)


def _syntax_fault(text: str, error: SyntaxError, where: str) -> JettaggerError:
    at_end = not error.offset or (error.lineno or 1) > 1
    column = len(text) - 1 if at_end else min((error.offset or 1) - 1, len(text) - 1)
    if match := re.search(r"(?<![<>=!*/+%&|^:-])=(?!=)", text[: column + 2]):
        return fault(text, match.span(), "'=' does not compare: write '=='", where)
    return fault(text, (column, column + 1), f"this cannot be read as an expression ({error.msg})", where)


_UNARY: dict[type[ast.unaryop], str] = {
    ast.USub: "negative",
    ast.UAdd: "positive",
    ast.Invert: "~",
    ast.Not: "not",
}
_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
}
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_REFUSED: dict[type[ast.AST], str] = {
    ast.BitXor: "'^' is not known here: write x ** y for a power, a != b for 'either or'",
    ast.MatMult: "'@' is not known here",
    ast.LShift: "shifts are not known here",
    ast.RShift: "shifts are not known here",
    ast.Is: "'is' is not known here: write '=='",
    ast.IsNot: "'is not' is not known here: write '!='",
    ast.In: "'in' is not known here: write (x == 1) | (x == 2)",
    ast.NotIn: "'not in' is not known here: write (x != 1) & (x != 2)",
    ast.IfExp: "'if … else' is not known here: write where(condition, x, y)",
    ast.Subscript: "subscripts are not known here: write leading(x, n) for particle n, counted from 0",
    ast.Lambda: "'lambda' is not known here",
    ast.NamedExpr: "':=' is not known here: name a part under 'define'",
    ast.Starred: "'*' before an argument is not known here",
    ast.Tuple: "lists of values are not known here (is a comma too many?)",
    ast.List: "lists of values are not known here",
}
_INSTEAD = {
    "pow": "x ** y",
    "power": "x ** y",
    "fabs": "abs(x)",
    "atan2": "arctan2(y, x)",
    "ln": "log(x)",
    "len": "count(x)",
    "average": "mean(x)",
    "first": "leading(x, 0)",
    "iif": "where(condition, x, y)",
}


_Sign = TypeVar("_Sign", ast.operator, ast.cmpop)


class _Walker:
    """Turns Python's tree into ours, one kind of node a method, and collects the names."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where = text, where
        self.names: set[str] = set()

    def node(self, tree: ast.expr, depth: int) -> Node:
        """Our node for Python's; `depth` is what is left of the nesting that is allowed."""
        if depth == 0:
            self.refuse(tree, _TOO_DEEP)
        match tree:
            case ast.Constant():
                return Number(self.number(tree), _span(tree))
            case ast.Name() | ast.Attribute():
                return self.name(tree)
            case ast.UnaryOp():
                return Apply(_UNARY[type(tree.op)], (self.node(tree.operand, depth - 1),), _span(tree))
            case ast.BinOp():
                sign = self.sign(tree, tree.op, _BINARY)
                sides = (self.node(tree.left, depth - 1), self.node(tree.right, depth - 1))
                return Apply(sign, sides, _span(tree))
            case ast.BoolOp():
                sign = "and" if isinstance(tree.op, ast.And) else "or"
                return Apply(sign, tuple(self.node(value, depth - 1) for value in tree.values), _span(tree))
            case ast.Compare():
                return self.compare(tree, depth)
            case ast.Call():
                return self.call(tree, depth)
        self.refuse(tree, _REFUSED.get(type(tree), f"{type(tree).__name__} is not known in expressions"))

    def refuse(self, tree: ast.expr, message: str) -> NoReturn:
        """Raises the error `message`, pointing at `tree`."""
        raise fault(self.text, _span(tree), message, self.where)

    def sign(self, tree: ast.expr, found: _Sign, known: Mapping[type[_Sign], str]) -> str:
        """The sign of an operator, if it is a known one."""
        if type(found) not in known:
            self.refuse(tree, _REFUSED[type(found)])
        return known[type(found)]

    def number(self, tree: ast.Constant) -> bool | int | float:
        """A constant's value; integers beyond 64 bits become floating-point numbers."""
        value = tree.value
        if not isinstance(value, bool | int | float):
            self.refuse(tree, f"{tree.value!r} is not a number; only real numbers, True and False are known")
        if isinstance(value, int) and value >= 2**63:
            return float(value) if value < 2**1023 else math.inf
        return value

    def name(self, tree: ast.Name | ast.Attribute) -> Name | Number:
        """A constant such as pi, or a branch or definition, which may be dotted (Delphes: Jet.PT)."""
        parts: list[str] = []
        inner: ast.expr = tree
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name):
            self.refuse(tree, "a dot is known only inside the name of a branch, as in Jet.PT")
        name = ".".join([inner.id, *reversed(parts)])
        if name in CONSTANTS:
            return Number(CONSTANTS[name], _span(tree))
        if any(part.startswith("__") for part in name.split(".")):
            self.refuse(tree, f"'{name}' is refused: names do not begin with '__'")
        self.names.add(name)
        return Name(name, _span(tree))

    def compare(self, tree: ast.Compare, depth: int) -> Compare:
        """A comparison, but for the trap `a > 1 & b < 2`, which Python reads as a > (1 & b) < 2."""
        operands = [tree.left, *tree.comparators]
        for operand in operands:
            sign = _logical_sign(operand)
            if sign and not self.in_parentheses(operand):
                meant, word = {
                    "&": ("(a > 1) & (b < 2)", "and"),
                    "|": ("(a > 1) | (b < 2)", "or"),
                    "~": ("~(a > 1)", "not"),
                }[sign]
                message = f"'{sign}' binds more tightly than a comparison: add parentheses, as in {meant}"
                self.refuse(operand, f"{message}, or write '{word}'")
        signs = tuple(self.sign(tree, op, _COMPARE) for op in tree.ops)
        return Compare(signs, tuple(self.node(operand, depth - 1) for operand in operands), _span(tree))

    def in_parentheses(self, tree: ast.expr) -> bool:
        """Whether `tree` has parentheses of its own; it must be one of several operands."""
        first, behind = _span(tree)
        return self.text[:first].rstrip().endswith("(") and self.text[behind:].lstrip().startswith(")")

    def call(self, tree: ast.Call, depth: int) -> Apply | Reduce | Pick:
        """A call of one of the known functions."""
        if not isinstance(tree.func, ast.Name):
            self.refuse(tree, "only the functions of docs/expressions.md can be called")
        name = tree.func.id
        for argument in tree.args:
            if isinstance(argument, ast.Starred):
                self.refuse(argument, _REFUSED[ast.Starred])
        if name in REDUCTIONS:
            return self.reduction(name, tree, depth)
        if name == picking.NAME:
            return self.pick(tree, depth)
        if name not in FUNCTIONS:
            self.unknown_function(name, tree.func)
        if tree.keywords:
            self.refuse(tree, f"'{name}' takes no keyword: {FUNCTIONS[name].signature}")
        if len(tree.args) != FUNCTIONS[name].arity:
            self.wrong_count(tree, name, FUNCTIONS[name].signature)
        return Apply(name, tuple(self.node(argument, depth - 1) for argument in tree.args), _span(tree))

    def unknown_function(self, name: str, tree: ast.expr) -> NoReturn:
        """Names the function that was probably meant, and those that there are."""
        names = [*FUNCTIONS, *REDUCTIONS, picking.NAME]
        if name in _INSTEAD:
            self.refuse(tree, f"unknown function '{name}': write {_INSTEAD[name]}")
        error = unknown_name("function", name, names)
        message = str(error) if nearest(name, names) else f"unknown function '{name}'"
        self.refuse(tree, f"{message.split(' (allowed')[0]} (allowed: {', '.join(sorted(names))})")

    def wrong_count(self, tree: ast.Call, name: str, signature: str) -> NoReturn:
        """The number of arguments is not that of the signature."""
        got = len(tree.args)
        self.refuse(tree, f"'{name}' got {got} argument{'s' * (got != 1)}: {signature}")

    def reduction(self, name: str, tree: ast.Call, depth: int) -> Reduce:
        """sum(x), max(x, missing=0), leading(x, 2, missing=0)."""
        known = REDUCTIONS[name]
        positional = 2 if known.indexed else 1
        missing = self.missing(tree, known.signature)
        if missing and not known.may_miss:
            self.refuse(
                tree, f"'{name}' of no particles has a value, so it takes no 'missing': {known.signature}"
            )
        if known.indexed and len(tree.args) == 3 and not missing:
            missing = [tree.args[2]]
        elif len(tree.args) != positional:
            if name in ("max", "min"):
                greater = "maximum(x, y)" if name == "max" else "minimum(x, y)"
                self.refuse(
                    tree, f"'{name}' reduces over particles: {known.signature}; of two values: {greater}"
                )
            self.wrong_count(tree, name, known.signature)
        n = self.index(tree.args[1]) if known.indexed else 0
        value = self.constant(missing[0]) if missing else math.nan
        return Reduce(name, self.node(tree.args[0], depth - 1), n, value, _span(tree))

    def missing(self, tree: ast.Call, signature: str) -> list[ast.expr]:
        """The one keyword that functions take."""
        if any(keyword.arg != "missing" for keyword in tree.keywords) or len(tree.keywords) > 1:
            self.refuse(tree, f"the only keyword known here is 'missing', once: {signature}")
        return [keyword.value for keyword in tree.keywords]

    def pick(self, tree: ast.Call, depth: int) -> Pick:
        """at(values, index), at(values, index, missing=0)."""
        missing = self.missing(tree, picking.SIGNATURE)
        if len(tree.args) == 3 and not missing:
            missing = [tree.args[2]]
        elif len(tree.args) != 2:
            self.wrong_count(tree, picking.NAME, picking.SIGNATURE)
        value = self.constant(missing[0]) if missing else math.nan
        values, index = (self.node(argument, depth - 1) for argument in tree.args[:2])
        return Pick(values, index, value, _span(tree))

    def index(self, tree: ast.expr) -> int:
        """The n of leading(x, n)."""
        if isinstance(tree, ast.Constant) and type(tree.value) is int and tree.value < 2**31:
            return tree.value
        self.refuse(tree, "n must be a whole number, 0 for the first")

    def constant(self, tree: ast.expr) -> bool | int | float:
        """The value of `missing`: a number with or without a sign."""
        negative = isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub)
        inner = tree.operand if isinstance(tree, ast.UnaryOp) and negative else tree
        if isinstance(inner, ast.Constant):
            value = self.number(inner)
        elif isinstance(inner, ast.Name) and inner.id in CONSTANTS:
            value = CONSTANTS[inner.id]
        else:
            self.refuse(tree, "'missing' must be a number")
        return -value if negative else value


def _logical_sign(tree: ast.expr) -> str | None:
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitAnd | ast.BitOr):
        return _BINARY[type(tree.op)]
    return "~" if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Invert) else None


def _span(tree: ast.expr) -> Span:
    return tree.col_offset, tree.end_col_offset or tree.col_offset + 1
