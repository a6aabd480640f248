"""Numbered tasks on several processes, results in order of their number; clean ends for all concerned."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from jettagger.data.executors import bound_to_parent
from jettagger.errors import JettaggerError

T = TypeVar("T")

AHEAD = 3
"""Tasks in flight for each worker, so that none waits for the slowest of the others."""

_build: Callable[[], Callable[[int], Any]]
_stop: Event
_task: Callable[[int], Any] | None = None


def in_order(build: Callable[[], Callable[[int], T]], workers: int) -> Iterator[T]:
    """Results of tasks 0, 1, 2, …, without end; `build()` makes each worker's own function of the number.

    Closing the iterator ends the workers. They start as fresh interpreters and inherit no state: `build`
    must be picklable, and programs must be guarded by `if __name__ == "__main__"`.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(build, stop))
    flying: deque[Future[T]] = deque()
    number = 0
    try:
        while True:
            while len(flying) < AHEAD * workers:
                flying.append(pool.submit(_run, number))
                number += 1
            yield flying.popleft().result()
    except BrokenProcessPool as error:
        raise JettaggerError(
            "a simulation worker died (killed, out of memory, or crashed); nothing was written"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _start(build: Callable[[], Callable[[int], Any]], stop: Event) -> None:
    """Makes a worker leave interrupts to its parent, keep stdout clean, and die with its parent."""
    global _build, _stop
    _build, _stop = build, stop
    os.dup2(2, 1)  # Pythia and FastJet write their banners from C++
    bound_to_parent()


def _run(number: int) -> Any:
    """One task. Built at the first, not in `_start`, whose errors would not reach the parent."""
    global _task
    if _stop.is_set():
        return None
    if _task is None:
        _task = _build()
    return _task(number)
