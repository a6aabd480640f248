"""What is seen of a filling: a bar on a terminal, now and then a line in a batch log."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from tqdm import tqdm

from jettagger.data.filling import Filled, Unusable
from jettagger.data.plan import Task

EVERY = 30.0
"""Seconds between two lines of a batch log."""

Outcome = tuple[Task, Filled | Unusable]
Outcomes = Iterable[Outcome]


def shown(outcomes: Outcomes, tasks: Sequence[Task], say: Callable[[str], None] | None) -> Iterator[Outcome]:
    """Passes on what is done, shows how far it is, and says how fast it was."""
    entries = sum(task.stop - task.start for task in tasks)
    if say is None or not tasks:
        yield from outcomes
        return
    began = said = time.monotonic()
    read = selected = size = 0
    bar = tqdm(
        total=entries,
        desc="preparing",
        unit=" entries",
        unit_scale=True,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        for task, outcome in outcomes:
            read += task.stop - task.start
            bar.update(task.stop - task.start)
            if isinstance(outcome, Filled):
                selected += outcome.record.jets
                size += outcome.record.size
            now = time.monotonic()
            if bar.disable and now - said > EVERY:
                said = now
                rate = read / (now - began)
                left = (entries - read) / max(rate, 1e-9)
                say(f"  preparing: {read} of {entries} entries, {rate:.0f} a second, {left:.0f} s to go")
            yield task, outcome
    seconds = max(time.monotonic() - began, 1e-9)
    say(
        f"  prepared {len(tasks)} shard{'s' * (len(tasks) != 1)}, {size / 1e6:.0f} MB: {read} entries in "
        f"{seconds:.1f} s, {read / seconds:.0f} a second, {selected} jets selected"
    )
