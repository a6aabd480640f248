"""What a submission that is refused leaves of a run: what was there before it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from jettagger.cluster.plan import JOBS, LOGS
from jettagger.cluster.programs import RefusedError, UnclearError
from jettagger.errors import JettaggerError
from jettagger.files import written_aside

ENDS = (".status", ".killed", ".started")
"""Suffixes of the files that say how a task ended, how often it was killed, and that it has begun."""
_WRITTEN = (*ENDS, ".dag", ".json", ".sh", ".sub", ".yaml")


class _File(NamedTuple):
    content: bytes
    mode: int


class _Stamp(NamedTuple):
    """By which it shows that a file was written."""

    number: int
    time: int
    size: int


@contextmanager
def ends_forgotten(jobs: Path) -> Iterator[None]:
    """Once the body has submitted, or may have, removes how tasks of an earlier submission ended, and how often they
    were killed; not what jobs have written meanwhile."""
    before = {path: _stamp(path) for path in _all(jobs) if path.suffix in ENDS}
    try:
        yield
    except (JettaggerError, OSError) as error:
        if not isinstance(error, UnclearError):
            before = {}
        raise
    finally:
        for path, stamp in before.items():
            if _stamp(path) == stamp:
                path.unlink(missing_ok=True)


@contextmanager
def undone_if_refused(run: Path, plan: Path, *, shared: bool = False) -> Iterator[None]:
    """Puts `jobs/`, `logs/` and the `plan` of a sweep back as they were when the scheduler refuses the jobs.

    So it does when they cannot be written; not where jobs may be in the queue all the same, and need their files.
    `shared`: jobs of an earlier submission may be alive; what these have written meanwhile stays.
    """
    written = tuple(suffix for suffix in _WRITTEN if not (shared and suffix in ENDS))
    jobs = run / JOBS
    new = [folder for folder in (jobs, run / LOGS, run, *run.parents) if not folder.exists()]
    before = {path: _File(path.read_bytes(), path.stat().st_mode) for path in _files(jobs, plan, written)}
    others = set(_all(jobs)) - set(before)
    try:
        yield
    except UnclearError as error:
        raise UnclearError(f"{error}; the scripts are kept in {jobs}") from error
    except (JettaggerError, OSError) as error:
        for path in {*_all(jobs), plan} - set(before) - others:
            if not shared or path.suffix in written:
                path.unlink(missing_ok=True)
        for path, file in before.items():
            with written_aside(path) as aside:
                aside.write_bytes(file.content)
                aside.chmod(file.mode)
        for folder in new:
            with suppress(OSError):  # a job that was cancelled may have left a log
                folder.rmdir()
        if isinstance(error, RefusedError):
            raise RefusedError(f"{error}; {run} is left as it was, --dry-run prints the scripts") from error
        raise


def _all(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _files(jobs: Path, plan: Path, suffixes: Sequence[str]) -> list[Path]:
    """What a submission may write over."""
    return [path for path in (*_all(jobs), plan) if path.suffix in suffixes and path.is_file()]


def _stamp(path: Path) -> _Stamp | None:
    """None where there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return _Stamp(found.st_ino, found.st_mtime_ns, found.st_size)
