"""What a place in the YAML may hold, read off the types of the sections, and how to say it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from jettagger.schema import Section, Words


class Shape(NamedTuple):
    """A type, without its alternatives, and the notes (bounds, words) that stand beside it."""

    type: Any
    notes: tuple[Any, ...] = ()


@dataclass(frozen=True)
class ChosenBy:
    """In an `Annotated` type: the section's class hangs on the value of one of its keys."""

    key: str
    names: Callable[[], list[str]]
    choose: Callable[[str], type[Section]]


class Description(str):
    """Among the notes of a field's type: the field's docstring."""


def alternatives(shape: Shape) -> Iterator[Shape]:
    """The members of a union, and those of unions within; a type that is none is its only alternative."""
    origin, arguments = get_origin(shape.type), get_args(shape.type)
    if origin is Annotated:
        yield from alternatives(Shape(arguments[0], (*_flat(arguments[1:]), *shape.notes)))
    elif origin in (Union, UnionType):
        for argument in arguments:
            yield from alternatives(Shape(argument, shape.notes))
    else:
        yield shape


def fields(section: type[Section]) -> dict[str, FieldInfo]:
    """The fields of a section by the keys they have in the YAML."""
    return {info.alias or name: info for name, info in section.model_fields.items()}


def of_field(info: FieldInfo) -> Shape:
    """What a field may hold."""
    return Shape(info.annotation, (Description(info.description or ""), *_flat(info.metadata)))


def at(section: type[Section], location: tuple[str | int, ...], content: Any) -> list[Shape]:
    """What may stand at `location`, given what stands in `content`; empty where nothing may."""
    shapes = [Shape(section)]
    for key in location:
        narrowed = sections(shapes, content)
        others = [s for shape in shapes for s in alternatives(shape) if not _is_section(s)]
        shapes = [of_field(fields(s)[str(key)]) for s in narrowed if str(key) in fields(s)]
        shapes += [inner for shape in others for inner in items(shape) if _holds(shape, key)]
        content = _entry(content, key)
    return shapes


def items(shape: Shape) -> list[Shape]:
    """What the entries of a list or map may hold; empty for anything else."""
    if get_origin(shape.type) not in (list, dict):
        return []
    return [Shape(get_args(shape.type)[-1])]


def sections(shapes: list[Shape], content: Any) -> list[type[Section]]:
    """The sections among `shapes` that `content` can mean: those whose name it gives, else all."""
    found = []
    for member in (s for shape in shapes for s in alternatives(shape) if _is_section(s)):
        by = next((note for note in member.notes if isinstance(note, ChosenBy)), None)
        if by is None:
            found.append(member.type)
        elif isinstance(content, dict) and content.get(by.key) in by.names():
            found.append(by.choose(content[by.key]))
    return [section for section in found if _fits(section, content)] or found


def words(shape: Shape, *, short: bool = False) -> str:
    """What is expected, in words: 'a whole number > 0', 'auto, none or {shift, scale}'."""
    parts = list(dict.fromkeys(_one(alternative, short) for alternative in alternatives(shape)))
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"


def choices(shapes: list[Shape]) -> list[str]:
    """The words that may stand here literally; empty where any text may."""
    members = [s for shape in shapes for s in alternatives(shape)]
    if any(member.type is str for member in members):
        return []
    literal = [member for member in members if get_origin(member.type) is Literal]
    return [value for member in literal for value in get_args(member.type) if isinstance(value, str)]


def _one(shape: Shape, short: bool) -> str:
    origin, arguments = get_origin(shape.type), get_args(shape.type)
    if given := [note.text for note in shape.notes if isinstance(note, Words)]:
        return str(given[0])
    if _is_section(shape):
        return _section(shape.type)
    if origin is Literal:
        return ", ".join(_value(argument) for argument in arguments)
    if origin is list:
        return "a list" if short else f"a list, each {_each(arguments[0])}"
    if origin is dict:
        return "a map" if short else f"a map of names, each to {_each(arguments[1])}"
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}
    name = "a name (letters, digits and _)" if shape.type is str and _has_pattern(shape) else None
    return name or plain.get(shape.type, getattr(shape.type, "__name__", "a value")) + _bounds(shape)


def _each(entry: Any) -> str:
    """What an entry of a list or map holds, without the entries within."""
    several = any(
        get_origin(s.type) is Literal and len(get_args(s.type)) > 1 for s in alternatives(Shape(entry))
    )
    return ("one of " if several else "") + words(Shape(entry), short=True)


def _section(section: type[Section]) -> str:
    keys = list(fields(section))
    return "a map {" + ", ".join(keys[:6]) + (", …" if len(keys) > 6 else "") + "}"


def _bounds(shape: Shape) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    limits = [
        f"{sign} {getattr(note, key):g}"
        for key, sign in signs.items()
        for note in shape.notes
        if getattr(note, key, None) is not None
    ]
    return f" {' and '.join(limits)}" if limits else ""


def _value(literal: Any) -> str:
    return literal if isinstance(literal, str) else str(literal).lower()


def _has_pattern(shape: Shape) -> bool:
    return any(getattr(note, "pattern", None) for note in shape.notes)


def _is_section(shape: Shape) -> bool:
    return isinstance(shape.type, type) and issubclass(shape.type, Section)


def _flat(notes: Any) -> Iterator[Any]:
    for note in notes:
        yield from note.metadata if isinstance(note, FieldInfo) else (note,)


def _holds(shape: Shape, key: str | int) -> bool:
    return get_origin(shape.type) is (list if isinstance(key, int) else dict)


def _entry(content: Any, key: str | int) -> Any:
    if isinstance(content, Mapping):
        return content.get(key)
    if isinstance(content, list) and isinstance(key, int) and key < len(content):
        return content[key]
    return None


def _fits(section: type[Section], content: Any) -> bool:
    """Whether the names in `content` are those that a section of this class may have."""
    if not isinstance(content, dict):
        return True
    for key, info in fields(section).items():
        allowed = choices([of_field(info)])
        if key in content and allowed and content[key] not in allowed:
            return False
    return True
