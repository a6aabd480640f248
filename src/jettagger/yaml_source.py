"""YAML that remembers on which line each key stands, and says in words what is wrong with it.

Only what a config needs: maps with plain keys, lists, text, numbers, true and false, null. `1e-3` and `1e3`
are numbers; `yes`, `no`, `on`, `off` and dates are text; a key that stands twice is an error; tags are too.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from jettagger.errors import JettaggerError, nearest

Location = tuple[str | int, ...]
"""Keys and list positions from the top of the document."""

_PATTERNS: dict[str, tuple[str, str]] = {
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": (r"<<", "<"),
}
_PREFIX = "tag:yaml.org,2002:"
_MOST_VALUES = 100_000


@dataclass(frozen=True)
class Document:
    """What a YAML file says, and the line of each of its keys and list items (from 1)."""

    name: str
    content: dict[str, Any]
    lines: dict[Location, int] = field(default_factory=dict)


def read(path: Path | str) -> Document:
    """The YAML file at `path`, whose top level is a map. Raises JettaggerError for what is wrong with it."""
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise _missing(path) from None
    except IsADirectoryError:
        raise JettaggerError(f"{path}: is a folder; a YAML file is expected") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise JettaggerError(f"{path}:{line}: is not UTF-8 text (byte {error.start + 1})") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise JettaggerError(f"{path}: cannot be read: {reason}") from None
    return parse(text, name=str(path))


def parse(text: str, *, name: str) -> Document:
    """The same for text; `name` stands in the place of the file in messages."""
    lines: dict[Location, int] = {}
    content = _load(text, name, lines)
    if content is None:
        raise JettaggerError(f"{name}: is empty; a map of keys and values is expected")
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else "a single value"
        raise JettaggerError(f"{name}:1: the top level is {kind}; a map is expected, such as 'format: 1'")
    return Document(name, content, lines)


def parse_value(text: str, *, name: str) -> Any:
    """One YAML value: a scalar, [a, list] or {a: map}. `name` stands before the message if it is none."""
    try:
        return _load(text, "", {})
    except JettaggerError as error:
        message = re.sub(r"^(:\d+)*: ", "", str(error).partition("\n")[0])
        raise JettaggerError(f"{name}: {message}") from None


def write(content: dict[str, Any]) -> str:
    """YAML text that `parse` reads back as `content`."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def _load(text: str, name: str, lines: dict[Location, int]) -> Any:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _Builder(name, loader, lines).build(node, ())
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, name, text) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise JettaggerError(
            f"{name}:{line}: the character U+{error.character:04X} cannot stand in YAML"
        ) from None
    except RecursionError:
        raise JettaggerError(f"{name}: is nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """Recognises the scalars named above and no others."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_Loader` or another YAML reader would take for something else."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {
        first: list(pairs) for first, pairs in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _kind, (_pattern, _first) in _PATTERNS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            _PREFIX + _kind, re.compile(rf"^(?:{_pattern})$"), [*_first, *([""] if _kind == "null" else [])]
        )


class _Builder:
    """Turns nodes into dicts, lists and scalars, and notes their lines."""

    def __init__(self, name: str, loader: _Loader, lines: dict[Location, int]) -> None:
        self.name = name
        self.loader = loader
        self.lines = lines
        self.values = 0
        self.open: set[int] = set()
        self.flattened: set[int] = set()

    def build(self, node: Node, location: Location) -> Any:
        self.values += 1
        if self.values > _MOST_VALUES:
            raise JettaggerError(f"{self.name}: holds more than {_MOST_VALUES} values")
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if id(node) in self.open:
            raise self._error(node, "an alias (*) that contains itself")
        if node.tag not in (_PREFIX + "map", _PREFIX + "seq"):
            raise self._error(node, _no_tags(node.tag))
        self.open.add(id(node))
        try:
            if isinstance(node, MappingNode):
                return {key: self.build(value, place) for key, value, place in self._pairs(node, location)}
            assert isinstance(node, SequenceNode)
            return [self.build(item, place) for item, place in self._items(node, location)]
        finally:
            self.open.remove(id(node))

    def _pairs(self, node: MappingNode, location: Location) -> Iterator[tuple[str, Node, Location]]:
        if id(node) not in self.flattened:
            self._refuse_duplicates(node, location)
            self.loader.flatten_mapping(node)
            self.flattened.add(id(node))
        for key, value in node.value:
            name = self._key(key, location)
            self.lines[(*location, name)] = _line(key)
            yield name, value, (*location, name)

    def _items(self, node: SequenceNode, location: Location) -> Iterator[tuple[Node, Location]]:
        for position, item in enumerate(node.value):
            self.lines[(*location, position)] = _line(item)
            yield item, (*location, position)

    def _refuse_duplicates(self, node: MappingNode, location: Location) -> None:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            name = self._key(key, location)
            if name in seen and name != "<<":
                path = ".".join(map(str, (*location, name)))
                raise self._error(key, f"{path}: the key stands twice (first on line {seen[name]})")
            seen[name] = _line(key)

    def _key(self, node: Node, location: Location) -> str:
        if isinstance(node, ScalarNode):
            return str(node.value)
        raise self._error(node, "a key must be a plain word; braces and brackets in a text need quotes")

    def _scalar(self, node: ScalarNode) -> Any:
        value, kind = node.value, node.tag.removeprefix(_PREFIX)
        if kind in ("str", "merge"):
            return value
        try:
            if kind == "null":
                return None
            if kind == "bool":
                return {"true": True, "false": False}[value.lower()]
            if kind == "int":
                return _whole_number(value)
            if kind == "float":
                return float(re.sub(r"\.(?=inf|nan)", "", value.lower()))
        except (ValueError, KeyError):
            raise self._error(node, f"{value[:40]!r} cannot be read as {_KINDS[kind]}") from None
        raise self._error(node, _no_tags(node.tag))

    def _error(self, node: Node, message: str) -> JettaggerError:
        mark = node.start_mark
        return JettaggerError(f"{self.name}:{mark.line + 1}:{mark.column + 1}: {message}")


_KINDS = {"bool": "true or false", "int": "a whole number of 64 bits", "float": "a number"}


def _whole_number(text: str) -> int:
    number = int(text, 16 if text.startswith("0x") else 10)
    if not -(2**63) <= number < 2**63:
        raise ValueError
    return number


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _no_tags(tag: str) -> str:
    return f"the tag '{tag.replace(_PREFIX, '!!')}' is not known here: text that begins with '!' needs quotes"


def _missing(path: Path) -> JettaggerError:
    folder = path.parent
    if not folder.is_dir():
        return JettaggerError(f"{path}: no such file (there is no folder {folder})")
    names = sorted(file.name for file in folder.iterdir() if file.suffix in (".yaml", ".yml"))
    close = nearest(path.name, names)
    if close:
        return JettaggerError(f"{path}: no such file: did you mean '{folder / close}'?")
    shown = ", ".join(names[:10]) or "none"
    return JettaggerError(f"{path}: no such file (YAML files in {folder}: {shown})")


_NO_COLON = "'key: value' is expected, with a colon and a space"
_SYNTAX: Sequence[tuple[str, str, bool]] = (
    (r"character '\\t'", "a tab: YAML is indented with spaces only", False),
    (
        r"character '(.)' that cannot start",
        "text that begins with '{0}' needs quotes",
        False,
    ),
    (r"could not find expected ':'", _NO_COLON, True),
    (
        r"mapping values are not allowed",
        "': ' is not expected here: is the line indented too far, or the line above not complete? Text that "
        "holds ': ' needs quotes",
        False,
    ),
    (
        r"expected <block end>",
        "the indentation does not fit the lines above (all keys of one map begin in the same column)",
        False,
    ),
    (r"expected ',' or '([}\]])'", "',' or '{0}' is expected", False),
    (r"unexpected end of stream", "the quote that begins here is never closed", True),
    (r"undefined alias", "text that begins with '*' needs quotes", False),
    (r"expected alphabetic or numeric", "text that begins with '&' or '*' needs quotes", False),
    (r"duplicate anchor", "the anchor (&) stands twice; text that begins with '&' needs quotes", False),
    (r"unknown escape character", "in double quotes a backslash begins an escape: use single quotes", False),
    (
        r"but found another document",
        "a second document ('---') begins here; one file holds one config",
        False,
    ),
    (r"^expected the node content", "a value is expected here", False),
)
"""A pattern of the parser's message, what to say instead, and whether the place is where the thing began."""


def _syntax_error(error: yaml.MarkedYAMLError, name: str, text: str) -> JettaggerError:
    problem = error.problem or error.context or "cannot be read"
    words, mark = f"not valid YAML: {problem}", error.problem_mark or error.context_mark
    for pattern, replacement, at_start in _SYNTAX:
        if match := re.search(pattern, problem):
            words = replacement.format(*match.groups())
            mark = (error.context_mark if at_start else None) or mark
            break
    if mark is None:
        return JettaggerError(f"{name}: {words}")
    rows = [*text.splitlines(), ""]
    line, column = min(mark.line, len(rows) - 1), mark.column
    if "mapping values" in problem and _lacks_colon(rows[line - 1]):
        words, line = _NO_COLON, line - 1
        column = len(rows[line]) - len(rows[line].lstrip())
    row = rows[line].replace("\t", "→").strip()[:100]
    return JettaggerError(f"{name}:{line + 1}:{column + 1}: {words}" + (f"\n    {row}" if row else ""))


def _lacks_colon(row: str) -> bool:
    """Whether a line is read as one text with the next, although it may be meant to be a key and a value."""
    content = row.strip()
    return bool(content) and content[0] not in "#-'\"" and ": " not in content and content[-1] != ":"
