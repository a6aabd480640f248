"""Whether the ranks are still there: each says so in the store that they share, and one that is killed falls silent."""

import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import Store  # type: ignore[attr-defined]

LOOK_SECONDS = 0.5
"""Longest time between two looks at what is waited for."""
BEATS = 10
"""How often a rank says that it is there, at least, in the time after which a silent one is taken for lost."""
BEAT_SECONDS = 5.0
"""Longest time between two of them."""
TRIES = 5
"""So many beats in a row may fail before the store is taken to be gone."""
THERE, ENDED = "jettagger/there", "jettagger/ended"
"""Beginnings of the names in the store under which a rank counts its beats, and says that it ended with an error."""


class Gone(NamedTuple):
    """A rank that leaves nothing more."""

    rank: int
    why: str

    def words(self, world: int) -> str:
        """A sentence, without its full stop."""
        return f"rank {self.rank} of {world} {self.why}; what was saved before is whole, --resume goes on from it"


@contextmanager
def present(store: Store, rank: int, limit: float) -> Generator[None, None, None]:
    """While the body runs a thread says that this rank is there; it is taken for lost after `limit` (s) of silence.

    The thread goes on where the body stands still, or waits for the store: it has a connection of its own. Only the
    end of the process silences it, or the end of rank 0, with which the store is gone.
    """
    over = threading.Event()
    pause = min(limit / BEATS, BEAT_SECONDS)

    def beat() -> None:
        last, own, failed = store, None, 0
        while failed < TRIES and not over.wait(pause):
            try:
                if own is None:
                    own = last = _connected_anew(last, pause)
                own.add(f"{THERE}/{rank}", 1)
                failed = 0
            except RuntimeError:
                own, failed = None, failed + 1

    thread = threading.Thread(target=beat, name="presence", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        with suppress(RuntimeError):
            store.set(f"{ENDED}/{rank}", "")
        raise
    finally:
        over.set()
        thread.join(BEAT_SECONDS)


def _connected_anew(store: Store, seconds: float) -> Store:
    """The same store over another connection, which gives up after so many seconds: a call that waits for an answer
    holds all others of its connection."""
    if not hasattr(store, "clone"):  # torch before it had that
        return store
    other: Store = store.clone()
    other.set_timeout(timedelta(seconds=seconds))
    return other


def awaited(store: Store, topics: Mapping[int, str], limit: float) -> dict[int, bytes | Gone]:
    """What ranks leave under a name each; they are waited for as long as they are there.

    Silence is counted in looks, not by the clock: a job that was suspended as a whole has lost none.
    """
    found: dict[int, bytes | Gone] = {}
    beats, silent = dict.fromkeys(topics, -1), dict.fromkeys(topics, 0.0)
    pause = 0.0
    while True:
        for rank in [rank for rank in topics if rank not in found]:
            ended = store.check([f"{ENDED}/{rank}"])  # before the other look: both may come between the two
            beat = store.add(f"{THERE}/{rank}", 0)
            silent[rank] = silent[rank] + pause if beat == beats[rank] else 0.0
            beats[rank] = beat
            if store.check([topics[rank]]):
                found[rank] = bytes(store.get(topics[rank]))
            elif ended:
                found[rank] = Gone(rank, "ended with an error of its own")
            elif silent[rank] > limit:
                why = f"was silent for {limit:g} s (training.rank_timeout): it was killed, ran out of memory, or"
                found[rank] = Gone(rank, f"{why} its machine is lost")
        if len(found) == len(topics):
            return found
        pause = min(max(1.5 * pause, 0.01), LOOK_SECONDS)
        time.sleep(pause)
