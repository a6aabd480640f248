"""SIGTERM and SIGUSR1, by which a batch system takes the machine away: what was learned is saved first.

While a network is trained the signal is only noted, and the training asks `asked_to_stop` once a step. At any
other time it ends the command at once: what is written then is written aside, and prepared data go on where they
were. A second signal ends the process without another word.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from jettagger.errors import JettaggerError
from jettagger.files import write_json

STATUS = 75
"""Exit status of an interrupted command: EX_TEMPFAIL, try again later. A scheduler may requeue on it."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

MARKER = "interrupted.json"
"""In a member's folder: the training was interrupted, and goes on without being asked to."""


SAME = 2.0
"""Seconds within which a second signal is taken for the first one: launchers and schedulers send it side by side."""


class Interrupted(BaseException):
    """The command was asked to stop. No Exception, so that nothing takes it for a damaged file."""

    def __init__(self, signal: str, folder: Path | None = None, step: int | None = None) -> None:
        saved = "" if folder is None else f" after step {step}, which is saved in {folder}"
        super().__init__(f"interrupted by {signal}{saved}: the same command goes on")
        self.signal, self.folder, self.step = signal, folder, step


@dataclass(frozen=True)
class Interruption:
    """What `interrupted.json` holds."""

    signal: str
    step: int | None
    """Steps that are done and saved; None where no step was being made."""
    time: str
    """When it came, UTC, ISO 8601."""
    overwriting: bool
    """Whether the command was to replace a run that was there."""


@dataclass
class _Noted:
    """What the handler and the training tell each other; signals belong to the process, and so does this."""

    name: str | None = None
    """The signal that has come."""
    at: float = 0.0
    """When it came, by the monotonic clock."""
    noting: int = 0
    """How many trainings are under way, which ask by themselves."""


_noted = _Noted()


@contextmanager
def heeded() -> Iterator[None]:
    """Takes SIGTERM and SIGUSR1 for requests to stop while the body runs; for commands, in the main thread.

    The former handlers are put back. Elsewhere than in the main thread, where Python sets no handlers, the body
    just runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _noted.name = None
    before = {number: signal.signal(number, _handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _noted.name = None


@contextmanager
def noted() -> Iterator[None]:
    """While the body runs a signal interrupts nothing; a body that has not asked is interrupted at its end."""
    _noted.noting += 1
    try:
        yield
    finally:
        _noted.noting -= 1
    if _noted.noting == 0 and _noted.name is not None:
        raise Interrupted(_noted.name)


def asked_to_stop() -> str | None:
    """The name of the signal that asked for the end, if one did. A training asks once a step."""
    return _noted.name


@contextmanager
def marking(folders: Sequence[Path], *, overwriting: bool) -> Iterator[None]:
    """Leaves word in those of `folders` that are there when the body is interrupted; takes it away at its end."""
    try:
        yield
    except Interrupted as error:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for folder in folders:
            if folder.is_dir():
                step = error.step if folder == error.folder else None
                write_json(folder / MARKER, asdict(Interruption(error.signal, step, now, overwriting)))
        raise
    for folder in folders:
        (folder / MARKER).unlink(missing_ok=True)


def interrupted_before(folders: Sequence[Path], *, overwriting: bool) -> str | None:
    """The signal that interrupted what is to go on by itself now; None where nothing is.

    With `overwriting` only what was overwriting already goes on. Raises JettaggerError for a marker that cannot
    be read.
    """
    for folder in folders:
        path = folder / MARKER
        try:
            found = Interruption(**json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, TypeError, ValueError) as error:
            raise JettaggerError(f"{path} cannot be read ({error}): --resume goes on without it") from error
        if found.overwriting or not overwriting:
            return found.signal
    return None


def _handle(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _noted.name is None:
        _noted.name, _noted.at = signal.Signals(number).name, now
        if _noted.noting == 0:
            raise Interrupted(_noted.name)
    elif now - _noted.at > SAME:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
