"""`jettagger evaluate`, first half: runs and bundles score the test samples.

Each run gives one `Predictions` for its network, and one more for each of: a single member of an ensemble, MC
dropout, and the baselines of its config.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jettagger import baselines, tagger, yaml_source
from jettagger.baselines import BaselinesSection
from jettagger.batch import Inputs
from jettagger.data.batches import Batches
from jettagger.errors import JettaggerError
from jettagger.evaluation.held_out import Part, Run, ScoredJets, left_out, parts_of, same_jets, scored_jets
from jettagger.evaluation.predictions import Predictions
from jettagger.models.parts.dropout import dropout_layers
from jettagger.outputs.schema import ClassLossSection
from jettagger.tagger import BATCH, Network, Scores, Tagger
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
        name = loaded.card.get("name", path.name)
        taken = {run.name for run in runs}
        unique = next(n for n in (name, f"{path.parent.name}/{name}", str(path)) if n not in taken)
        runs.append(Run(unique, path, loaded, document))
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
    return runs


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
    groups = _groups(runs)
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
        notes=(*jets.notes, *left_out(run, prepared), *_unsound(run)),
        seed=seed,
        evaluated=jets.evaluated,
    )
    networks, history, seconds = _networks(run), _history(run), _seconds(run)
    network = replace(
        common,
        decomposition=scores.decomposition if run.tagger.classes else None,
        members_MNC=scores.members_MJC if run.tagger.classes else None,
        member_names=_row_names(run, members),
        targets=scores.targets,
        truths=jets.picked(prepared.targets),
        group=group,
        guessing=_guessing(run),
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


def _guessing(run: Run) -> int | None:
    """See `Predictions.guessing`."""
    training = run.document.get("training") or {}
    loss = ClassLossSection.model_validate(training.get("loss") or {}).name
    entropy = loss in ("cross_entropy", "binary_cross_entropy") and not training.get("decorrelate")
    return len(run.tagger.classes) if entropy and not run.tagger.targets else None


def _unsound(run: Run) -> tuple[str, ...]:
    """Notes of networks that are missing, have failed, or look so on the validation jets."""
    card = run.tagger.card

    def name(one: Mapping[str, Any]) -> str:
        return Network(one["member"], one["fold"]).words

    return (
        *(
            f"{run.name}: {name(one)} failed and is not part of it: {one['reason']}"
            for one in card.get("failed", ())
        ),
        *(
            f"{run.name}: {name(one)} was not trained to the end, and is not part of it"
            for one in card.get("missing", ())
        ),
        *(f"{run.name}: {problem}" for problem in card.get("problems", ())),
        *(f"{run.name}: {remark}" for remark in card.get("remarks", ())),
    )


def _first_alone(network: Predictions, run: Run) -> Predictions:
    """Its epochs and seconds are those of the first member, with folds of that of each."""
    first, seconds = [row[0] for row in _rows(run)], _seconds(run)
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


def _rows(run: Run) -> list[list[int]]:
    """Positions of the bundle's networks in one list for each fold; in one alone where no fold is looked at."""
    folds = [one.fold for one in run.tagger.networks]
    if not run.tagger.folds:
        return [list(range(len(run.tagger.members)))]
    return [[k for k, of in enumerate(folds) if of == fold] for fold in run.tagger.folds]


def _row_names(run: Run, members: int) -> list[str]:
    """Which network each row of the members' scores is; with folds, which of each fold."""
    networks, names = _networks(run), []
    for row in range(members):
        of_row = [networks[positions[row]] for positions in _rows(run)]
        numbers = [one.member for one in of_row]
        if len(of_row) == 1:
            names.append(of_row[0].words)
        elif len(set(numbers)) == 1:
            names.append(f"member {numbers[0]} of the folds")
        else:  # folds that lost different members
            told = "; ".join(one.words for one in of_row)
            names.append(f"network {row} of the folds ({told})")
    return names


def _seconds(run: Run) -> list[float]:
    """What the training of each network in the bundle took; empty where the card does not tell."""
    seconds = [float(one["seconds"]) for one in run.tagger.card.get("trainings", [])]
    return seconds if len(seconds) == len(run.tagger.members) else []


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


def _groups(runs: Sequence[Run]) -> dict[str, str | None]:
    """Runs whose configs differ in the seed only share a group, named after what their names have in common."""
    kinds: dict[str, list[str]] = {}
    for run in runs:
        document = {**run.document, "training": {**run.document.get("training", {}), "seed": None}}
        kinds.setdefault(json.dumps(document, sort_keys=True, default=str), []).append(run.name)
    groups: dict[str, str | None] = {}
    for names in kinds.values():
        groups.update({name: _in_common(names) if len(names) > 1 else None for name in names})
    return groups


def _in_common(names: Sequence[str]) -> str:
    """`mlp` of `mlp_seed1` and `mlp_seed2`; the first name where nothing is left."""
    shared = "".join(
        next(iter(letters))
        for letters in takewhile(lambda c: len(c) == 1, map(set, zip(*names, strict=False)))
    )
    return shared.removesuffix("seed").rstrip("_-. ") or names[0]


def _networks(run: Run) -> tuple[Network, ...]:
    """Member and fold of each network in the bundle."""
    listed = run.tagger.card.get("networks")
    return (
        tuple(Network(**one) for one in listed)
        if listed
        else tuple(Network(k) for k in range(len(run.tagger.members)))
    )


def _history(run: Run) -> tuple[tuple[dict[str, Any], ...], ...]:
    """The epochs of each network's training, where the run directory is still around the bundle."""
    files = [run.path / one.name / "metrics.jsonl" for one in _networks(run)]
    if not all(file.is_file() for file in files):
        return ()
    return tuple(
        tuple(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()) for file in files
    )
