"""Fills shards: in this process, in others, or on other machines.

A shard is written aside and renamed: a run that was killed goes on where it was, and two runs that fill the same
folder write the same bytes.
"""

import errno
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jettagger import randomness
from jettagger.data.asides import left_aside, written_aside
from jettagger.data.columns import Columns, Table
from jettagger.data.containers.base import Chunk
from jettagger.data.locations import is_remote
from jettagger.data.manifest import ShardRecord, Stamp, stamp_of
from jettagger.data.plan import Task
from jettagger.data.reader import opened
from jettagger.data.schema import DataConfig
from jettagger.data.shards import Contents, arrays_of, look_into, write_shard
from jettagger.errors import JettaggerError


@dataclass(frozen=True)
class Job:
    """What all shards of a dataset have in common; can be sent to another process or machine."""

    directory: Path
    """Absolute."""
    started_in: Path
    """The folder that relative paths of input files mean."""
    config: DataConfig
    extras: Mapping[str, str | int | float]


class Filled(NamedTuple):
    """A shard that is there."""

    record: ShardRecord
    stamp: Stamp


class Unusable(NamedTuple):
    """A file that data.on_error leaves out."""

    reason: str


def fill(job: Job, task: Task) -> Filled | Unusable:
    """Fills one shard, unless it is there already.

    Raises JettaggerError for a file that does not fit (unless data.on_error says to skip it), and for a disk
    that does not take the shard.
    """
    path = job.directory / task.shard
    if Path.cwd() == job.started_in and path.is_relative_to(job.started_in):
        path = path.relative_to(job.started_in)  # as the user wrote it
    contents = _there_already(path)
    if contents is None:
        with writing(path), written_aside(path) as aside:
            try:
                chunk = _read(job, task)
            except JettaggerError as error:
                if job.config.data.on_error == "stop":
                    raise _located(error, task) from error.__cause__
                return Unusable(str(_located(error, task)))
            try:
                columns, table = _table(job, task, chunk)
                arrays, rounding = arrays_of(table, columns.spec, job.config.data.storage)
            except JettaggerError as error:
                # Jets that do not fit the config are no fault of the file, so on_error does not leave it out.
                raise _located(error, task) from error.__cause__
            except MemoryError as error:
                raise JettaggerError(
                    f"{task.path}: no memory for entries {task.start} to {task.stop}: take fewer --workers"
                ) from error
            with writing(path, sum(array.nbytes for array in arrays.values())):
                contents = write_shard(aside, arrays, table.counts, rounding)
                aside.replace(path)
    with writing(path):
        stamp = stamp_of(path)
    record = ShardRecord(
        name=task.shard,
        checksum=contents.checksum,
        size=stamp.size,
        path=task.path,
        identity=task.identity,
        sample=task.sample,
        jets=contents.counts["selected"],
        counts=contents.counts,
        rounding=contents.rounding,
        places=contents.places,
    )
    return Filled(record, stamp)


def _there_already(path: Path) -> Contents | None:
    """What an earlier run filled, if it is whole: a crash of the machine may have left half of it."""
    try:
        return look_into(path) if path.exists() else None
    except JettaggerError:
        return None  # it is filled anew


def _located(error: JettaggerError, task: Task) -> JettaggerError:
    """The error with the file's name."""
    return error if task.path in str(error) else JettaggerError(f"{task.path}: {error}")


def _read(job: Job, task: Task) -> Chunk:
    """A task's entries."""
    location = task.path
    if not is_remote(location) and Path.cwd() != job.started_in:
        location = str(job.started_in / location)
    source = opened(location, task.opening)
    if source.identity != task.identity:
        raise JettaggerError(f"{task.path} was changed while it was being prepared: run again")
    return source.read(task.branches, task.start, task.stop)


def _table(job: Job, task: Task, chunk: Chunk) -> tuple[Columns, Table]:
    """The columns of a task's entries."""
    columns = Columns(job.config, job.extras)
    table = columns.table(
        chunk.branches,
        start=task.start,
        sample=task.sample,
        sample_weight=task.sample_weight,
        where=task.path,
        file_key=randomness.key(0, task.identity) >> 1,
    )
    labels = np.min_scalar_type(-len(job.config.class_names))
    return columns, table._replace(labels_J=table.labels_J.astype(labels))


@contextmanager
def writing(path: Path, size: int = 0) -> Iterator[None]:
    """Turns what the system says of a disk that takes no more into one readable error."""
    try:
        yield
    except OSError as error:
        kept = "shards that are done are kept, and the next run goes on with the rest"
        number = error.errno
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = _free(path.parent)
            need = (
                f"this shard takes {size / 1e6:.1f} MB, {free / 1e6:.1f} MB are free" if size else "disk full"
            )
            message = f"{os.strerror(number)} ({need}): make room, or put data.prepared elsewhere; {kept}"
        elif number in (errno.EROFS, errno.EACCES, errno.EPERM):
            message = f"{os.strerror(number)}: data.prepared names a folder that can be written"
        elif number in (errno.EEXIST, errno.ENOTDIR):
            message = "what should be its folder is a file"
        else:
            message = f"{error.strerror or error}; {kept}"
        raise JettaggerError(f"cannot write {path}: {message}") from error


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def fill_all(
    job: Job, tasks: Sequence[Task], executor: Executor | None
) -> Iterator[tuple[Task, Filled | Unusable]]:
    """Fills shards one after the other, or by an executor; gives each as it is done.

    Raises the first JettaggerError, and one for a worker that died: what was done stays.
    """
    if executor is None:
        for task in tasks:
            yield task, fill(job, task)
        return
    futures: dict[Future[Filled | Unusable], Task] = {}
    try:
        futures |= {executor.submit(fill, job, task): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], _result(job, futures[future], future)
    except BrokenExecutor as error:
        raise _died(job, []) from error
    finally:
        for future in futures:
            future.cancel()


def _result(job: Job, task: Task, future: Future[Filled | Unusable]) -> Filled | Unusable:
    """What a worker gave. A cluster says which task its workers died of; local processes do not."""
    try:
        return future.result()
    except (JettaggerError, BrokenExecutor):
        raise
    except CancelledError as error:
        raise JettaggerError("the workers were taken away before all shards were filled") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "distributed":
            raise _died(job, [f"{task.shard} ({task.path})"]) from error
        raise


def _died(job: Job, shards: list[str]) -> JettaggerError:
    """The error for a worker that was killed, with what it was at."""
    until = time.monotonic() + 1
    while not shards and time.monotonic() < until:
        time.sleep(0.02)  # until the system has buried it
        shards = sorted(set(left_aside(job.directory).values()))
    at = f" at {' or '.join(shards)}" if shards else ""
    return JettaggerError(
        f"{job.directory}: a worker died{at}: it was killed, ran out of memory (take fewer --workers) or crashed "
        "(a program that calls jettagger needs `if __name__ == '__main__':`). Shards that are done are kept, "
        "and the next run goes on with the rest"
    )
