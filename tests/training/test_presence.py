"""Ranks that are waited for, in one process: a store in memory takes the place of the one that they share."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from torch.distributed import HashStore, TCPStore

from jettagger.errors import JettaggerError
from jettagger.training.among_ranks import results_of_all
from jettagger.training.distribution import Ranks, _Link
from jettagger.training.outcome import Piece
from jettagger.training.presence import ENDED, THERE, TRIES, Gone, awaited, present

LIMIT = 0.3


@contextmanager
def beating(store: HashStore, rank: int) -> Iterator[None]:
    """Another rank that is there while the body runs."""
    over = threading.Event()

    def work() -> None:
        with present(store, rank, LIMIT):
            over.wait()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_rank_that_is_there_is_waited_for() -> None:
    store, began = HashStore(), time.monotonic()
    with beating(store, 1):
        late = threading.Timer(3 * LIMIT, lambda: store.set("topic", "done"))
        late.start()
        assert awaited(store, {1: "topic"}, LIMIT) == {1: b"done"}
    assert time.monotonic() - began > 3 * LIMIT


def test_a_rank_that_waits_for_the_store_is_there() -> None:
    minute = timedelta(seconds=60)
    server = TCPStore("127.0.0.1", 0, None, True, minute, wait_for_workers=False)
    client = TCPStore("127.0.0.1", server.port, None, False, minute)
    with present(client, 1, LIMIT):
        waiting = threading.Thread(target=client.get, args=("late",))
        waiting.start()
        time.sleep(LIMIT)
        before, until = server.add(f"{THERE}/1", 0), time.monotonic() + 20
        while (beats := server.add(f"{THERE}/1", 0)) < before + 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert waiting.is_alive()
        server.set("late", "")
        waiting.join()
    assert beats >= before + 2


class Faulty:
    """A store of which so many additions in a row fail."""

    def __init__(self, failures: int) -> None:
        self.failures, self.calls, self.beats = failures, 0, 0

    def clone(self) -> "Faulty":
        return self

    def set_timeout(self, timeout: timedelta) -> None:
        assert timeout <= timedelta(seconds=LIMIT)

    def add(self, key: str, amount: int) -> None:
        self.calls += 1
        if self.calls <= self.failures:
            raise RuntimeError("connection reset")
        self.beats += amount


@pytest.mark.parametrize(("failures", "alive"), [(TRIES - 1, True), (1000, False)])
def test_a_beat_that_fails_is_tried_again(failures: int, alive: bool) -> None:
    store, until = Faulty(failures), time.monotonic() + 20
    with present(store, 1, LIMIT):
        [thread] = [one for one in threading.enumerate() if one.name == "presence"]
        while thread.is_alive() and store.beats < TRIES + 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert thread.is_alive() == alive
    assert (store.beats >= TRIES + 2) == alive
    assert alive or store.calls == TRIES


def test_one_that_falls_silent_is_lost() -> None:
    store = HashStore()
    with beating(store, 1):
        time.sleep(LIMIT)
    found = awaited(store, {1: "topic"}, LIMIT)[1]
    assert isinstance(found, Gone)
    assert found.words(3) == (
        "rank 1 of 3 was silent for 0.3 s (training.rank_timeout): it was killed, ran out of memory, or its machine is"
        " lost; what was saved before is whole, --resume goes on from it"
    )


def test_several_that_are_lost_are_waited_for_at_once() -> None:
    store, began = HashStore(), time.monotonic()
    store.set("topic 0", "here")
    found = awaited(store, {rank: f"topic {rank}" for rank in range(9)}, LIMIT)
    assert found[0] == b"here"
    assert all(isinstance(found[rank], Gone) for rank in range(1, 9))
    assert time.monotonic() - began < 6 * LIMIT


def test_an_error_is_said_before_the_silence() -> None:
    store = HashStore()
    with pytest.raises(ValueError, match="of its own"), present(store, 1, LIMIT):
        raise ValueError("of its own")
    assert awaited(store, {1: "topic"}, 1.0e9) == {1: Gone(1, "ended with an error of its own")}


def test_what_was_left_before_the_end_counts() -> None:
    store = HashStore()
    store.set("topic", "left")
    store.set(f"{ENDED}/1", "")
    assert awaited(store, {1: "topic"}, LIMIT) == {1: b"left"}
    assert store.add(f"{THERE}/1", 0) == 0


def test_the_members_that_a_lost_rank_leaves_behind_are_named(tmp_path: Path) -> None:
    for member in (0, 1, 2):
        (tmp_path / f"member_{member}").mkdir()
    for member in (0, 2):
        (tmp_path / f"member_{member}" / "result.json").touch()
    first = Ranks(rank=0, world=2, link=_Link(HashStore(), LIMIT))
    chosen = [Piece(None, k) for k in range(4)]
    with pytest.raises(JettaggerError) as error:
        results_of_all(first, ["member 0", "member 2"], tmp_path, chosen)
    lost, usable, missing = str(error.value).splitlines()
    assert lost.startswith("rank 1 of 2 was silent for 0.3 s")
    assert usable == "trained to the end: members 0, 2 (--merge makes a tagger of what has ended)"
    assert missing == "not trained yet, or not to the end: members 1, 3"


def test_a_lost_rank_may_leave_nothing(tmp_path: Path) -> None:
    first = Ranks(rank=0, world=2, link=_Link(HashStore(), LIMIT))
    with pytest.raises(JettaggerError, match="no training has come to its end"):
        results_of_all(first, [], tmp_path, [Piece(None, 0)])


def test_results_come_in_the_order_of_the_ranks(tmp_path: Path) -> None:
    store = HashStore()
    second, first = (Ranks(rank=rank, world=2, link=_Link(store, LIMIT)) for rank in (1, 0))
    assert results_of_all(second, ["b"], tmp_path, []) == ["b"]
    assert results_of_all(first, ["a"], tmp_path, []) == ["a", "b"]
