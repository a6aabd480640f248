"""Writes docs/configuration.md from the sections of the YAML; with --check, says whether it is current."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from jettagger.configuration import shapes
from jettagger.configuration.config import Config, architectures, model_section
from jettagger.configuration.identity import plain
from jettagger.schema import Section

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"

HEAD = """\
# The configuration

<!-- Written by scripts/document_configuration.py from the docstrings of the sections. -->

A run is described by one YAML file. It is checked as a whole before a data file is opened: unknown keys,
wrong types and values that do not go together are reported at once, with file and line. `jettagger schema`
prints its JSON Schema, by which an editor completes and checks it; `--set training.epochs=3` overrides a
key of it: a map is put over a map key by key, anything else replaces what stood there.

Numbers may be written as `1e-3`. Only `true` and `false` are truth values: `yes`, `no`, `on` and `off` are
text. Text that begins with one of `* & ! % @` or holds `: ` needs quotes. A key that stands twice is an
error; anchors (`&name`), aliases (`*name`) and merges (`<<: *name`) are understood. Paths are relative to
the folder in which `jettagger` is started.
"""

NAMES = "*"


def page() -> str:
    """The page as it should be."""
    parts = [HEAD, *_tables(Config, (), "The top level")]
    for name in architectures():
        parts += _tables(model_section(name), ("model",), f"`model` with `architecture: {name}`")
    return "\n".join(parts)


def _tables(section: type[Section], path: tuple[str, ...], title: str) -> Iterator[str]:
    """The table of a section, then those of the sections in it, each once with all its places."""
    places: dict[type[Section], list[tuple[str, ...]]] = {}
    _collect(section, path, places)
    for found, paths in places.items():
        heading = title if found is section else ", ".join(f"`{'.'.join(place)}`" for place in paths)
        yield f"## {heading}\n"
        yield _purpose(found)
        yield _table(found)


def _collect(
    section: type[Section], path: tuple[str, ...], places: dict[type[Section], list[tuple[str, ...]]]
) -> None:
    places.setdefault(section, []).append(path)
    for inner, where in _inner(section, path):
        _collect(inner, where, places)


def _inner(section: type[Section], path: tuple[str, ...]) -> Iterator[tuple[type[Section], tuple[str, ...]]]:
    for key, info in shapes.fields(section).items():
        yield from _sections(shapes.of_field(info), (*path, key))


def _sections(shape: shapes.Shape, path: tuple[str, ...]) -> Iterator[tuple[type[Section], tuple[str, ...]]]:
    """The sections that may stand at a place, itself or below names or list positions."""
    for member in shapes.alternatives(shape):
        if isinstance(member.type, type) and issubclass(member.type, Section) and member.type is not Section:
            where = (*path[:-1], "jet") if member.type.__name__ == "JetSection" else path
            yield member.type, where
        else:
            for inner in shapes.items(member):
                yield from _sections(inner, (*path, NAMES))


def _table(section: type[Section]) -> str:
    rows = ["| key | holds | default | |", "|---|---|---|---|"]
    for key, info in shapes.fields(section).items():
        cells = [f"`{key}`", shapes.words(shapes.of_field(info)), _default(info), info.description or ""]
        rows.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value: Any = info.get_default(call_default_factory=True)
    assert value is not PydanticUndefined
    if isinstance(value, BaseModel):
        return "its defaults"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(plain(value), ensure_ascii=False)}`"


def _purpose(section: type[Section]) -> str:
    return (section.__doc__ or "").split("\n\n")[0].strip() + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(
            0 if PAGE.read_text(encoding="utf-8") == page() else f"{PAGE} is not current: run this script"
        )
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
