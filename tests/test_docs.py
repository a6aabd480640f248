"""The pages in docs/ and the README: their links, the files that they name, and their YAML."""

import json
import re
from pathlib import Path

import pytest

import jettagger
from jettagger import configuration, yaml_source
from test_import_rule import ROWS

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "data" / "README.md",
]
FENCED = r"^```yaml\n(.*?)^```"
FILE = r"(?<![\w/{:.-])((?:tests|src|configs|benchmarks|scripts|docs)/[\w/.\-]*\w)"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def broken_links(page: Path, text: str) -> list[str]:
    """Links to a file, or to a heading, that is not there."""
    broken = []
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("https://"):
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        headings = (
            re.findall(r"^#+ (.*)$", text_of(target), re.M)
            if target.suffix == ".md" and target.exists()
            else []
        )
        if not target.exists() or (heading and heading not in map(anchor, headings)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_files_are_there(page: Path) -> None:
    text = text_of(page)
    assert broken_links(page, text) == []
    assert [name for name in re.findall(FILE, text) if not (ROOT / name).exists()] == []


def test_a_broken_link_is_found() -> None:
    page = ROOT / "docs" / "data.md"
    assert broken_links(page, "[a](data.md#folds) [b](#folds) [c](data.md#foldz) [d](dat.md)") == [
        "data.md#foldz",
        "dat.md",
    ]


EXAMPLES = [
    pytest.param(block, id=f"{page.stem}{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(FENCED, text_of(page), re.S | re.M))
]


@pytest.mark.parametrize("block", EXAMPLES)
def test_examples_are_valid_over_a_shipped_config(block: str) -> None:
    content = yaml_source.parse(block, name="example").content
    base = "mass_regression" if "gen_jet" in block else "particle_cnn"
    overrides = [f"{key}={json.dumps(value)}" for key, value in content.items()]
    if base == "particle_cnn":
        overrides.append("model.subjets=null")  # no example draws its particles
    configuration.load(ROOT / "configs" / f"{base}.yaml", overrides)


def test_the_table_of_rooms_is_the_import_rule() -> None:
    table = re.findall(r"^\| \d+ \| (.*) \|$", text_of(ROOT / "docs" / "design.md"), re.M)
    source = Path(jettagger.__file__).parent
    rooms = {path.stem for path in source.iterdir()} - {"__main__"}
    there = [[room for room in row if room in rooms] for row in ROWS]
    told = [re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", row)) for row in table]
    assert told == [sorted(row) for row in there if row]
