"""Who fills a prepared dataset: processes of this machine, or the workers of a Dask cluster."""

import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from jettagger.errors import JettaggerError


def usable_processors() -> int:
    """How many this process may use: a batch system often leaves it fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def local_processes(workers: int) -> Iterator[Executor]:
    """Fresh processes, which inherit neither threads nor open files; they end with this one, however it ends.

    When the body is interrupted they are killed; otherwise what they are at is finished first.
    """
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(workers, mp_context=_context(), initializer=bound_to_parent)
    try:
        yield executor
    except Exception:
        raise
    except BaseException:  # Ctrl-C, or a signal that asks for the end
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Imported once, in a process without threads of which the workers are copies.
    context.set_forkserver_preload(["jettagger.data.filling"])
    return context


def bound_to_parent() -> None:
    """What a worker begins with: interrupts are left to the parent, whose death ends the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextmanager
def dask_workers(address: str) -> Iterator[Executor]:
    """The workers of the Dask cluster whose scheduler is at `address`, such as tcp://host:8786.

    They need jettagger and the same folders. Raises JettaggerError where nothing answers.
    """
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise JettaggerError("--dask needs the package distributed: pip install 'jettagger[dask]'") from error
    try:
        client = distributed.Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise JettaggerError(f"--dask {address}: no Dask scheduler answers there ({error})") from error
    try:
        yield client.get_executor()
    finally:
        client.close()
