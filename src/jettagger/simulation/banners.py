"""FastJet's banner, printed to stdout at the first clustering: kept (it asks to be cited), on stderr."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def banners_to_stderr() -> Iterator[None]:
    """Sends what C++ code writes to stdout to stderr, so that stdout stays clean for pipes."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
