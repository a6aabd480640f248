"""What comes next is prepared by a thread while the present is worked on."""

from collections.abc import Generator, Iterable
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class _Failed(NamedTuple):
    error: BaseException


class _Made(NamedTuple, Generic[T]):
    item: T


def ahead(items: Iterable[T], most: int) -> Generator[T, None, None]:
    """The same items in the same order, of which up to `most` are made before they are asked for.

    What the thread raises is raised here, with its traceback. The thread ends with the generator, also when that
    is closed early or the program is interrupted; what it is making then is finished first.
    """
    room = Semaphore(most)
    made: SimpleQueue[_Made[T] | _Failed | None] = SimpleQueue()
    closed = False

    def make() -> None:
        try:
            source = iter(items)
            while room.acquire() and not closed:
                try:
                    made.put(_Made(next(source)))
                except StopIteration:
                    made.put(None)
                    return
        except BaseException as error:
            made.put(_Failed(error))

    thread = Thread(target=make, name="jettagger ahead", daemon=True)
    thread.start()
    try:
        while (found := made.get()) is not None:
            if isinstance(found, _Failed):
                raise found.error
            box = [found.item]
            del found  # the one who asked decides how long it lives
            room.release()
            yield box.pop()
    finally:
        closed = True
        room.release()
        thread.join()
