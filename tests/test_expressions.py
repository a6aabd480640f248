"""Expressions against a plain per-jet reference, their types, and the text of every error."""

import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettagger.errors import JettaggerError
from jettagger.expressions import Expression, Jagged, Namespace, parse, required_branches, shape_of
from jettagger.expressions.functions import FUNCTIONS
from jettagger.expressions.picking import SIGNATURE
from jettagger.expressions.reductions import REDUCTIONS

NAN = math.nan
JETS: dict[str, Any] = {
    "pt": ak.Array([[3.0, 1.0, 2.0], [], [4.0]]),
    "phi": ak.Array([[3.0, -3.0, 0.5], [], [0.0]]),
    "charge": ak.values_astype(ak.Array([[1, 0, -1], [], [0]]), np.int8),
    "track_pt": ak.Array([[3.0], [1.0], [4.0]]),
    "jet_pt": np.array([6.0, 10.0, 4.0], dtype=np.float32),
    "jet_phi": np.array([0.0, 1.0, 2.0]),
    "n": np.array([1, 2, 3], dtype=np.uint8),
    "event": np.array([2**63 + 1, 2, 3], dtype=np.uint64),
    "label": np.array([True, False, True]),
    "Jet.PT": np.array([1.0, 2.0, 3.0]),
}


def compute(text: str | int | float, branches: dict[str, Any] | None = None, **definitions: str) -> Any:
    """The value as nested lists."""
    value = evaluate(text, branches, **definitions)
    return value.to_awkward().tolist() if isinstance(value, Jagged) else value.tolist()


def evaluate(text: str | int | float, branches: dict[str, Any] | None = None, **definitions: str) -> Any:
    parsed = {name: parse(definition) for name, definition in definitions.items()}
    return Namespace(JETS if branches is None else branches, parsed).evaluate(parse(text))


def dtype_of(text: str) -> np.dtype[Any]:
    value = evaluate(text)
    return np.asarray(value.values if isinstance(value, Jagged) else value).dtype


# ---------------------------------------------------------------- values by hand


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jet_pt", [6, 10, 4]),
        ("Jet.PT + 1", [2, 3, 4]),
        ("2 + 3 * 4 - 6 / 4", [12.5] * 3),
        ("7 // 2", [3] * 3),
        ("-7 % 4", [1] * 3),
        ("-jet_pt ** 2", [-36, -100, -16]),
        ("2 ** 3 ** 2", [512] * 3),
        ("1_000 + 0x10 + 1e-3", [1016.001] * 3),
        ("pt / jet_pt", [[0.5, 1 / 6, 1 / 3], [], [1]]),
        ("+pt", [[3, 1, 2], [], [4]]),
        ("1 < pt < 4", [[True, False, True], [], [False]]),
        ("jet_pt >= 6", [True, True, False]),
        ("5 < jet_pt != 10", [True, False, False]),
        ("(jet_pt > 5) & (n < 2)", [True, False, False]),
        ("(jet_pt > 5) | (n == 3)", [True, True, True]),
        ("~(jet_pt > 5)", [False, False, True]),
        ("not jet_pt > 5", [False, False, True]),
        ("jet_pt > 5 and n < 2 or label", [True, False, True]),
        ("label and label and jet_pt > 5", [True, False, False]),
        ("(n & 2) != 0", [False, True, True]),
        ("(n | 4) == 5", [True, False, False]),
        ("where(charge != 0, pt, -1)", [[3, -1, 2], [], [-1]]),
        ("where(label, label, False)", [True, False, True]),
        ("clip(pt, 1.5, 2.5)", [[2.5, 1.5, 2], [], [2.5]]),
        ("clip(n, -1, 2)", [1, 2, 2]),
        ("minimum(jet_pt, 5) + maximum(n, 2)", [7, 7, 7]),
        ("abs(-3) + sign(-2) + floor(2.7)", [4] * 3),
        ("isfinite(1 / (n - 1))", [False, True, True]),
        ("hypot(3, 4)", [5] * 3),
        ("arctan2(0, -1) == pi", [True] * 3),
        ("isfinite(inf) or isfinite(nan)", [False] * 3),
        ("True", [True] * 3),
        ("sum(pt)", [6, 0, 4]),
        ("count(pt)", [3, 0, 1]),
        ("sum(pt > 1)", [2, 0, 1]),
        ("mean(pt)", [2, NAN, 4]),
        ("max(pt) - min(pt)", [2, NAN, 0]),
        ("max(pt, missing=0)", [3, 0, 4]),
        ("min(pt, missing=-inf)", [1, -math.inf, 4]),
        ("std(where(pt > 2, 3, 1), missing=-1)", [math.sqrt(8 / 9), -1, 0]),
        ("mean(pt, missing=-2.5)", [2, -2.5, 4]),
        ("any(pt > 2)", [True, False, True]),
        ("all(pt > 1)", [False, True, True]),
        ("leading(pt, 1)", [1, NAN, NAN]),
        ("leading(pt, 0, missing=-1)", [3, -1, 4]),
        ("leading(charge, 2, 9)", [-1, 9, 9]),
        ("leading(pt > 2, 0, missing=False)", [True, False, True]),
        ("nth_largest(pt, 0)", [3, NAN, 4]),
        ("nth_largest(pt, 1, 0)", [2, 0, 0]),
        ("nth_largest(pt, 2, missing=0)", [1, 0, 0]),
        ("nth_largest(charge, 1, missing=7)", [0, 7, 7]),
        ("pt / max(pt)", [[1, 1 / 3, 2 / 3], [], [1]]),
        ("sum(where(charge != 0, pt, 0)) / sum(pt)", [5 / 6, NAN, 0]),
        ("log1p(nth_largest(abs(pt / charge), 2, missing=0))", [math.log(3), 0, 0]),
        ("delta_phi(phi, 3)", [[0, 2 * math.pi - 6, -2.5], [], [-3]]),
        ("delta_r(jet_pt, 3, jet_pt, -3)", [2 * math.pi - 6] * 3),
        ("max(delta_r(0, phi, 0, jet_phi), missing=0)", [3, 0, 2]),
        ("9 ** 9 ** 9", [math.inf] * 3),
        ("1e999", [math.inf] * 3),
        ("123456789012345678901234567890 > 1e29", [True] * 3),
        (1.5, [1.5] * 3),
        (-2, [-2] * 3),
        ("  1 +\n\t1 ", [2] * 3),
    ],
)
def test_values_by_hand(text: str | int | float, expected: list[Any]) -> None:
    value = compute(text)
    assert ak.num(ak.Array(value), axis=0) == 3
    flat, wanted = (
        np.asarray(ak.to_numpy(ak.flatten(ak.Array(x), axis=None)), float) for x in (value, expected)
    )
    np.testing.assert_allclose(flat, wanted, rtol=1e-6, atol=1e-12)
    assert [np.shape(jet) for jet in value] == [np.shape(jet) for jet in expected]


@pytest.mark.parametrize(
    "name", ["log", "log10", "log1p", "exp", "expm1", "sqrt", "tanh", "sinh", "cosh", "sin"]
)
def test_functions_of_one_value_are_pythons(name: str) -> None:
    expected = [[getattr(math, name)(value) for value in jet] for jet in [[3.0, 1.0, 2.0], [], [4.0]]]
    assert ak.almost_equal(ak.Array(compute(f"{name}(pt)")), ak.Array(expected))


def test_remaining_functions_of_one_value() -> None:
    np.testing.assert_allclose(
        compute("cos(jet_phi) + tan(jet_phi)"), [math.cos(x) + math.tan(x) for x in range(3)]
    )
    np.testing.assert_allclose(compute("arcsinh(jet_phi)"), [math.asinh(x) for x in range(3)])
    assert compute("asinh(jet_phi)") == compute("arcsinh(jet_phi)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log(jet_pt * 0)", [-math.inf] * 3),
        ("log(-jet_pt)", [NAN] * 3),
        ("jet_pt / 0", [math.inf] * 3),
        ("n / 0", [math.inf] * 3),
        ("n // 0", [math.inf] * 3),
        ("n % 0", [NAN] * 3),
        ("1 / (n - n)", [math.inf] * 3),
        ("sqrt(-1)", [NAN] * 3),
        ("exp(jet_pt * 1e6)", [math.inf] * 3),
        ("1 / 0", [math.inf] * 3),
        ("0 ** -1", [math.inf] * 3),
        ("delta_phi(inf, jet_phi)", [NAN] * 3),
    ],
)
def test_undefined_values_are_inf_or_nan_without_a_warning(text: str, expected: list[float]) -> None:
    np.testing.assert_array_equal(compute(text), expected)


# ---------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("jet_pt * 0.5", "float32"),
        ("jet_pt ** 2 / 3 - 1", "float32"),
        ("log(jet_pt)", "float32"),
        ("where(label, jet_pt, 0)", "float32"),
        ("clip(jet_pt, 0, 1.5)", "float32"),
        ("delta_phi(jet_pt, 0.5)", "float32"),
        ("jet_pt - label", "float32"),
        ("jet_pt * n", "float32"),
        ("jet_pt * pt", "float64"),
        ("sqrt(4) * jet_pt", "float32"),
        ("label", "bool"),
        ("jet_pt > 1", "bool"),
        ("where(label, label, label)", "bool"),
        ("label - label", "int64"),
        ("label + label", "int64"),
        ("-n", "int64"),
        ("n - 5", "int64"),
        ("n * n", "int64"),
        ("event - event", "float64"),
        ("n / n", "float64"),
        ("n ** n", "float64"),
        ("log(n)", "float64"),
        ("hypot(charge, charge)", "float64"),
        ("sum(charge)", "int64"),
        ("sum(pt > 1)", "int64"),
        ("count(pt)", "int64"),
        ("mean(charge)", "float64"),
        ("max(charge)", "float64"),
        ("max(charge, missing=0)", "int64"),
        ("max(charge, missing=0.5)", "float64"),
        ("leading(charge, 0, missing=0)", "int64"),
        ("leading(pt > 1, 0)", "float64"),
        ("leading(pt > 1, 0, missing=False)", "bool"),
        ("nth_largest(charge, 0, missing=0)", "int64"),
        ("max(pt * jet_pt * 0, missing=0)", "float64"),
    ],
)
def test_types(text: str, dtype: str) -> None:
    assert dtype_of(text) == np.dtype(dtype)


@pytest.mark.parametrize(
    "text", ["sum(x)", "mean(x)", "std(x)", "max(x, missing=0)", "nth_largest(x, 1)", "x / sum(x)"]
)
def test_reductions_of_float32_are_float32(text: str) -> None:
    value = evaluate(text, {"x": ak.values_astype(JETS["pt"], np.float32)})
    assert (value.values if isinstance(value, Jagged) else value).dtype == np.float32


def test_integers_do_not_wrap() -> None:
    assert compute("n - 5") == [-4, -3, -2]
    assert compute("-n") == [-1, -2, -3]
    assert compute("n * 100000") == [100000, 200000, 300000]
    assert compute("sum(charge * 100)") == [0, 0, 0]
    assert compute("n - where(label, n, 9)") == [0, -7, 0]
    assert compute("abs(charge - 100)") == [[99, 100, 101], [], [100]]


def test_large_event_numbers_are_split_and_compared_exactly() -> None:
    assert compute("event % 2") == [1, 0, 1]
    assert compute("event // 2") == [2**62, 1, 1]
    assert compute(f"event == {2**53}") == [False] * 3
    assert compute("event > -1") == [True] * 3
    assert compute("(event & 1) == 1") == [True, False, True]


# ---------------------------------------------------------------- against plain Python, jet by jet

Reference = Callable[[dict[str, Any]], Any]
numbers = st.integers(-4, 4).map(float)


@st.composite
def chunks(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Jets as Python sees them, and the same as branches."""
    counts = draw(st.lists(st.integers(0, 4), max_size=6))
    jets = [
        {name: draw(st.lists(numbers, min_size=n, max_size=n)) for name in ("x", "y")} | {"j": draw(numbers)}
        for n in counts
    ]
    offsets = np.cumsum([0, *counts], dtype=np.int64)
    branches: dict[str, Any] = {
        name: Jagged(np.array([value for jet in jets for value in jet[name]], dtype=float), offsets.copy())
        for name in ("x", "y")
    }
    return jets, branches | {"j": np.array([jet["j"] for jet in jets], dtype=float)}


def broadcast(function: Callable[..., Any], *references: Reference) -> Reference:
    def at(jet: dict[str, Any]) -> Any:
        values = [reference(jet) for reference in references]
        if not any(isinstance(value, list) for value in values):
            return function(*values)
        columns = [value if isinstance(value, list) else [value] * len(jet["x"]) for value in values]
        return [function(*row) for row in zip(*columns, strict=True)]

    return at


REDUCED: dict[str, Callable[[list[float]], float]] = {
    "sum({})": sum,
    "count({})": len,
    "max({}, missing=-9)": lambda values: max(values, default=-9),
    "min({}, missing=9)": lambda values: min(values, default=9),
    "leading({}, 1, missing=5)": lambda values: values[1] if len(values) > 1 else 5,
    "nth_largest({}, 1, missing=5)": lambda values: sorted(values)[-2] if len(values) > 1 else 5,
}
BINARY: dict[str, Callable[[float, float], float]] = {
    "({} + {})": lambda a, b: a + b,
    "({} - {})": lambda a, b: a - b,
    "({} * {})": lambda a, b: a * b,
    "minimum({}, {})": min,
    "maximum({}, {})": max,
    "where({} < {}, 1, 2)": lambda a, b: 1 if a < b else 2,
    "where(({0} <= {1}) & ({1} != 0), {1}, {0})": lambda a, b: b if a <= b and b != 0 else a,
    "(0 + (not {} == {}))": lambda a, b: float(a != b),
}


def leaves(kind: str) -> st.SearchStrategy[tuple[str, Reference]]:
    names = ("x", "y") if kind == "collection" else ("j",)
    return st.sampled_from([(name, lambda jet, name=name: jet[name]) for name in names])


def combined(
    one: st.SearchStrategy[tuple[str, Reference]], other: st.SearchStrategy[tuple[str, Reference]]
) -> st.SearchStrategy[tuple[str, Reference]]:
    return st.tuples(st.sampled_from(sorted(BINARY)), one, other).map(
        lambda parts: (
            parts[0].format(parts[1][0], parts[2][0]),
            broadcast(BINARY[parts[0]], parts[1][1], parts[2][1]),
        )
    )


def reduced(of: st.SearchStrategy[tuple[str, Reference]]) -> st.SearchStrategy[tuple[str, Reference]]:
    return st.tuples(st.sampled_from(sorted(REDUCED)), of).map(
        lambda parts: (parts[0].format(parts[1][0]), lambda jet: float(REDUCED[parts[0]](parts[1][1](jet))))
    )


simple = combined(leaves("collection"), leaves("collection") | leaves("jet"))
jet_level = reduced(simple | leaves("collection")) | leaves("jet")
nested = combined(simple, jet_level) | combined(jet_level, jet_level) | reduced(combined(simple, jet_level))


@settings(max_examples=150, deadline=None)
@given(chunks(), nested)
def test_random_expressions_are_what_plain_python_says(
    chunk: tuple[list[dict[str, Any]], dict[str, Any]], pair: tuple[str, Reference]
) -> None:
    jets, branches = chunk
    text, reference = pair
    assert compute(text, branches) == [reference(jet) for jet in jets]
    parts = {f"part_{index}": name for index, name in enumerate(["x", "y", "j"])}
    renamed = re.sub(r"\b[xyj]\b", lambda match: f"part_{'xyj'.index(match[0])}", text)
    assert compute(renamed, branches, **parts) == compute(text, branches), "through definitions"


@settings(max_examples=60, deadline=None)
@given(chunks())
def test_means_spreads_and_quantifiers_are_what_plain_python_says(
    chunk: tuple[list[dict[str, Any]], dict[str, Any]],
) -> None:
    jets, branches = chunk
    mean = [sum(jet["x"]) / len(jet["x"]) if jet["x"] else -1 for jet in jets]
    spread = [
        math.sqrt(sum((x - m) ** 2 for x in jet["x"]) / len(jet["x"])) if jet["x"] else -1
        for jet, m in zip(jets, mean, strict=True)
    ]
    np.testing.assert_allclose(compute("mean(x, missing=-1)", branches), mean, atol=1e-12)
    np.testing.assert_allclose(compute("std(x, missing=-1)", branches), spread, atol=1e-12)
    assert compute("any(x > y)", branches) == [
        any(x > y for x, y in zip(jet["x"], jet["y"], strict=True)) for jet in jets
    ]
    assert compute("all(x > y)", branches) == [
        all(x > y for x, y in zip(jet["x"], jet["y"], strict=True)) for jet in jets
    ]


def test_nan_spreads_through_max_and_is_the_smallest_of_nth_largest() -> None:
    branches = {"x": ak.Array([[1.0, NAN, 3.0], [NAN], [2.0, -math.inf]])}
    np.testing.assert_array_equal(compute("max(x)", branches), [NAN, NAN, 2])
    np.testing.assert_array_equal(compute("nth_largest(x, 0)", branches), [3, NAN, 2])
    np.testing.assert_array_equal(compute("nth_largest(x, 1, missing=0)", branches), [1, 0, -math.inf])
    np.testing.assert_array_equal(compute("nth_largest(x, 2, missing=0)", branches), [NAN, 0, 0])


def test_many_jets_are_sorted_in_blocks() -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 5, size=10_000)
    values = rng.normal(size=counts.sum())
    jagged = ak.unflatten(values, counts)
    expected = ak.fill_none(ak.pad_none(ak.sort(jagged, ascending=False), 3)[:, 2], -1.0)
    np.testing.assert_array_equal(compute("nth_largest(x, 2, missing=-1)", {"x": jagged}), expected)


# ---------------------------------------------------------------- branches


@pytest.mark.parametrize(
    ("branch", "expected"),
    [
        (np.array([[1, 2], [3, 4]]), [3, 7]),
        (ak.to_regular(ak.Array([[1.0, 2.0], [3.0, 4.0]])), [3, 7]),
        (ak.from_numpy(np.array([[1.0, 2.0], [3.0, 4.0]])), [3, 7]),
        (ak.Array([[9.0], [1.0, 2.0], [], [4.0]])[1:3], [3, 0]),
        (ak.Array([[9.0], [1.0, 2.0], [], [4.0]])[[3, 0]], [4, 9]),
        (ak.Array([[1.0, 2.0], [None, 4.0]]), [3, NAN]),
        (ak.mask(ak.Array([[1, 2], [3]]), [True, True]), [3, 3]),
        (ak.Array([[], []]), [0, 0]),
        (Jagged(np.array([1.0, 2.0]), np.array([0, 2, 2])), [3, 0]),
        (np.zeros((2, 0)), [0, 0]),
        (np.ones((2, 3), dtype=">f4"), [3, 3]),
    ],
)
def test_every_form_of_a_collection(branch: Any, expected: list[float]) -> None:
    value = evaluate("sum(x)", {"x": branch})
    np.testing.assert_array_equal(value, expected)
    assert value.dtype.isnative


def test_every_form_of_a_jet_level_branch() -> None:
    assert compute("x + 1", {"x": ak.Array([1.0, 2.0])}) == [2, 3]
    assert compute("x + 1", {"x": np.array([1.0, 2.0], dtype=">f8")}) == [2, 3]
    np.testing.assert_array_equal(compute("x", {"x": ak.Array([1.0, None])}), [1, NAN])
    np.testing.assert_array_equal(compute("x", {"x": np.ma.masked_less([1.0, 2.0], 1.5)}), [NAN, 2])
    assert evaluate("x", {"x": np.array([1, 2], dtype=np.float16)}).dtype == np.float32
    assert evaluate("x", {"x": ak.Array(ak.contents.EmptyArray())}).shape == (0,)
    option = ak.values_astype(ak.Array([1.0, None]), np.float32)
    assert evaluate("x", {"x": option}).dtype == np.float32


@pytest.mark.parametrize(
    ("branch", "message"),
    [
        (ak.Array([[[1.0]], []]), r"branch 'x' is nested 3 deep; a branch has one number a jet"),
        (np.zeros((2, 2, 2)), r"branch 'x' is nested 3 deep"),
        (np.array(1.0), r"branch 'x' is nested 0 deep"),
        (ak.Array(["a", "b"]), r"branch 'x' holds text"),
        (ak.Array([["a"], ["b", "c"]]), r"branch 'x' holds text"),
        (ak.Array([{"a": 1}, {"a": 2}]), r"branch 'x' has the type 2 \* \{a: int64\}"),
        (ak.Array([1.0, [2.0]]), r"branch 'x' has the type 2 \* union"),
        (np.array(["a", "b"]), r"branch 'x' holds str"),
        (np.array([1j]), r"branch 'x' holds complex128"),
        (np.array([[1.0], [2.0, 3.0]], dtype=object), r"branch 'x' holds object"),
        (ak.Array([1, None]), r"branch 'x' has missing values \(None\), which int64 cannot hold"),
        (ak.Array([[True, None], []]), r"branch 'x' has missing values \(None\), which bool cannot hold"),
        (ak.Array([[1.0], None]), r"branch 'x' has None instead of a list of particles"),
        (
            Jagged(np.ones(2), np.array([0, 1])),
            r"branch 'x': offsets must rise from 0 to the number of values",
        ),
        (Jagged(np.ones(2), np.array([0, 3, 2])), r"branch 'x': offsets must rise"),
        (7.0, r"branch 'x' is a float"),
    ],
)
def test_branches_that_do_not_fit_are_named(branch: Any, message: str) -> None:
    with pytest.raises(JettaggerError, match=message):
        evaluate("x", {"x": branch})


def test_branches_of_different_length_are_named() -> None:
    with pytest.raises(JettaggerError, match=r"a.root: branch 'y' has 3 jets where others have 2"):
        Namespace({"x": np.ones(2), "y": np.ones(3)}, where="a.root").evaluate(parse("x + y"))


def test_equal_offsets_are_one_collection_even_if_they_are_two_arrays() -> None:
    branches = {name: Jagged(np.ones(2), np.array([0, 1, 2])) for name in ("x", "y")}
    assert compute("x + y", branches) == [[2], [2]]


def test_a_branch_is_converted_only_if_it_is_used_and_a_constant_needs_a_length() -> None:
    branches = {"text": np.array(["a", "b"]), "x": np.ones(2)}
    assert compute("x + 1", branches) == [2, 2]
    assert compute("1.5", branches) == [1.5, 1.5]
    assert len(Namespace(branches)) == 2
    assert Namespace({}, length=3).evaluate(parse(1)).tolist() == [1, 1, 1]  # type: ignore[union-attr]
    with pytest.raises(JettaggerError, match=r"a.yaml: there are no branches to compute expressions of"):
        Namespace({}, where="a.yaml").evaluate(parse(1))


def test_no_jets_at_all() -> None:
    branches = {"x": Jagged(np.ones(0), np.zeros(1, dtype=np.int64)), "j": np.ones(0)}
    for name, reduction in REDUCTIONS.items():
        argument = "x > 0" if name in ("any", "all") else "x"
        assert compute(f"{name}({argument}{', 1' if reduction.indexed else ''})", branches) == []
    assert compute("x + j", branches) == []
    assert evaluate("2", branches).shape == (0,)


def test_jagged_becomes_awkward() -> None:
    jagged = Jagged(np.array([1.0, 2.0, 3.0]), np.array([0, 2, 2, 3]))
    assert jagged.to_awkward().tolist() == [[1, 2], [], [3]]
    assert jagged.counts.tolist() == [2, 0, 1]


# ---------------------------------------------------------------- definitions


def test_definitions_are_used_in_any_order() -> None:
    definitions = {"girth": "sum(f * dr)", "f": "pt / sum(pt)", "dr": "abs(delta_phi(phi, jet_phi))"}
    expected = compute("sum(pt / sum(pt) * abs(delta_phi(phi, jet_phi)))")
    assert compute("girth", **definitions) == expected
    assert compute("girth", **dict(reversed(definitions.items()))) == expected


def test_a_definition_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    log = FUNCTIONS["log"]
    counting = log._replace(compute=lambda x: calls.append("log") or log.compute(x))
    monkeypatch.setitem(FUNCTIONS, "log", counting)
    namespace = Namespace(JETS, {"a": parse("log(pt)"), "b": parse("a + sum(a)")})
    for text in ("a", "b", "a * b", "sum(b)"):
        namespace.evaluate(parse(text))
    assert calls == ["log"]


def test_a_long_chain_of_definitions_needs_no_deep_stack() -> None:
    definitions = {f"d{index}": parse(f"d{index - 1} + 1") for index in range(1, 3000)} | {
        "d0": parse("jet_pt")
    }
    namespace = Namespace(JETS, definitions)
    assert namespace.evaluate(parse("d2999")).tolist() == [3005, 3009, 3003]  # type: ignore[union-attr]
    assert required_branches([parse("d2999")], definitions) == {"jet_pt"}


def test_required_branches_pass_through_definitions() -> None:
    define = {
        "pt": parse("hypot(px, py)"),
        "girth": parse("sum(pt * dr)"),
        "dr": parse("Jet.R"),
        "z": parse("other"),
    }
    assert required_branches([parse("girth / jet_pt"), parse("pt > 2")], define) == {
        "px",
        "py",
        "Jet.R",
        "jet_pt",
    }
    assert required_branches([parse("1 + pi")], define) == frozenset()
    assert required_branches([parse("a")], {}, ["a", "b"]) == {"a"}


def test_cycles_are_named() -> None:
    define = {"a": parse("b + 1"), "b": parse("2 * c"), "c": parse("a"), "x": parse("pt")}
    for use in (
        lambda: required_branches([parse("x")], define, where="c.yaml"),
        lambda: Namespace(JETS, define, where="c.yaml"),
    ):
        with pytest.raises(JettaggerError, match="use each other in a circle") as caught:
            use()
        circle = re.search(r"c.yaml: define.(\w): .*: (.*)$", str(caught.value))
        assert circle
        assert circle[2] in ("a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c")
        assert circle[1] == circle[2][0]
    with pytest.raises(JettaggerError, match="in a circle: e -> e"):
        required_branches([], {"e": parse("e / 1000")})


def test_a_definition_does_not_hide_a_branch() -> None:
    define = {"pt": parse("jet_pt", where="c.yaml:7: define.pt")}
    message = r"c.yaml:7: define.pt: definition 'pt' hides the branch 'pt': give it another name"
    with pytest.raises(JettaggerError, match=message):
        required_branches([], define, ["pt", "jet_pt"])
    with pytest.raises(JettaggerError, match=message):
        Namespace(JETS, define)
    with pytest.raises(JettaggerError, match="definition 'pi' hides the constant 'pi'"):
        required_branches([], {"pi": parse("3")})


def test_unknown_names_are_named_with_the_nearest_and_the_place() -> None:
    expression = parse("log(jetpt)", where="c.yaml:5: spectators")
    message = r"c.yaml:5: spectators: unknown branch or definition 'jetpt': did you mean 'jet_pt'"
    with pytest.raises(JettaggerError, match=message):
        required_branches([expression], {}, ["jet_pt", "pt"])
    with pytest.raises(JettaggerError, match=message):
        Namespace(JETS).evaluate(expression)
    with pytest.raises(JettaggerError, match=r"here: define.girth: unknown .* 'drr': did you mean 'dr'"):
        required_branches([parse("girth")], {"girth": parse("drr"), "dr": parse("pt")}, ["pt"], where="here")
    with pytest.raises(JettaggerError, match=r"no branch or definition is called 'sum'; .* written sum\(x\)"):
        required_branches([parse("pt / sum")], {}, ["pt"])
    with pytest.raises(JettaggerError, match=r"here: define.a: unknown .* 'ptt'"):
        Namespace(JETS, {"a": parse("ptt")}).evaluate(parse("a"), where="here")


def test_shape_of() -> None:
    define = {"f": parse("pt / jet_pt")}
    assert shape_of(parse("log(f)"), JETS, define) == "collection"
    assert shape_of(parse("sum(f)"), JETS, define) == "jet"
    assert shape_of(parse("2"), {}) == "jet"
    assert shape_of(parse("x"), {"x": Jagged(np.ones(1), np.array([0, 1]))}) == "collection"
    with pytest.raises(JettaggerError, match="'sum' reduces over the particles"):
        shape_of(parse("sum(jet_pt)"), JETS, define)


def test_an_expression_can_be_compared_hashed_and_sent() -> None:
    expression = parse("sum(pt * dr) / sum(pt) > 0.1", where="a.yaml")
    assert expression.names == {"pt", "dr"}
    assert expression == parse(" sum(pt * dr) / sum(pt) > 0.1")
    copy: Expression = pickle.loads(pickle.dumps(expression))
    assert copy == expression
    assert repr(copy.tree) == repr(expression.tree)
    assert len({expression, copy, parse("pt")}) == 2


def test_every_function_is_documented() -> None:
    page = (Path(__file__).parent.parent / "docs" / "expressions.md").read_text(encoding="utf-8")
    for name, function in {**FUNCTIONS, **REDUCTIONS}.items():
        assert function.signature in page, name
    assert SIGNATURE in page


# ---------------------------------------------------------------- links


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at(pt, first, missing=-1)", [1, -1, -1]),
        ("at(pt, first - 9, 5)", [5, 5, 5]),
        ("at(pt, 0, 7)", [3, 7, 4]),
        ("at(track_pt, link, missing=0)", [[3, 0, 0], [], [0]]),
        ("at(pt * 2, link, missing=0) + pt", [[9, 5, 2], [], [4]]),
        ("at(pt > 2, link, missing=False)", [[True, False, False], [], [False]]),
        ("at(pt, big, 0)", [0, 0, 4]),
        ("sum(at(pt, link, 0))", [5, 0, 0]),
    ],
)
def test_elements_are_picked_by_their_number(text: str, expected: list[Any]) -> None:
    branches = {
        **JETS,
        "first": np.array([1, 0, -1]),
        "link": ak.Array([[0, 2, -1], [], [1]]),
        "big": np.array([2**32 - 1, 0, 0], np.uint32),
    }
    assert compute(text, branches) == expected


lists_of_jets = st.lists(
    st.tuples(
        st.lists(st.integers(-50, 50), max_size=5),
        st.lists(st.integers(-3, 7), max_size=5),
        st.integers(-3, 7),
    ),
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(lists_of_jets)
def test_picking_is_what_a_loop_says(jets: list[tuple[list[int], list[int], int]]) -> None:
    def element(values: list[int], index: int) -> int:
        return values[index] if 0 <= index < len(values) else -99

    branches = {
        "v": jagged([values for values, _, _ in jets]),
        "i": jagged([index for _, index, _ in jets]),
        "j": np.array([one for _, _, one in jets], np.int32),
    }
    assert compute("at(v, j, missing=-99)", branches) == [element(values, one) for values, _, one in jets]
    assert compute("at(v, i, missing=-99)", branches) == [
        [element(values, one) for one in index] for values, index, _ in jets
    ]


def jagged(lists: list[list[int]]) -> Jagged:
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
    return Jagged(np.array([x for one in lists for x in one], np.int64), offsets)


def test_what_may_be_missing_decides_the_type_of_what_is_picked() -> None:
    assert dtype_of("at(charge, 0)") == np.float64
    assert dtype_of("at(charge, 0, missing=0)") == np.int64
    assert dtype_of("at(pt, n)") == np.float64
    assert shape_of(parse("at(pt, n)"), JETS) == "jet"
    assert shape_of(parse("at(track_pt, charge)"), JETS) == "collection"
