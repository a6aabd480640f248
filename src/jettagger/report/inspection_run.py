"""`jettagger inspect`: the config's files are read, what was found is said and becomes a page.

DIR/inspection.html, DIR/inspection.json, DIR/figures/*.pdf and *.png
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from jettagger.baselines import BaselinesSection
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError
from jettagger.files import check_writable
from jettagger.inspection.inspect import JETS, inspect
from jettagger.inspection.words import summary
from jettagger.report.inspection_page import write_inspection


def inspect_config(
    config: DataConfig,
    section: BaselinesSection,
    output: Path,
    *,
    name: str,
    against: Sequence[str] = (),
    reference: str | None = None,
    jets: int = JETS,
    say: Callable[[str], None] = print,
) -> int:
    """Inspects and writes the report; returns the exit status: 2 where something would stop a training."""
    if output.exists() and not output.is_dir():
        raise JettaggerError(f"--output {output} is a file; an inspection is a folder")
    check_writable(output / "inspection.html")
    found = inspect(config, section, name=name, against=against, reference=reference, jets=jets, say=say)
    page = write_inspection(found, output)
    say(summary(found))
    say(f"inspection: {page}")
    return found.status
