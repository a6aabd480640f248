"""From a YAML file and `--set key=value` to a `Config`, or to one message that lists every mistake."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jettagger import yaml_source
from jettagger.configuration.config import Config, problems_of_model, problems_of_reflections
from jettagger.configuration.faults import Fault, explain
from jettagger.configuration.identity import plain
from jettagger.configuration.overrides import Source
from jettagger.errors import JettaggerError
from jettagger.yaml_source import Location

_ROUNDS = 20


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The config in the YAML file at `path`, with `overrides` such as 'training.epochs=3' put over it.

    Raises JettaggerError with all mistakes at once.
    """
    return _checked(Source(yaml_source.read(path), overrides))


def loads(text: str, *, name: str = "config", overrides: Sequence[str] = ()) -> Config:
    """The same for YAML text, such as that of a bundle; `name` stands in the place of the file."""
    return _checked(Source(yaml_source.parse(text, name=name), overrides))


def dump(config: Config) -> str:
    """The config as YAML, all defaults written out; `loads` gives an equal Config."""
    content = plain(config)
    return yaml_source.write({"format": content.pop("format"), **content})


def _checked(source: Source) -> Config:
    """The config, or one error with all faults.

    What is wrong is cut out and the rest is checked again, because values that do not go together are only
    looked for among values that are valid. Later rounds add only what the cuts did not cause.
    """
    content = copy.deepcopy(source.content)
    faults: list[Fault] = []
    cuts: list[Location] = []
    config = None
    for _ in range(_ROUNDS):
        try:
            config = Config.model_validate(content)
            break
        except ValidationError as error:
            found = explain(error, Config, content)
        faults += [fault for fault in found if _is_no_consequence(fault, cuts)]
        cuts += [fault.location[:-1] if fault.kind == "missing" else fault.location for fault in found]
        if () in cuts:
            break
        for cut in cuts:
            _cut(content, cut)
    if config is not None and not faults:
        problems = [*problems_of_model(config), *problems_of_reflections(config)]
        faults += [Fault(problem.location, problem.message) for problem in problems]
    if config is None or faults:
        raise JettaggerError(_report(source, faults))
    return config


def _is_no_consequence(fault: Fault, cuts: list[Location]) -> bool:
    """Whether a fault was there before entries were cut out."""
    if not cuts:
        return True
    if fault.kind != "check" or any(cut[: len(fault.location)] == fault.location for cut in cuts):
        return False
    return not any(cut == place[: len(cut)] or cut[:-1] == place for place in fault.relies_on for cut in cuts)


def _cut(content: dict[str, Any], location: Location) -> None:
    """Removes an entry, if it is still there: a list as a whole, and a map with its last entry."""
    keys = [*location]
    while keys and isinstance(keys[-1], int):
        keys.pop()
    parents: list[Any] = [content]
    for key in keys[:-1]:
        inner = parents[-1].get(key) if isinstance(parents[-1], dict) else None
        if not isinstance(inner, dict):
            return
        parents.append(inner)
    for parent, key in zip(reversed(parents), reversed(keys), strict=True):
        parent.pop(key, None)
        if parent:
            break


def _report(source: Source, faults: list[Fault]) -> str:
    """A line for each fault, in the order of the file, below their number."""
    ordered = sorted(dict.fromkeys(faults), key=lambda fault: source.order(fault.location))
    lines = []
    for fault in ordered:
        path = ".".join(map(str, fault.location))
        message = fault.message.replace("\n", "\n    ")
        lines.append(f"{source.place(fault.location)}: {path + ': ' if path else ''}{message}")
    if len(lines) == 1:
        return lines[0]
    return "\n".join([f"{source.name}: {len(lines)} problems", *lines])
