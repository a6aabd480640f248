"""What an inspection found to be wrong: errors that would stop a training, and warnings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jettagger.errors import JettaggerError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, wherever it occurs."""

    severity: Severity
    """`error`: a training would stop, or a file would be left out; `warning`: it would go on."""
    where: str
    """Key of the config, or what the finding is about."""
    message: str
    """What is wrong."""
    advice: str
    """What to write in the config; empty where there is no rule."""
    files: tuple[str, ...]
    """Where it occurs; empty where no single file is to blame."""


class Findings:
    """Collects; what is wrong in the same way in many files is one finding."""

    def __init__(self) -> None:
        self._files: dict[tuple[Severity, str, str, str], dict[str, None]] = {}

    def add(
        self, severity: Severity, where: str, message: str, *, advice: str = "", file: str | None = None
    ) -> None:
        """Notes a fault, or one more file that has it."""
        files = self._files.setdefault((severity, where, message, advice), {})
        if file is not None:
            files[file] = None

    def error(self, error: JettaggerError, *, where: str, file: str | None = None) -> None:
        """Notes what a training would have stopped with; the file is told apart from the words."""
        self.add("error", where, _without(str(error), file).removeprefix(f"{where}: "), file=file)

    def __iter__(self) -> Iterator[Finding]:
        """Errors first, each kind in the order in which it was met."""
        for severity in ("error", "warning"):
            for (found, where, message, advice), files in self._files.items():
                if found == severity:
                    yield Finding(found, where, message, advice, tuple(files))


def _without(message: str, file: str | None) -> str:
    if file is None:
        return message
    return message.replace(f"{file}: ", "").replace(file, "the file")
