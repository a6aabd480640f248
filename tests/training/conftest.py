"""One thread: the tests' networks are too small for more."""

from collections.abc import Iterator

import pytest

from jettagger.training.device import threads


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield
