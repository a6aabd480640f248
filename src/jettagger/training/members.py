"""The members of an ensemble, each a training of its own."""

from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path

from jettagger.data.batches import POOL_BYTES, Batches, bytes_per_jet
from jettagger.data.spectra import TrainingWeightsResult
from jettagger.training.assembly import Group, assembled
from jettagger.training.device import Hardware
from jettagger.training.diagnosis import NotFiniteError
from jettagger.training.distribution import Ranks
from jettagger.training.execution import (
    FEWEST,
    MOST_MEMBERS,
    Execution,
    asked_for,
    measured,
    not_vectorised,
    rule,
    store,
)
from jettagger.training.execution import stored as execution_of
from jettagger.training.loop import train_member
from jettagger.training.outcome import (
    MemberFailure,
    Piece,
    has_ended,
    listed,
    read_failure,
    read_result,
    write_failure,
    write_result,
)
from jettagger.training.recipe import Recipe
from jettagger.training.sides import Sides
from jettagger.training.training import MemberResult, Training
from jettagger.training.trial import attempt
from jettagger.training.varied import jets_differ
from jettagger.training.vectorised import Failed, train_together


def train_members(
    recipe: Recipe,
    sides: Sides,
    weights: TrainingWeightsResult,
    output: Path,
    members: Sequence[int],
    hardware: Hardware,
    resume: bool,
    say: Callable[[str], None],
    ranks: Ranks = Ranks(),  # noqa: B008 - it is immutable
) -> list[MemberResult]:
    """Trains the members, or goes on with them, or reads what came of them; each of them by all `ranks`.

    A member whose loss becomes NaN or infinite leaves `failed.json`, and the others are trained; the results are those
    of the members that have ended. Ranks that share batches end together where one member fails.
    """
    group = Group(recipe, sides, weights, output, hardware, say, ranks)
    results, failed = ranks.first_does(lambda: _before(group, members if resume else ()))
    for failure in failed.values():
        say(f"{failure} (--overwrite --member {failure.member} trains it anew)")
    done = {*results, *failed}
    for chunk, execution in _chunks(group, members, done):
        for ending in _train_chunk(group, chunk, execution, done, resume):
            folder = group.folder(ending.member)
            if isinstance(ending, MemberResult):
                results[ending.member] = ending
                if ranks.first:
                    write_result(folder, ending)
                continue
            failure = MemberFailure(ending.member, recipe.fold, str(ending.error), ending.step)
            failed[ending.member] = failure
            if ranks.first:
                write_failure(folder, failure)
            if ranks.world > 1:
                raise ending.error
            say(str(failure))
    return [results[k] for k in sorted(results)]


def _before(group: Group, members: Sequence[int]) -> tuple[dict[int, MemberResult], dict[int, MemberFailure]]:
    """The members that have ended or failed before. With the same numbers they would fail again."""
    folders = {k: group.folder(k) for k in members}
    results = {k: read_result(folder) for k, folder in folders.items() if has_ended(folder)}
    failures = {k: failure for k, folder in folders.items() if (failure := read_failure(folder)) is not None}
    return results, failures


def _chunks(group: Group, members: Sequence[int], done: Set[int]) -> Iterator[tuple[list[int], Execution]]:
    """The members that are trained at a time, and how; the same ones whether or not the run was interrupted."""
    if done >= set(members):
        return
    execution = _execution(group, members)
    if len(members) > 1:
        group.say(str(execution))
    for first in range(0, len(members), execution.chunk):
        chunk = list(members[first : first + execution.chunk])
        if not done >= set(chunk):
            yield chunk, execution


def _execution(group: Group, members: Sequence[int]) -> Execution:
    """What the config asks for, else what the run began with, else by rule or trial; it is kept in the run.

    A member that is trained by itself, in a job of its own, and a part of an ensemble decide nothing for the others.
    """
    section, whole = group.recipe.ensemble, len(members) == group.recipe.ensemble.members
    if group.hardware.float16:
        return Execution("loop", 1, "float16 has a scaler of each member's own")
    if group.ranks.world > 1:
        return Execution("loop", 1, "several ranks share its batches")
    asked, kept = asked_for(section, len(members)), execution_of(group.home)
    if asked is None and kept is not None:
        return kept._replace(chunk=min(kept.chunk, len(members)))
    if asked is None and len(members) == 1:
        return Execution("loop", 1, "a single member")
    found = asked
    if found is None or found.way == "vectorised":
        found = _possible(group, members, found)
    if whole and len(members) > 1:
        store(group.home, found)
    return found


def _possible(group: Group, members: Sequence[int], asked: Execution | None) -> Execution:
    """One pass, if it can be had and is asked for or pays; else the loop, and why."""
    reason = not_vectorised(group.recipe.training)
    most = len(members) if asked is None else asked.chunk
    if asked is None and len(members) < FEWEST:
        return Execution("loop", 1, f"fewer than {FEWEST} members")
    if reason is None:
        trainings = assembled(group, members[: min(most, MOST_MEMBERS)], quiet=True)
        reason = _obstacle_of_data(trainings, jets_differ(group.recipe))
    if reason is not None:
        return Execution("loop", 1, reason)
    tried = attempt(trainings)
    if tried.obstacle is not None:
        return Execution("loop", 1, tried.obstacle)
    if asked is not None:
        return asked
    if group.recipe.ensemble.execution == "timed":
        return measured(trainings, len(members))
    return rule(tried, len(members), group.hardware.device)


def _obstacle_of_data(trainings: Sequence[Training], apart: bool) -> str | None:
    """Why the batches of several members cannot be held at a time."""
    sources = [training.train for training in trainings]
    if len({(source.steps, source.jets) for source in sources}) > 1:
        return "members have different numbers of training jets"
    loaded = [source for source in sources if isinstance(source, Batches)]
    if any(source.order.pools > 1 for source in loaded):
        return "the training jets do not fit into memory at once"
    size = sum(source.jets * bytes_per_jet(source.prepared, source.inputs) for source in loaded)
    if apart and size > POOL_BYTES:
        return "the members' own training jets do not fit into memory together"
    return None


def _train_chunk(
    group: Group, members: Sequence[int], execution: Execution, done: Set[int], resume: bool
) -> Iterator[MemberResult | Failed]:
    """Trains those members of a chunk that are not done."""
    if execution.way == "vectorised":
        trainings = assembled(group, members)
        # Of the whole chunk, also where a part of it has ended: a resumed run is trained as it would have been.
        reason = _obstacle_of_data(trainings, jets_differ(group.recipe))
        if reason is None:
            ended = {k for k in members if k in done and has_ended(group.folder(k))}
            kept = [training for training in trainings if training.member not in ended]
            yield from train_together(kept, resume=resume, failed=done)
            return
        group.say(f"{listed([Piece(None, k) for k in members])}: one after the other, since {reason}")
    for member in [k for k in members if k not in done]:
        [training] = assembled(group, [member])
        try:
            yield train_member(training, resume=resume)
        except NotFiniteError as error:
            yield Failed(member, error.step, error)
