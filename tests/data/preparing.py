"""Prepares a dataset again and again in processes that are killed; run by test_prepared_restart.

    python preparing.py FOLDER steps            killed at each write and each rename
    python preparing.py FOLDER moments SEED N   killed at N random moments
    python preparing.py FOLDER together         three at the same time

FOLDER holds a-*.root (QCD) and b-*.root (Top). Prints how often it was killed, and ends with 1 and a message if
anything differs from a dataset that was filled in one go.
"""

import hashlib
import os
import random
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from jettagger.data.prepared import prepare
from jettagger.data.schema import DataConfig

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]


def settings(folder: Path, name: str) -> DataConfig:
    from test_columns import config

    samples = {"QCD": f"{folder}/a-*.root", "Top": f"{folder}/b-*.root"}
    return config(data__prepared=str(folder / name), data__train=samples, data__test={})


def contents(folder: Path) -> dict[str, str]:
    """All files, hidden ones too, but for the stamps, which hold dates."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.glob("*/*")
        if path.name != "verified.json"
    }


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob("*/shard-*.h5")}


def child(work: Callable[[], object]) -> int:
    process = os.fork()
    if process == 0:
        work()
        os._exit(0)
    return process


def killed(process: int) -> bool:
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def die_at(step: int) -> None:
    """Kills this process at the step-th write, rename or flush from now on, before or after it."""
    left = [step]

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **more: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **more)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for owner, name in (
        (Path, "replace"),
        (Path, "touch"),
        (Path, "mkdir"),
        (Path, "write_text"),
        (os, "fsync"),
        (os, "pwrite"),
    ):
        setattr(owner, name, counted(getattr(owner, name)))


def check_rerun(folder: Path, expected: dict[str, str]) -> None:
    """A rerun makes the same bytes, leaves nothing aside, and keeps the shards that were there."""
    one = settings(folder, "again")
    before = inodes(folder / "again")
    assert not killed(child(lambda: prepare(one, one.data.train, role="data.train")))
    found = contents(folder / "again")
    assert found == expected, (sorted(found), sorted(expected))
    after = inodes(folder / "again")
    assert before == {name: after[name] for name in before}, "a shard that was done was made again"


def steps(folder: Path, expected: dict[str, str]) -> int:
    one = settings(folder, "again")
    for step in range(1, 10_000):

        def work(step: int = step) -> None:
            die_at(step)
            prepare(one, one.data.train, role="data.train")

        shutil.rmtree(folder / "again", ignore_errors=True)
        if not killed(child(work)):
            return step - 1
        check_rerun(folder, expected)
    raise AssertionError("it never came to an end")


def moments(folder: Path, expected: dict[str, str], seed: int, number: int) -> int:
    one = settings(folder, "again")
    draw = random.Random(seed)
    began = time.monotonic()
    assert not killed(child(lambda: prepare(one, one.data.train, role="data.train")))
    whole, times = time.monotonic() - began, 0
    for _ in range(number):
        shutil.rmtree(folder / "again", ignore_errors=True)
        process = child(lambda: prepare(one, one.data.train, role="data.train"))
        time.sleep(draw.uniform(0, whole))
        os.kill(process, signal.SIGKILL)
        times += killed(process)
        check_rerun(folder, expected)
    return times


def together(folder: Path, expected: dict[str, str]) -> int:
    one = settings(folder, "again")
    shutil.rmtree(folder / "again", ignore_errors=True)
    processes = [child(lambda: prepare(one, one.data.train, role="data.train")) for _ in range(3)]
    died = [killed(process) for process in processes]
    assert not any(died)
    check_rerun(folder, expected)
    return 0


def main() -> None:
    warnings.simplefilter("ignore")  # Python 3.12 warns of any fork beside threads
    folder, how, *numbers = sys.argv[1:]
    place = Path(folder)
    once = settings(place, "once")
    assert not killed(child(lambda: prepare(once, once.data.train, role="data.train")))
    expected = contents(place / "once")
    assert len(expected) > 2
    print(
        {"steps": steps, "moments": moments, "together": together}[how](place, expected, *map(int, numbers))
    )


if __name__ == "__main__":
    main()
