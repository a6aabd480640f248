"""Modules import only from rows above their own, never from a room in their row; torch comes late."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "jettagger"

ROWS: tuple[tuple[str, ...], ...] = (
    ("errors",),  # imported by all
    ("files", "kinematics", "randomness", "schema", "yaml_source"),
    ("metrics",),  # draws its bootstrap replicas from randomness
    ("advice", "batch", "expressions", "outputs"),  # advice judges figures by their range in metrics
    ("data", "models"),
    ("uncertainty",),
    ("baselines", "tagger"),
    ("evaluation", "explain", "export", "inspection", "simulation", "training"),
    ("report", "zoo"),
    ("cluster",),  # its section is composed by configuration
    ("configuration",),
    ("cli",),
    ("__main__",),
)
"""From the foundations up; the lower the number, the less a room knows."""

ROW_OF = {room: number for number, row in enumerate(ROWS) for room in row}

WITHOUT_TORCH = (
    *(
        "jettagger",
        "jettagger.advice",
        "jettagger.errors",
        "jettagger.files",
        "jettagger.schema",
        "jettagger.yaml_source",
    ),
    *("jettagger.kinematics", "jettagger.metrics", "jettagger.randomness", "jettagger.expressions"),
    *(
        "jettagger.outputs.schema",
        "jettagger.data.schema",
        "jettagger.training.schema",
        "jettagger.evaluation.schema",
    ),
    *("jettagger.cluster.submission", "jettagger.cluster.status", "jettagger.cluster.sweep"),
    *("jettagger.baselines", "jettagger.configuration", "jettagger.cli"),
)


def imported_rooms(source: str, room: str) -> Iterator[tuple[int, str]]:
    """Line and room of each import from jettagger, wherever in the module it stands."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            names = [f"jettagger.{room}"] if node.level == 1 else ["jettagger.<relative import>"]
        elif isinstance(node, ast.ImportFrom) and node.module == "jettagger":
            names = [f"jettagger.{alias.name}" for alias in node.names if not alias.name.startswith("__")]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "jettagger" and rest:
                yield node.lineno, rest.partition(".")[0]


def violations(source: str, room: str, name: str = "module") -> list[str]:
    """What a module of `room` imports against the rule."""
    if room not in ROW_OF:
        return [f"{name}: the room '{room}' has no row: {', '.join(ROW_OF)}"]
    return [
        f"{name}:{line}: {room} (row {ROW_OF[room]}) imports {other} (row {ROW_OF.get(other, 'unknown')})"
        for line, other in imported_rooms(source, room)
        if other != room and not ROW_OF.get(other, len(ROWS)) < ROW_OF[room]
    ]


def modules() -> list[Path]:
    """All modules but the top one, which offers the public names of any room."""
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def test_rooms_import_only_from_rows_above() -> None:
    found = []
    for path in modules():
        inside = path.relative_to(SOURCE)
        room = inside.parts[0].removesuffix(".py")
        found += violations(path.read_text(encoding="utf-8"), room, str(inside))
    assert len(modules()) > 20
    assert found == []


@pytest.mark.parametrize(
    ("room", "source", "fault"),
    [
        ("data", "from jettagger.training import run", "imports training"),
        ("data", "def f():\n    import jettagger.models.mlp", "2: data .* imports models"),
        ("report", "from jettagger import errors, zoo", "imports zoo"),
        ("files", "from jettagger.randomness import key", "imports randomness"),
        ("errors", "from jettagger import files", "imports files"),
        ("training", "from jettagger import helpers", r"imports helpers \(row unknown\)"),
        ("training", "from ..data import reader", "relative import"),
        ("helpers", "import torch", "the room 'helpers' has no row"),
    ],
)
def test_the_rule_is_enforced(room: str, source: str, fault: str) -> None:
    [found] = violations(source, room)
    with pytest.raises(AssertionError, match=fault):
        raise AssertionError(found)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("data", "import numpy\nfrom jettagger import __version__\nfrom jettagger.expressions import parse"),
        ("data", "from jettagger.data.schema import DataConfig\nfrom . import reader\nimport jettagger"),
        ("cli", "from jettagger import configuration\nimport jettagger.report"),
    ],
)
def test_what_is_allowed_passes(room: str, source: str) -> None:
    assert violations(source, room) == []


def test_torch_is_imported_when_first_needed() -> None:
    code = (
        "import importlib, sys\n"
        f"for name in {WITHOUT_TORCH}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules:\n"
        "        sys.exit(name + ' imports torch')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")
