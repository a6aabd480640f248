"""The YAML with `--set key=value` put over it, and where each of its keys was written."""

import copy
from collections.abc import Sequence
from typing import Any

from jettagger import yaml_source
from jettagger.errors import JettaggerError
from jettagger.yaml_source import Document, Location


class Source:
    """The content to check, and the place of each key: a line of the file, or an override."""

    def __init__(self, document: Document, overrides: Sequence[str] = ()) -> None:
        self.name = document.name
        self.content = copy.deepcopy(document.content)
        self._lines = document.lines
        self._origins: dict[Location, int] = {}
        self._overrides = list(overrides)
        for number, override in enumerate(self._overrides):
            self._put(override, number)

    def place(self, location: Location) -> str:
        """'file:line', or the override: that of the key itself, or of the nearest one around it."""
        kind, number = self._origin(location)
        if kind == 1:
            return f"--set {self._overrides[number]}"
        return f"{self.name}:{number}" if number else self.name

    def order(self, location: Location) -> tuple[int, int]:
        """Sorts locations as a reader meets them: the file from top to bottom, then the overrides."""
        return self._origin(location)

    def _origin(self, location: Location) -> tuple[int, int]:
        for length in range(len(location), 0, -1):
            if location[:length] in self._origins:
                return 1, self._origins[location[:length]]
            if location[:length] in self._lines:
                return 0, self._lines[location[:length]]
        return 0, 0

    def _put(self, override: str, number: int) -> None:
        path, equals, text = override.partition("=")
        keys = [key.strip() for key in path.split(".")]
        if not equals or not all(keys):
            raise JettaggerError(f"--set {override}: key=value is expected, such as training.epochs=3")
        value = yaml_source.parse_value(text, name=f"--set {override}")
        parent, location = self._parent(keys, override, number)
        key = _key(parent, keys[-1], override)
        self._assign(parent, key, value, (*location, key), number)

    def _parent(self, keys: list[str], override: str, number: int) -> tuple[Any, Location]:
        """The map or list that holds the last key; maps that do not exist are made."""
        inner: Any = self.content
        location: Location = ()
        for name in keys[:-1]:
            key = _key(inner, name, override)
            location = (*location, key)
            if isinstance(inner, dict) and inner.get(key) is None:
                inner[key] = {}
                self._origins[location] = number
            inner = inner[key]
            if not isinstance(inner, dict | list):
                path = ".".join(map(str, location))
                raise JettaggerError(f"--set {override}: {path} is {inner!r} and has no keys")
        return inner, location

    def _assign(self, parent: Any, key: str | int, value: Any, location: Location, number: int) -> None:
        """A map is put over a map key by key; anything else replaces what stood there."""
        old = parent[key] if isinstance(key, int) else parent.get(key)
        if not (isinstance(value, dict) and isinstance(old, dict)):
            self._origins = {p: n for p, n in self._origins.items() if p[: len(location)] != location}
            self._lines = {p: n for p, n in self._lines.items() if p[: len(location)] != location}
            self._origins[location] = number
            parent[key] = value
            return
        for name, inner in value.items():
            self._assign(old, name, inner, (*location, name), number)


def _key(parent: Any, name: str, override: str) -> str | int:
    if isinstance(parent, dict):
        return name
    if name.isdecimal() and int(name) < len(parent):
        return int(name)
    raise JettaggerError(f"--set {override}: '{name}' is not a position in the list (0 to {len(parent) - 1})")
