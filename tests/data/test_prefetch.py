"""What is made ahead: the same items, no more than asked for, and no thread left behind."""

import threading
import traceback
import weakref

import pytest

from jettagger.data.prefetch import ahead


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "jettagger ahead"]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert threads() == []


@pytest.mark.parametrize("most", [1, 2, 5])
def test_items_come_in_their_order(most):
    assert list(ahead(iter(range(100)), most)) == list(range(100))
    assert list(ahead([], most)) == []


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_are_made_than_asked_for(most):
    made = []
    enough = threading.Semaphore(0)

    def items():
        for number in range(50):
            made.append(number)
            enough.release()
            yield number

    found = ahead(items(), most)
    for taken in range(1, 20):
        next(found)
        for _ in range(most + 1 if taken == 1 else 1):
            assert enough.acquire(timeout=10)
        assert len(made) == taken + most
    found.close()


def test_an_error_comes_where_the_item_would_with_its_traceback():
    def broken():
        yield 1
        raise ValueError("no such jet")

    found = ahead(broken(), 2)
    assert next(found) == 1
    with pytest.raises(ValueError, match="no such jet") as caught:
        next(found)
    assert "in broken" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("how", ["close", "error", "interrupt", "forgotten"])
def test_the_thread_ends_with_the_generator(how):
    def endless():
        while True:
            yield 0

    if how == "close":
        found = ahead(endless(), 2)
        next(found)
        assert len(threads()) == 1
        found.close()
    elif how == "forgotten":
        next(iter(ahead(endless(), 2)))
    else:
        kind = KeyboardInterrupt if how == "interrupt" else ValueError

        def consume():
            for _ in ahead(endless(), 2):
                raise kind

        with pytest.raises(kind):
            consume()


def test_a_generator_that_was_never_asked_starts_no_thread():
    found = ahead(iter([1]), 2)
    assert threads() == []
    found.close()


def test_what_was_handed_over_is_not_kept():
    class Pool:
        pass

    def pools():
        for _ in range(5):
            yield Pool()

    found = ahead(pools(), 1)
    for _ in range(3):
        pool = next(found)
        seen = weakref.ref(pool)
        del pool
        assert seen() is None
    found.close()
