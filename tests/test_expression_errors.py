"""What is refused, in which words, and that nothing is ever run."""

import contextlib
import re
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jettagger.expressions as package
from jettagger.errors import JettaggerError
from jettagger.expressions import Namespace, parse

JETS: dict[str, Any] = {
    "pt": ak.Array([[3.0, 1.0, 2.0], [], [4.0]]),
    "charge": ak.values_astype(ak.Array([[1, 0, -1], [], [0]]), np.int8),
    "track_pt": ak.Array([[3.0], [1.0], [4.0]]),
    "jet_pt": np.array([6.0, 10.0, 4.0], dtype=np.float32),
    "n": np.array([1, 2, 3], dtype=np.uint8),
    "label": np.array([True, False, True]),
}

SHAPES = [
    ("pt + track_pt", r"'pt' and 'track_pt' belong to different collections: 3 and 1 particles in jet 0"),
    ("pt * 2 + (1 - track_pt)", r"'pt \* 2' and '1 - track_pt' belong .* \(4 and 3 in all\)"),
    ("where(pt > 1, track_pt, 0)", r"'pt > 1' and 'track_pt' belong to different collections"),
    ("sum(jet_pt)", r"'sum' reduces over the particles of a collection, and 'jet_pt' has one value a jet"),
    ("max(sum(pt))", r"'max' reduces .* and 'sum\(pt\)' has one value a jet"),
    ("count(1)", r"'count' reduces .* and '1' is a constant"),
    (
        "pt & (pt > 1)",
        r"'&' takes conditions \(or integers on both sides\), and this is a number: write '… != 0'",
    ),
    ("(n & 1) | label", r"'\|' takes conditions \(or integers on both sides\), and this is a number"),
    ("~n", r"'~' takes conditions, and this is a number: write '… != 0'"),
    ("not jet_pt", r"'not' takes conditions"),
    ("jet_pt and label", r"'and' takes conditions"),
    ("label or 1", r"'or' takes conditions"),
    ("where(charge, pt, 0)", r"'where' takes a condition first, and this is a number"),
    ("any(pt)", r"'any' takes a condition, and this is a number"),
    ("all(charge)", r"'all' takes a condition, and this is a number"),
    ("at(jet_pt, 0)", r"'at' picks from a collection, and 'jet_pt' has one value a jet"),
    ("at(pt, jet_pt)", r"'at' takes whole numbers as index, and these are float32"),
    ("at(pt, charge) + track_pt", r"'at\(pt, charge\)' and 'track_pt' belong to different collections"),
    ("count(pt > 2)", r"'count' counts all particles .* write sum\(condition\)"),
]


@pytest.mark.parametrize(("text", "message"), SHAPES)
def test_shape_and_type_errors_are_named(text: str, message: str) -> None:
    with pytest.raises(JettaggerError, match=f"^c.yaml:3: k: {message}"):
        Namespace(JETS).evaluate(parse(text), where="c.yaml:3: k")


def test_an_error_inside_a_definition_shows_the_definition() -> None:
    define = {"a": parse("1 + sum(jet_pt)", where="c.yaml:9: define.a")}
    with pytest.raises(JettaggerError) as caught:
        Namespace(JETS, define).evaluate(parse("a * 2"), where="c.yaml:3: k")
    assert str(caught.value).splitlines()[1:] == ["    1 + sum(jet_pt)", "        ^^^^^^^^^^^"]
    assert str(caught.value).startswith("c.yaml:9: define.a: 'sum' reduces")


REFUSED = [
    ("lgo(pt)", r"unknown function 'lgo': did you mean 'log'\? \(allowed: abs, .*, where\)"),
    ("qqqq(pt)", r"unknown function 'qqqq' \(allowed: abs"),
    ("pow(x, 2)", r"unknown function 'pow': write x \*\* y"),
    ("a && b", r"'&&' is not known here: write '&' or 'and'"),
    ("a || b", r"'\|\|' is not known here: write '\|' or 'or'"),
    ("!a", r"'!' is not known here: write '~' or 'not'"),
    ("a ? b : c", r"'\? :' is not known here: write where"),
    ("TMath::Abs(a)", r"'::' is not known here"),
    ("x ^ 2", r"'\^' is not known here: write x \*\* y"),
    ("a = 1", r"'=' does not compare: write '=='"),
    (
        "a > 1 & b < 2",
        r"'&' binds more tightly than a comparison: add parentheses, as in \(a > 1\) & \(b < 2\), or",
    ),
    ("a == 1 | b == 1", r"'\|' binds more tightly .* or write 'or'"),
    ("flags & 4 != 0", r"'&' binds more tightly than a comparison"),
    ("(1 & b < 2)", r"'&' binds more tightly"),
    ("(a & b > c & d)", r"'&' binds more tightly"),
    (
        "~a > 1",
        r"'~' binds more tightly than a comparison: add parentheses, as in ~\(a > 1\), or write 'not'",
    ),
    ("log()", r"'log' got 0 arguments: log\(x\)"),
    ("hypot(x)", r"'hypot' got 1 argument: hypot\(x, y\)"),
    ("log(x, missing=1)", r"'log' takes no keyword: log\(x\)"),
    ("sum(x, missing=1)", r"'sum' of no particles has a value, so it takes no 'missing'"),
    ("sum(x, y)", r"'sum' got 2 arguments: sum\(x\)"),
    ("max(x, y)", r"'max' reduces over particles: max\(x, missing=nan\); of two values: maximum\(x, y\)"),
    ("min()", r"of two values: minimum\(x, y\)"),
    ("max(x, initial=1)", r"the only keyword known here is 'missing', once"),
    ("max(x, missing=1, missing=2)", r"the only keyword known here is 'missing', once"),
    ("max(x, **y)", r"the only keyword known here is 'missing', once"),
    ("max(x, missing=y)", r"'missing' must be a number"),
    ("max(x, missing=1 + 1)", r"'missing' must be a number"),
    ("leading(x)", r"'leading' got 1 argument: leading\(x, n, missing=nan\)"),
    ("leading(x, 0, 1, missing=2)", r"'leading' got 3 arguments"),
    ("leading(x, -1)", r"n must be a whole number, 0 for the first"),
    ("leading(x, 1.0)", r"n must be a whole number"),
    ("leading(x, True)", r"n must be a whole number"),
    ("nth_largest(x, y)", r"n must be a whole number"),
    ("nth_largest(x, 99999999999)", r"n must be a whole number"),
    ("", r"the expression is empty"),
    ("   ", r"the expression is empty"),
    ("1 +", r"this cannot be read as an expression"),
    ("(a", r"this cannot be read as an expression \(.*never closed"),
    ("a b", r"this cannot be read as an expression"),
    ("a, b", r"lists of values are not known here \(is a comma too many\?\)"),
    ("[a]", r"lists of values are not known here"),
    ("2j", r"2j is not a number"),
    ("None", r"None is not a number"),
    ("...", r"Ellipsis is not a number"),
    ("a if b else c", r"'if … else' is not known here: write where"),
    ("a is b", r"'is' is not known here: write '=='"),
    ("a in b", r"'in' is not known here"),
    ("a not in b", r"'not in' is not known here"),
    ("a is not b", r"'is not' is not known here"),
    ("at(x)", r"'at' got 1 argument: at\(values, index, missing=nan\)"),
    ("at(x, i, default=0)", r"the only keyword known here is 'missing', once: at\(values"),
    ("at(x, i, missing=y)", r"'missing' must be a number"),
    ("a @ b", r"'@' is not known here|this character"),
    ("a << 2", r"shifts are not known here"),
    ("a >> 2", r"shifts are not known here"),
    ("x[0]", r"subscripts are not known here: write leading\(x, n\)"),
    ("Δφ", r"only ASCII characters"),
    ("a ≤ b", r"only ASCII characters"),
    ("a # b", r"this character is not known"),
    ("a; b", r"this character is not known"),
    ("`Jet.PT`", r"texts are not known in expressions"),
]
HOSTILE = [
    ("__import__('os').system('true')", r"texts are not known in expressions"),
    ("__import__(os)", r"unknown function '__import__'"),
    ("eval(x)", r"unknown function 'eval'"),
    ("x.__class__", r"'x.__class__' is refused: names do not begin with '__'"),
    ("__builtins__", r"'__builtins__' is refused"),
    ("x.system()", r"only the functions of docs/expressions.md can be called"),
    ("(lambda: 1)()", r"only the functions of docs/expressions.md can be called"),
    ("log(x)(y)", r"only the functions of docs/expressions.md can be called"),
    ("log(x).real", r"a dot is known only inside the name of a branch"),
    ("(1).real", r"a dot is known only inside the name of a branch"),
    ("lambda: 1", r"'lambda' is not known here"),
    ("[x for x in y]", r"ListComp is not known in expressions"),
    ("{x: 1}", r"Dict is not known in expressions"),
    ("(yield x)", r"Yield is not known in expressions"),
    ("(x := 1)", r"':=' is not known here"),
    ("log(*x)", r"'\*' before an argument is not known here"),
    ("f'{x}'", r"texts are not known"),
    ('"x"', r"texts are not known"),
    ("b'x'", r"texts are not known"),
    ("x\0", r"only ASCII characters"),
    ("-" * 5000 + "x", r"nested more than 100 deep: split it with definitions"),
    ("not " * 2000 + "x", r"nested more than 100 deep"),
    ("(" * 150 + "x" + ")" * 150, r"nested more than 100 deep"),
    ("log(" * 101 + "x" + ")" * 101, r"nested more than 100 deep"),
    ("1 + " * 2000 + "x", r"nested more than 100 deep"),
    ("1 ** " * 1990 + "x", r"nested more than 100 deep"),
    ("x" * 10_001, r"the expression has 10,001 characters; at most 10,000 are read"),
    ("1" * 5000, r"."),
]


@pytest.mark.parametrize(("text", "message"), REFUSED + HOSTILE)
def test_other_syntax_is_refused_with_one_readable_error(text: str, message: str) -> None:
    with pytest.raises(JettaggerError, match=message) as caught:
        parse(text, where="c.yaml:3: k")
    assert str(caught.value).startswith("c.yaml:3: k: ")
    assert len(str(caught.value)) < 700


def test_the_fault_is_pointed_at() -> None:
    with pytest.raises(JettaggerError) as caught:
        parse("pt * lgo(eta)")
    assert str(caught.value).splitlines()[1:] == ["    pt * lgo(eta)", "         ^^^"]
    with pytest.raises(JettaggerError) as caught:
        parse("pt + " * 60 + "lgo(eta)" + " + pt" * 20)
    line, carets = str(caught.value).splitlines()[1:]
    assert line.startswith("    …")
    assert line.endswith("…")
    assert line[carets.index("^") : carets.rindex("^") + 1] == "lgo"


@pytest.mark.parametrize("value", [None, [1], {"a": 1}])
def test_what_is_not_text_or_a_number_is_refused(value: Any) -> None:
    with pytest.raises(JettaggerError, match=f"a.yaml: expected an expression, got {type(value).__name__}"):
        parse(value, where="a.yaml")


def test_what_is_close_to_the_limits_is_read() -> None:
    for text, expected in [
        ("(" * 99 + "n" + ")" * 99, [1, 2, 3]),
        ("n" + " + 1" * 98, [99, 100, 101]),
        (" and ".join(["label"] * 1000), [True, False, True]),
        ("((n & 2) == 2) & ((n & 1) == 1)", [False, False, True]),
    ]:
        np.testing.assert_array_equal(Namespace(JETS).evaluate(parse(text)), expected)
    assert parse(10**400).names == frozenset()
    with pytest.raises(JettaggerError, match="this number is too large"):
        parse(10**5000)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="abx01.,()&|~!=<>+-*/% nodr[]{}:'\"lgsum", max_size=40) | st.text(max_size=20))
def test_any_text_gives_an_expression_or_a_readable_error(text: str) -> None:
    names: frozenset[str] = frozenset()
    with contextlib.suppress(JettaggerError):
        names = parse(text).names
    assert all(re.fullmatch(r"[A-Za-z_][\w.]*", name) for name in names)


def test_nothing_is_ever_evaluated() -> None:
    sources = sorted(Path(package.__file__).parent.rglob("*.py"))
    assert len(sources) > 3
    for source in sources:
        code = source.read_text(encoding="utf-8")
        found = re.findall(r"(?<!re\.)\b(?:eval|exec|compile|__import__|literal_eval|getattr)\s*\(", code)
        assert not found, f"{source.name}: {found}"
