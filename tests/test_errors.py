"""The nearest valid name, and the error that suggests it."""

from pathlib import Path

import pytest

from jettagger.errors import JettaggerError, nearest, unknown_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adamm", "adam"),
        ("ADAM", "adam"),
        ("sdg", "sgd"),
        ("particle_cnn2", "particle_cnn"),
        ("jetpt", "jet_PT"),
        ("qqqqqq", None),
        ("", None),
    ],
)
def test_nearest(name: str, expected: str | None) -> None:
    assert nearest(name, ["adam", "sgd", "particle_cnn", "jet_PT"]) == expected


def test_nearest_knows_what_others_call_it() -> None:
    assert nearest("FP16", ["bfloat16", "float16"]) == "float16"
    assert nearest("learning_rate", ["lr", "learning_rates"]) == "lr"
    assert nearest("learning_rate", ["learning_rates"]) == "learning_rates"


def test_nearest_takes_any_iterable_and_may_find_it_empty() -> None:
    assert nearest("adam", iter(["sgd", "adamw"])) == "adamw"
    assert nearest("adam", []) is None


def test_unknown_name_says_what_where_nearest_and_what_was_allowed() -> None:
    error = unknown_name("optimiser", "adamm", {"sgd", "adam"}, where="a.yaml:3")
    assert isinstance(error, JettaggerError)
    assert str(error) == "a.yaml:3: unknown optimiser 'adamm': did you mean 'adam'? (allowed: adam, sgd)"


def test_unknown_name_without_a_near_one_or_a_place() -> None:
    assert str(unknown_name("key", "zzz", ["a"])) == "unknown key 'zzz' (allowed: a)"
    assert str(unknown_name("key", "zzz", [])) == "unknown key 'zzz' (allowed: none)"
    assert str(unknown_name("key", "z", ["a"], where=Path("a.yaml"))).startswith("a.yaml: unknown key")


def test_long_lists_are_cut_but_searched_as_a_whole() -> None:
    text = str(unknown_name("branch", "branch_98x", (f"branch_{number:02}" for number in range(99))))
    assert "did you mean 'branch_98'?" in text
    assert "branch_19, … 79 more)" in text
    assert "branch_20" not in text
