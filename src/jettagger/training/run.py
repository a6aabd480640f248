"""`jettagger train`: from a config to a run directory with a tagger in it.

RUN/config.yaml       the resolved config
RUN/run.json          what the run was: the tagger's card, hardware, time; written last
RUN/member_K/         checkpoints, metrics.jsonl, result.json and cost.json of member K; failed.json where it failed
RUN/baselines/        what the config asks for under `baselines`
RUN/tagger/           the bundle

With `data.folds`, members and baselines of fold F lie in RUN/fold_F/; the bundle holds the networks of all folds.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jettagger.advice import advise_members
from jettagger.baselines import BoostedTreesSection, check_tree_weights, fit_trees
from jettagger.data import splits
from jettagger.data.spectra import TrainingWeightsResult, loss_weights
from jettagger.errors import JettaggerError
from jettagger.files import one_at_a_time, write_json
from jettagger.training import outcome
from jettagger.training.among_ranks import common_sides, describe_ranks, results_of_all, share_of, sharing
from jettagger.training.assembly import training_weights
from jettagger.training.bundle import bundle
from jettagger.training.cost import Cost, Meter, meter_of, metered, record_costs
from jettagger.training.device import Hardware, choose_hardware, threads
from jettagger.training.distribution import Ranks, connected
from jettagger.training.interruption import interrupted_before, marking
from jettagger.training.launch import device_of, found_ranks
from jettagger.training.members import train_members
from jettagger.training.outcome import Piece
from jettagger.training.recipe import Recipe, fold_folder, guessing_classes, member_folder
from jettagger.training.run_folder import check_layout, check_output, check_same_config, clear, write_config
from jettagger.training.schema import TrainingSection
from jettagger.training.sides import Filling, Sides, prepare_folds
from jettagger.training.training import MemberResult

Say = Callable[[str], None]
FoldSides = dict[int | None, Sides]
WeightsOf = Callable[[int | None], TrainingWeightsResult]


@dataclass(frozen=True)
class RunSummary:
    """What `train` did."""

    directory: Path
    tagger: Path | None
    """None while trainings of the run are missing."""
    members: tuple[MemberResult, ...]
    """Of what was trained by this call; with folds, fold after fold."""
    seconds: float


def train(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    member: int | None = None,
    fold: int | None = None,
    workers: int | None = None,
    say: Say = print,
) -> RunSummary:
    """Trains all members (or one) of all folds (or one), and writes the bundle once all are there.

    `workers` processes prepare the data (default: one a processor).

    Raises JettaggerError for what is wrong with config, data or output, before the first step where it can.
    """
    began = time.monotonic()
    chosen = _chosen(recipe, fold, member)
    folds = outcome.folds_of(chosen)
    ranks = found_ranks()
    hardware = choose_hardware(device_of(ranks, recipe.training.device), recipe.training.precision)
    say = ranks.saying(say)
    with (
        threads(recipe.training.threads),
        connected(ranks, hardware.device, recipe.training.rank_timeout) as ranks,
        _marking(output, chosen, ranks, recipe.training, overwriting=overwrite),
    ):
        cause = None if resume else _interrupted(output, chosen, ranks, overwrite)
        if cause is not None:
            say(f"going on with what {cause} interrupted; remove {output} to begin anew")
            resume, overwrite = True, False
        ranks.first_does(lambda: check_output(recipe, output, chosen, resume=resume, overwrite=overwrite))
        for line in describe_ranks(ranks, recipe.training, hardware):
            say(line)
        sides = common_sides(recipe, folds, ranks, say, Filling(workers=workers))
        weights_of = lru_cache(1)(lambda number: training_weights(recipe, sides[number]))
        ranks.first_does(lambda: _begin(recipe, sides, weights_of, output, chosen, overwrite, say))
        results = _train_pieces(
            recipe, sides, weights_of, output, chosen, hardware, ranks, resume=resume, say=say
        )
        if not ranks.first:
            return RunSummary(output, None, tuple(results), time.monotonic() - began)
        _check_any(results, outcome.survey(output, chosen))
        standing = outcome.survey(output, outcome.all_pieces(recipe))
        if standing.missing:
            say(f"the tagger waits for {outcome.listed(standing.missing)}")
            return RunSummary(output, None, tuple(results), time.monotonic() - began)
        _write_tagger(recipe, sides, output, began, say)
    return RunSummary(output, output / "tagger", tuple(results), time.monotonic() - began)


def merge(recipe: Recipe, output: Path, *, say: Say = print) -> RunSummary:
    """Trains nothing: bundles what has ended, and says what is missing or failed, and why.

    Raises JettaggerError where nothing has ended, or nothing of one of the folds.
    """
    began = time.monotonic()
    if not output.is_dir():
        raise JettaggerError(f"--merge: there is no run {output}")
    check_layout(recipe, output)
    pieces = outcome.all_pieces(recipe)
    outcome.survey(output, pieces).check_complete(outcome.folds_of(pieces))
    with threads(recipe.training.threads):
        _write_tagger(recipe, {}, output, began, say)
    return RunSummary(output, output / "tagger", (), time.monotonic() - began)


def check_merge(*, resume: bool, overwrite: bool, member: int | None, fold: int | None) -> None:
    """Raises JettaggerError where `--merge` stands beside an option that says what to train, or how."""
    asked = {"--resume": resume, "--overwrite": overwrite, "--member": member is not None}
    for option, given in (asked | {"--fold": fold is not None}).items():
        if given:
            raise JettaggerError(f"--merge trains nothing and bundles all that has ended: leave {option} out")


def _chosen(recipe: Recipe, fold: int | None, member: int | None) -> list[Piece]:
    """What is to be trained. Raises JettaggerError for a fold or member that there is not."""
    folds = splits.chosen_folds(recipe.data.data, fold)
    members = range(recipe.ensemble.members)
    if member is not None and member not in members:
        raise JettaggerError(
            f"--member {member}: ensemble.members is {len(members)}; members are counted from 0"
        )
    return [Piece(f, k) for f in folds for k in (members if member is None else [member])]


def _begin(
    recipe: Recipe,
    sides: FoldSides,
    weights_of: WeightsOf,
    output: Path,
    chosen: Sequence[Piece],
    overwrite: bool,
    say: Say,
) -> None:
    """What comes before the trainings, and is done by one process: old pieces, config, baselines."""
    kept = [piece for piece in outcome.all_pieces(recipe) if not (overwrite and piece in chosen)]
    check_same_config(recipe, sides, output, kept)
    trees = recipe.baselines.boosted_trees
    for fold in sides:  # what is wrong with weights is said before anything is removed or written
        for note in weights_of(fold).notes:
            say(f"  {note}")
        if trees is not None:
            check_tree_weights(_training_rows(sides[fold], weights_of(fold))[1])
    if overwrite:
        clear(recipe, output, chosen)
    if trees is not None:
        for fold in sides:
            _fit_baselines(recipe, trees, sides[fold], weights_of(fold), fold_folder(output, fold), say)
    write_config(recipe, output)


def _check_any(results: Sequence[MemberResult], standing: outcome.Standing) -> None:
    """Raises JettaggerError where nothing came of this call because all of it failed."""
    if not results and standing.failed:
        raise JettaggerError("\n".join(map(str, standing.failed)))


def _train_pieces(
    recipe: Recipe,
    sides: FoldSides,
    weights_of: WeightsOf,
    output: Path,
    chosen: Sequence[Piece],
    hardware: Hardware,
    ranks: Ranks,
    *,
    resume: bool,
    say: Say,
) -> list[MemberResult]:
    """The members that were chosen, fold after fold; what each cost is left in its folder."""
    trained: list[tuple[Piece, MemberResult]] = []
    shared = sharing(ranks, recipe.training)
    meter = Meter() if ranks.world > 1 else meter_of(hardware.device)
    for fold in sides:
        part, mine = recipe._replace(fold=fold), share_of(ranks, recipe.training, chosen)
        members = [piece.member for piece in mine if piece.fold == fold]
        with metered([member_folder(output, k, fold) for k in members if shared.first], meter):
            found = train_members(
                part, sides[fold], weights_of(fold), output, members, hardware, resume, say, shared
            )
        if shared.first:
            record_costs(part, sides[fold], output, found, hardware, shared.world)
        trained += [(Piece(fold, result.member), result) for result in found]
    if recipe.training.ranks == "members":
        trained = results_of_all(ranks, trained, output, chosen)
    trained.sort(key=lambda one: chosen.index(one[0]))
    for fold in sides:
        of_fold = [result for piece, result in trained if piece.fold == fold]
        _say_advice(of_fold, fold, guessing_classes(recipe), say)
    return [result for _, result in trained]


def _say_advice(results: Sequence[MemberResult], fold: int | None, classes: int | None, say: Say) -> None:
    histories = [[asdict(record) for record in result.history] for result in results]
    names = [outcome.piece_name(None, result.member) for result in results]
    for sentence in advise_members(histories, classes, names):
        say(sentence if fold is None else f"fold {fold}: {sentence}")


def _write_tagger(recipe: Recipe, sides: FoldSides, output: Path, began: float, say: Say) -> None:
    """The bundle of all that has ended, and run.json; of processes that end together, one after the other."""
    pieces = outcome.all_pieces(recipe)
    folds = outcome.folds_of(pieces)
    if any(fold not in sides for fold in folds):
        sides = prepare_folds(recipe.data, recipe.baselines, folds, lambda line: None)
    with one_at_a_time(output / ".bundling"):
        standing = outcome.survey(output, pieces)
        for line in standing.lines():
            say(line)
        standing.check_complete(folds)
        check_same_config(recipe, sides, output, standing.ended)
        tagger = bundle(recipe, sides, output, standing, say)
        seconds = time.monotonic() - began
        spent = None if tagger.card["cost"] is None else Cost(**tagger.card["cost"])
        where = None if spent is None else spent.hardware
        write_json(output / "run.json", {**tagger.card, "hardware": where, "seconds": seconds})
    if spent is not None:
        say(f"cost of all trainings: {spent}")
    say(f"tagger: {output / 'tagger'} ({seconds:.0f} s)")


def _interrupted(output: Path, pieces: Sequence[Piece], ranks: Ranks, overwriting: bool) -> str | None:
    """What ended the command that is to go on by itself; None where it begins anew."""
    if ranks.restarts:
        return "the loss of a rank"
    folders = [member_folder(output, member, fold) for fold, member in pieces]
    return ranks.first_does(lambda: interrupted_before(folders, overwriting=overwriting))


def _marking(
    output: Path, pieces: Sequence[Piece], ranks: Ranks, section: TrainingSection, *, overwriting: bool
) -> AbstractContextManager[None]:
    """See `marking`; a folder is marked by one rank."""
    marked = [] if section.ranks == "batch" and not ranks.first else share_of(ranks, section, pieces)
    folders = [member_folder(output, member, fold) for fold, member in marked]
    return marking(folders, overwriting=overwriting)


def _training_rows(
    sides: Sides, weights: TrainingWeightsResult
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The jets that are trained on, and what each counts in the loss."""
    trained_R = weights.factor_R > 0
    rows = sides.train_rows[trained_R]
    return rows, loss_weights(sides.train, rows, weights.factor_R[trained_R])


def _fit_baselines(
    recipe: Recipe,
    section: BoostedTreesSection,
    sides: Sides,
    weights: TrainingWeightsResult,
    output: Path,
    say: Callable[[str], None],
) -> None:
    began = time.monotonic()
    rows, weights_R = _training_rows(sides, weights)
    trees = fit_trees(section, sides.train, rows, weights_R, seed=recipe.training.seed)
    trees.save(output / "baselines" / "boosted_trees.npz")
    say(f"boosted trees: fitted in {time.monotonic() - began:.1f} s")
