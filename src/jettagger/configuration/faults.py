"""What the validation found, one fault a line, in words."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jettagger.configuration import shapes
from jettagger.configuration.shapes import Shape
from jettagger.errors import ALSO_CALLED, nearest
from jettagger.schema import Section
from jettagger.yaml_source import Location


class Fault(NamedTuple):
    """One thing to mend."""

    location: Location
    message: str
    kind: str = "value"
    """`unknown`, `missing`, `value`, or `check` for values that do not go together."""
    relies_on: tuple[Location, ...] = ()
    """Places whose entries a `check` has looked at."""


class _Found(NamedTuple):
    """An error of pydantic with its place in the YAML, freed of the names of union members."""

    location: Location
    details: ErrorDetails

    @property
    def type(self) -> str:
        return self.details["type"]


_WRONG_TYPE = {
    *("string_type", "int_type", "int_from_float", "float_type", "bool_type", "none_required"),
    *("list_type", "dict_type", "model_type", "model_attributes_type", "literal_error"),
}
_OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}


def explain(error: ValidationError, section: type[Section], content: dict[str, Any]) -> list[Fault]:
    """The faults of `content`, which `section` refused with `error`."""
    found = [_Found(_place(e, content), e) for e in error.errors(include_url=False)]
    places = {f.location for f in found}
    faults: dict[Fault, None] = {}
    for place in dict.fromkeys(f.location for f in found):
        here = [f for f in found if f.location == place]
        deeper = any(len(other) > len(place) and other[: len(place)] == place for other in places)
        if wanted := [f for f in here if f.type not in _WRONG_TYPE]:
            faults.update((_fault(f, section, content), None) for f in wanted)
        elif not deeper:
            faults[_wrong_type(place, here[0].details["input"], section, content)] = None
    return _without_renamed(list(faults))


def _place(error: ErrorDetails, content: Any) -> Location:
    """The keys of a pydantic location that exist in the YAML; the rest names members of unions."""
    place: list[str | int] = []
    is_key = True
    for key in error["loc"]:
        entries = dict(enumerate(content)) if isinstance(content, list) else content
        is_key = isinstance(entries, dict) and key in entries
        if is_key:
            place.append(key)
            content = entries[key]
    if error["type"] in ("missing", "problem") and not is_key:
        place += error["loc"][-1:]
    return tuple(place)


def _fault(found: _Found, section: type[Section], content: dict[str, Any]) -> Fault:
    place, details = found.location, found.details
    value, context = details["input"], details.get("ctx", {})
    allowed = shapes.at(section, place, content)
    if found.type == "problem":
        return Fault(place, context["message"], "check", tuple(context["relies_on"]))
    if found.type == "extra_forbidden":
        return Fault(place, _unknown(place, section, content), "unknown")
    if found.type == "missing":
        return Fault(place, f"missing{_purpose(allowed)}", "missing")
    if found.type == "value_error":
        return Fault(place, str(context["error"]), "check" if isinstance(value, dict) else "value")
    if found.type in _OUT_OF_RANGE:
        return Fault(place, f"{show(value)} is out of range; {_either(allowed)} is expected")
    if found.type in ("too_short", "too_long"):
        bound = "at least" if found.type == "too_short" else "at most"
        number = context.get("min_length", context.get("max_length"))
        given = context["actual_length"] if context["actual_length"] is not None else len(value)
        return Fault(place, f"{given} given, {bound} {number} expected")
    if found.type == "string_pattern_mismatch":
        return Fault(place, f"'{value}' is not a name: letters, digits and _ only, not a digit first")
    if found.type in ("union_tag_invalid", "union_tag_not_found"):
        return Fault(place, f"{show(value)} fits nothing that is known here ({_either(allowed)})")
    return Fault(place, details["msg"].replace("Input should", "must").removeprefix("Value error, "))


def _wrong_type(place: Location, value: Any, section: type[Section], content: dict[str, Any]) -> Fault:
    allowed = shapes.at(section, place, content)
    names = shapes.choices(allowed)
    if isinstance(value, str) and names:
        close = nearest(value, names)
        suggestion = f"did you mean '{close}'? " if close else ""
        return Fault(place, f"'{value}' is not known ({suggestion}allowed: {_either(allowed)})")
    if value is None:
        return Fault(place, f"nothing is given; {_either(allowed)} is expected")
    expected = f"{_either(allowed)} is expected{_hint(value, allowed)}"
    return Fault(place, f"{show(value)} is {_kind(value)}; {expected}")


def _purpose(allowed: list[Shape]) -> str:
    """': ' and the docstring of a field, up to its first full stop."""
    for note in (note for shape in allowed for note in shape.notes if isinstance(note, shapes.Description)):
        sentence = " ".join(note.split()).partition(". ")[0].rstrip(".")
        return f": {sentence[:1].lower()}{sentence[1:]}"
    return ""


def _hint(value: Any, allowed: list[Shape]) -> str:
    types = [member.type for shape in allowed for member in shapes.alternatives(shape)]
    if isinstance(value, float) and int in types and value.is_integer():
        return f" (write {int(value)})"
    if isinstance(value, str) and float in types and value.lower() in ("inf", "nan", "infinity"):
        return " (finite numbers only)"
    if isinstance(value, str) and any(
        _may_hold(member, value) for shape in allowed for member in shapes.alternatives(shape)
    ):
        return f" (write [{value}])"
    if value is True and any(_has_defaults(kind) for kind in types):
        return " (write {} for its defaults)"
    return ""


def _may_hold(shape: Shape, text: str) -> bool:
    """Whether it is a list that the text alone may stand in."""
    entries = shapes.items(shape) if get_origin(shape.type) is list else []
    known = shapes.choices(entries)
    return text in known if known else any(s.type is str for e in entries for s in shapes.alternatives(e))


def _has_defaults(kind: Any) -> bool:
    """Whether a section can be written as {}."""
    if not (isinstance(kind, type) and issubclass(kind, Section)) or kind is Section:
        return False
    try:
        kind.model_validate({})
    except ValidationError:
        return False
    return True


def _unknown(place: Location, section: type[Section], content: dict[str, Any]) -> str:
    inner: Any = content
    for key in place[:-1]:
        inner = inner[key]
    allowed = [
        key
        for s in shapes.sections(shapes.at(section, place[:-1], content), inner)
        for key in shapes.fields(s)
    ]
    names = list(dict.fromkeys(allowed))
    name = str(place[-1])
    close = nearest(name, names) or _moved(ALSO_CALLED.get(name, name), place[:-1], section)
    suggestion = f"did you mean '{close}'? " if close else ""
    return f"unknown key ({suggestion}allowed: {', '.join(names)})"


def _moved(name: str, parent: Location, section: type[Section]) -> str | None:
    """Where a key of this name stands, unless it is likely another thing: deep in a section of another kind."""
    own = ".".join(map(str, parent[:1]))
    found = list(_elsewhere(name, section))
    near = [path for path in found if path.startswith(f"{own}.")] if own else []
    return next((path for path in [*near, *found] if path in near or path.count(".") < 2), None)


def _elsewhere(name: str, section: type[Section], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Where in the YAML a key of this name stands, if it stands below named sections only."""
    for key, info in shapes.fields(section).items():
        if key == name:
            yield ".".join((*path, key))
        for inner in shapes.alternatives(shapes.of_field(info)):
            if isinstance(inner.type, type) and issubclass(inner.type, Section):
                yield from _elsewhere(name, inner.type, (*path, key))


def _without_renamed(faults: list[Fault]) -> list[Fault]:
    """Without 'missing' where an unknown key beside it is that name with a typo."""
    unknown = [f.location for f in faults if f.kind == "unknown"]
    return [
        fault
        for fault in faults
        if fault.kind != "missing"
        or not any(
            other[:-1] == fault.location[:-1] and nearest(str(other[-1]), [str(fault.location[-1])])
            for other in unknown
        )
    ]


def _either(allowed: list[Shape]) -> str:
    return " or ".join(dict.fromkeys(shapes.words(shape) for shape in allowed)) or "nothing"


def _kind(value: Any) -> str:
    kinds = {
        bool: "a truth value",
        int: "a whole number",
        float: "a number with decimals",
        str: "a text",
        list: "a list",
        dict: "a map",
    }
    return kinds.get(type(value), type(value).__name__)


def show(value: Any) -> str:
    """A value as it could stand in the YAML, cut where it is long."""
    if isinstance(value, str):
        text = f"'{value}'"
    elif isinstance(value, float):
        text = repr(value)
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"
