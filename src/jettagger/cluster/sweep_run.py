"""`jettagger sweep`: the points of a sweep one after the other on this machine, then their table."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from jettagger.cluster.plan import JOBS
from jettagger.cluster.resolved import Resolve
from jettagger.cluster.script import AGAIN
from jettagger.cluster.sweep import PLAN, checked_points, write_sweep
from jettagger.cluster.sweep_table import as_text, make_table
from jettagger.errors import JettaggerError
from jettagger.files import check_writable


def run_sweep(
    resolve: Resolve, run: Path, *, table_only: bool = False, say: Callable[[str], None] = print
) -> int:
    """Trains the points that are not trained yet, prints the table, and returns the exit status.

    Each point is a process of its own, so that one that fails leaves the others alone. 75: a signal has
    interrupted it, and the same command goes on; 1: points have failed.

    Raises JettaggerError for a point whose config is wrong, before any is trained.
    """
    if table_only:
        say(as_text(make_table(run)))
        return 0
    sweep, configs = checked_points(resolve)
    if any(run.glob("member_*")) or any(run.glob("fold_*")):
        raise JettaggerError(f"{run} holds a run, not a sweep: choose another --output")
    check_writable(run / PLAN)
    write_sweep(run, sweep, resolve([]), configs)
    failed = []
    for number, point in enumerate(sweep.points, 1):
        if (run / point.name / "run.json").exists():
            continue
        say(f"{point.name} ({number} of {len(sweep.points)}): {', '.join(point.overrides)}")
        config, output = run / JOBS / f"{point.name}.yaml", run / point.name
        status = _train(["train", str(config), "--output", str(output), "--resume"])
        if status == AGAIN:
            say("interrupted: the same command goes on")
            return AGAIN
        if status:
            failed.append(point.name)
            say(f"{point.name} failed with exit status {status}; the others go on")
    say(as_text(make_table(run)))
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _train(arguments: list[str]) -> int:
    """The exit status of a command that gets the signals of this process."""
    told: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, _: FrameType | None) -> None:
        told.append(number)
        for child in started:
            child.send_signal(number)

    with _handled(hand_on), subprocess.Popen([sys.executable, "-m", "jettagger", *arguments]) as child:
        early = list(told)
        started.append(child)
        for number in early:
            child.send_signal(number)
        return child.wait()


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    former = {one: signal.signal(one, handler) for one in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for one, old in former.items():
            signal.signal(one, old)
