"""`jettagger evaluate`, first half: runs and bundles score the test samples.

Each run gives one `Predictions` for its network, and one more for each of: a single member of an ensemble, MC
dropout, and the baselines of its config.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jettagger import baselines, tagger, yaml_source
from jettagger.baselines import BaselinesSection
from jettagger.batch import Inputs
from jettagger.data.batches import Batches
from jettagger.errors import JettaggerError
from jettagger.evaluation.held_out import Part, Run, ScoredJets, left_out, parts_of, same_jets, scored_jets
from jettagger.evaluation.predictions import Predictions
from jettagger.evaluation.records import (
    groups_of,
    guessing_classes,
    history_of,
    networks_of,
    notes_of_networks,
    row_names,
    rows_of,
    seconds_of,
)
from jettagger.models.parts.dropout import dropout_layers
from jettagger.tagger import BATCH, Scores, Tagger
from jettagger.uncertainty.decomposition import decompose
from jettagger.uncertainty.ensemble import median_decomposition

MEDIAN_MEMBERS = 3
"""Members from which on the median is another number than the mean."""


def open_runs(paths: Sequence[Path], *, device: str = "cpu", mean_over_folds: bool = False) -> list[Run]:
    """Loads runs and bundles; names are made unique. Raises JettaggerError when classes differ.

    `mean_over_folds` makes one ensemble of the networks of all folds: see `Tagger.mean_over_folds`.
    """
    runs: list[Run] = []
    for path in paths:
        if path.resolve() in {run.path.resolve() for run in runs}:
            raise JettaggerError(f"{path} is given twice")
        loaded = tagger.load(path, device=device)
        loaded = loaded.mean_over_folds() if mean_over_folds else loaded
        folder = path if (path / "card.json").is_file() else path / "tagger"
        document = yaml_source.read(folder / "config.yaml").content
        runs.append(Run(loaded.card.get("name", path.name), path, loaded, document))
        if loaded.classes != runs[0].tagger.classes:
            raise JettaggerError(
                f"{path} has the classes {', '.join(loaded.classes)}, {paths[0]} has "
                f"{', '.join(runs[0].tagger.classes)}: they cannot be compared"
            )
        if not loaded.classes and loaded.targets != runs[0].tagger.targets:
            raise JettaggerError(
                f"{path} has the targets {', '.join(loaded.targets)}, {paths[0]} has "
                f"{', '.join(runs[0].tagger.targets)}: they cannot be compared"
            )
    return _named_apart(runs)


def _named_apart(runs: Sequence[Run]) -> list[Run]:
    """Runs of the same name are called by their folder as well, or by the whole path."""

    def by_folder(run: Run) -> str:
        return f"{run.path.resolve().parent.name}/{run.name}"

    def by_path(run: Run) -> str:
        return str(run.path)

    for longer in (by_folder, by_path):
        times = Counter(run.name for run in runs)
        runs = [run._replace(name=longer(run)) if times[run.name] > 1 else run for run in runs]
    return list(runs)


def predict_all(
    runs: Sequence[Run],
    data: Sequence[str] = (),
    *,
    mc_dropout: int = 0,
    part: Part | None = None,
    say: Callable[[str], None] = print,
) -> list[Predictions]:
    """What all runs and their baselines say of the test samples (or of `data`).

    Runs with folds are judged on the whole training sample, each jet by networks that never saw it, unless `part`
    says that data.test is wanted, or a run without folds stands beside them.
    """
    if part is None:
        part = parts_of(runs, data)[0]
    found: list[Predictions] = []
    groups = groups_of(runs)
    reference: ScoredJets | None = None
    for run in runs:
        jets = scored_jets(run, data, part)
        if reference is None:
            reference = jets
        elif not same_jets(jets, reference):
            raise JettaggerError(
                f"{run.name} and {runs[0].name} were given different test jets ({len(jets.rows)} and "
                f"{len(reference.rows)}), in another order or with other labels: compare runs whose classes, "
                "data.selection and data.test agree, or use --data"
            )
        say(
            f"{run.name}: {len(jets.rows)} {'training jets, each held out once' if part == 'folds' else 'test jets'}"
        )
        for one in _predictions(run, jets, groups[run.name], mc_dropout, say):
            if any(_same_baseline(one, other) for other in found):
                continue
            taken = any(one.name == other.name for other in found)
            found.append(replace(one, name=f"{one.name} of {run.name}") if taken else one)
    return found


def _predictions(
    run: Run, jets: ScoredJets, group: str | None, mc_dropout: int, say: Callable[[str], None]
) -> list[Predictions]:
    prepared = jets.prepared
    scores = _scores(run.tagger, jets)
    members = 1 if scores.members_MJC is None else len(scores.members_MJC)
    seed = run.document.get("training", {}).get("seed", 1)
    common = Predictions(
        name=run.name,
        classes=run.tagger.classes,
        labels_N=jets.labels,
        weights_N=prepared.weights_J[jets.rows].astype(np.float64),
        spectators=jets.picked(prepared.spectators),
        notes=(*jets.notes, *left_out(run, prepared), *notes_of_networks(run)),
        seed=seed,
        evaluated=jets.evaluated,
    )
    networks, history, seconds = networks_of(run), history_of(run), seconds_of(run)
    network = replace(
        common,
        decomposition=scores.decomposition if run.tagger.classes else None,
        members_MNC=scores.members_MJC if run.tagger.classes else None,
        member_names=row_names(run, members),
        targets=scores.targets,
        truths=jets.picked(prepared.targets),
        group=group,
        guessing=guessing_classes(run),
        history=history,
        trainings=[one.words for one in networks] if history else (),
        n_parameters=sum(p.numel() for p in run.tagger.members[0].parameters()),
        training_seconds=sum(seconds) if seconds else None,
    )
    found = [replace(network, cost=run.tagger.card.get("cost"))]
    if members > 1:
        kind = f" (ensemble of {members})"
        whole = replace(
            network,
            name=run.name + kind,
            group=None if group is None else group + kind,
            cost=run.tagger.card.get("cost"),
        )
        first_alone = _scores(run.tagger.first_members(), jets).targets if scores.targets else {}
        network = _first_alone(network, run)
        found = [replace(_single(network, scores), targets=first_alone), whole]
        if members >= MEDIAN_MEMBERS and run.tagger.card.get("problems") and run.tagger.classes:
            assert scores.members_MJC is not None
            name = f"{run.name} (median of {members})"
            median = median_decomposition(scores.members_MJC)
            alone = replace(
                whole,
                name=name,
                members_MNC=None,
                targets={},
                history=(),
                trainings=(),
                group=None,
                cost=None,
            )
            found.append(replace(alone, decomposition=median))
    if mc_dropout:
        found += _mc_dropout(
            run,
            jets,
            replace(network, members_MNC=None, history=(), trainings=(), group=None),
            mc_dropout,
            say,
        )
    return found + _baselines(run, jets, replace(common, group=None))


def _scores(scorer: Tagger, jets: ScoredJets, *, mc_dropout: int = 0) -> Scores:
    """The tagger's scores of the jets, read from the prepared dataset."""

    def inputs_of(positions: NDArray[np.int64]) -> Iterator[Inputs]:
        rows = jets.rows[positions]
        batches = Batches(jets.prepared, rows, BATCH, inputs=scorer.members[0].inputs)
        return (batch.inputs for batch in batches.epoch(0))

    return scorer.run_rows(len(jets.rows), inputs_of, jets.fold_J, mc_dropout=mc_dropout)


def _first_alone(network: Predictions, run: Run) -> Predictions:
    """Its epochs and seconds are those of the first member, with folds of that of each."""
    first, seconds = [row[0] for row in rows_of(run)], seconds_of(run)
    return replace(
        network,
        history=[network.history[k] for k in first] if network.history else (),
        trainings=[network.trainings[k] for k in first] if network.history else (),
        training_seconds=sum(seconds[k] for k in first) if seconds else None,
    )


def _single(network: Predictions, scores: Scores) -> Predictions:
    """The ensemble's first member alone; with folds, that of each."""
    assert scores.members_MJC is not None
    first = scores.members_MJC[:1]
    return replace(
        network,
        decomposition=None if network.decomposition is None else decompose(first),
        members_MNC=None if network.members_MNC is None else first,
        member_names=network.member_names[:1],
    )


def _mc_dropout(
    run: Run, jets: ScoredJets, common: Predictions, passes: int, say: Callable[[str], None]
) -> list[Predictions]:
    if not any(layer.p > 0 for _, layer in dropout_layers(run.tagger.members[0])):
        say(f"{run.name}: no MC dropout, since its network has no dropout")
        return []
    scores = _scores(run.tagger.first_members(), jets, mc_dropout=passes)
    decomposition = None if common.decomposition is None else scores.decomposition
    name = f"{run.name} (MC dropout)"
    return [replace(common, name=name, decomposition=decomposition, targets=scores.targets)]


def _baselines(run: Run, jets: ScoredJets, common: Predictions) -> list[Predictions]:
    section = BaselinesSection.model_validate(run.document.get("baselines") or {})
    found = []
    if section.cut is not None:
        scores_N = baselines.cut_scores(jets.picked(jets.prepared.extras))
        found.append(replace(common, name="cut", scores_N=scores_N, seed=None))
    probabilities_JC = None if section.boosted_trees is None else _trees_scores(run, jets)
    if probabilities_JC is not None:
        found.append(
            replace(common, name="boosted trees", decomposition=decompose(probabilities_JC[np.newaxis]))
        )
    return found


def _trees_scores(run: Run, jets: ScoredJets) -> NDArray[np.float64] | None:
    """Probabilities of the boosted trees, (J, C), each jet's by those of its fold; None where they are not there."""
    fold_J = np.full(len(jets.rows), -1) if jets.fold_J is None else jets.fold_J
    scores_JC = np.empty((len(jets.rows), len(run.tagger.classes)))
    for fold in np.unique(fold_J).tolist():
        folder = run.path if jets.fold_J is None else run.path / f"fold_{fold}"
        stored = folder / "baselines" / "boosted_trees.npz"
        if not stored.is_file():
            return None
        of_fold = fold_J == fold
        features = baselines.jet_features(jets.prepared, jets.rows[of_fold])
        scores_JC[of_fold] = baselines.load_trees(stored).probabilities(features)
    return scores_JC


def _same_baseline(one: Predictions, other: Predictions) -> bool:
    """Runs that share a config's baselines give them once."""
    if one.name != other.name or one.members_MNC is not None:
        return False
    if one.scores_N is not None and other.scores_N is not None:
        return np.array_equal(one.scores_N, other.scores_N)
    if one.decomposition is None or other.decomposition is None:
        return False
    return np.array_equal(one.decomposition.probabilities_NC, other.decomposition.probabilities_NC)
