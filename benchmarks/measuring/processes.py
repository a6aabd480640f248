"""One process or several that are started before the clock is."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any

START_SECONDS = 120


class InProcess(Executor):
    """Does what it is given at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:
            done.set_exception(error)
        return done


def started(number: int) -> Executor:
    """An executor of `number` processes that have imported what they need; this one if it is one."""
    if number == 1:
        return InProcess()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(number)
    pool = ProcessPoolExecutor(number, mp_context=context, initializer=_begin, initargs=(barrier,))
    list(pool.map(_meet_at, [START_SECONDS] * number))
    return pool


def meet() -> None:
    """Waits until all processes are here. Since each waits for all others, none takes two tasks."""
    _meet_at(START_SECONDS)


_meeting: list[Any] = []


def _begin(barrier: Any) -> None:
    import torch

    import jettagger.data.batches
    import jettagger.data.prepared  # noqa: F401

    torch.set_num_threads(1)
    _meeting.append(barrier)


def _meet_at(seconds: float) -> None:
    for barrier in _meeting:
        barrier.wait(seconds)
