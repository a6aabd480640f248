"""`jettagger evaluate`, first half: runs and bundles score the test samples.

Each run gives one `Predictions` for its network, and one more for each of: a single member of an ensemble, MC
dropout, and the baselines of its config.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger import baselines, tagger, yaml_source
from jettagger.baselines import BaselinesSection
from jettagger.data import splits
from jettagger.data.batches import Batches
from jettagger.data.prepared import Prepared, prepare
from jettagger.data.sample_schema import DataSection, Samples, SampleSection
from jettagger.data.schema import ClassSection
from jettagger.errors import JettaggerError
from jettagger.evaluation.predictions import Predictions
from jettagger.models.parts.dropout import dropout_layers
from jettagger.tagger import BATCH, Scores, Tagger
from jettagger.uncertainty.decomposition import Decomposition, decompose


class Run(NamedTuple):
    """A bundle, and the run directory around it if there is one."""

    name: str
    path: Path
    tagger: Tagger
    document: Mapping[str, Any]
    """The resolved config."""


class ScoredJets(NamedTuple):
    """Jets that are scored: rows of a dataset."""

    prepared: Prepared
    rows: NDArray[np.int64]

    def origin(self) -> tuple[NDArray[np.int64], ...]:
        """File, entry, and number in the entry of each jet."""
        return tuple(x[self.rows] for x in self.prepared.origin())

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of each jet."""
        return self.prepared.labels_J[self.rows].astype(np.int64)

    def picked(self, columns: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Columns of the dataset, of these jets."""
        return {name: values[self.rows] for name, values in columns.items()}


def open_runs(paths: Sequence[Path], *, device: str = "cpu") -> list[Run]:
    """Loads runs and bundles; names are made unique. Raises JettaggerError when classes differ."""
    runs: list[Run] = []
    for path in paths:
        if path.resolve() in {run.path.resolve() for run in runs}:
            raise JettaggerError(f"{path} is given twice")
        loaded = tagger.load(path, device=device)
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
    return runs


def predict_all(
    runs: Sequence[Run],
    data: Sequence[str] = (),
    *,
    mc_dropout: int = 0,
    say: Callable[[str], None] = print,
) -> list[Predictions]:
    """What all runs and their baselines say of the test samples (or of `data`)."""
    found: list[Predictions] = []
    groups = _groups(runs)
    reference: ScoredJets | None = None
    for run in runs:
        jets = _test_jets(run, data)
        if reference is None:
            reference = jets
        elif not _same_jets(jets, reference):
            raise JettaggerError(
                f"{run.name} and {runs[0].name} were given different test jets ({len(jets.rows)} and "
                f"{len(reference.rows)}), in another order or with other labels: compare runs whose classes, "
                "data.selection and data.test agree, or use --data"
            )
        say(f"{run.name}: {len(jets.rows)} test jets")
        for one in _predictions(run, jets, groups[run.name], mc_dropout, say):
            if any(_same_baseline(one, other) for other in found):
                continue
            taken = any(one.name == other.name for other in found)
            found.append(replace(one, name=f"{one.name} of {run.name}") if taken else one)
    return found


def _same_jets(one: ScoredJets, other: ScoredJets) -> bool:
    """Whether the same jets stand in the same order, with the same labels."""
    pairs = zip((*one.origin(), one.labels), (*other.origin(), other.labels), strict=True)
    return all(np.array_equal(mine, its) for mine, its in pairs)


def samples_from(data: Sequence[str]) -> Samples:
    """`FILES` or `SAMPLE=FILES` from the command line as samples."""
    samples: dict[str, list[str]] = {}
    for text in data:
        name, equals, pattern = text.partition("=")
        named = equals and name.isidentifier()  # a path may hold a '=' as well
        samples.setdefault(name if named else "data", []).append(pattern if named else text)
    return {name: SampleSection(files=files) for name, files in samples.items()}


def weighted(samples: Samples, section: DataSection) -> Samples:
    """The samples with the weights that the config gives to samples of their names."""
    known = section.train | (section.test if isinstance(section.test, dict) else {})
    found: dict[str, SampleSection] = {}
    for name, sample in samples.items():
        assert isinstance(sample, SampleSection)
        like = known.get(name)
        found[name] = (
            sample.model_copy(update={"weight": like.weight}) if isinstance(like, SampleSection) else sample
        )
    return dict(found)


def _test_jets(run: Run, data: Sequence[str]) -> ScoredJets:
    """The jets of `data`, or of the config's test samples, or those that its training held out."""
    config = run.tagger.config
    section = BaselinesSection.model_validate(run.document.get("baselines") or {})
    samples = weighted(samples_from(data), config.data) if data else config.data.test
    if not isinstance(samples, dict) or (not samples and config.data.folds is not None):
        return _held_out(run, baselines.expressions(section) | splits.columns(config))
    if not samples:
        raise JettaggerError(
            f"{run.path}: no test jets: its config has no data.test, and --data is not given"
        )
    _check_samples(run, samples)
    prepared = prepare(
        config, samples, role="--data" if data else "data.test", extras=baselines.expressions(section)
    )
    known = run.tagger.card["data"]["files"]
    for record in prepared.records:
        if record.identity in known:
            raise JettaggerError(f"{record.path}: {run.name} was trained or validated on this file")
    return ScoredJets(prepared, np.arange(len(prepared)))


def _held_out(run: Run, extras: Mapping[str, str | int | float]) -> ScoredJets:
    """The jets of the training samples that are on the test side, or in the fold that was held out.

    The config is the bundle's own, and a jet's side hangs on nothing else: none of these was trained on, also
    where files have been added since.
    """
    config = run.tagger.config
    prepared = prepare(config, config.data.train, role="data.train", extras=extras)
    # Where there are folds and a test side, the fold's network has seen neither; the test side is common to all.
    fold = run.tagger.card["fold"]["fold"] if isinstance(config.data.test, dict) else None
    return ScoredJets(prepared, splits.split(prepared, config.data, fold).test)


def _left_out(run: Run, prepared: Prepared) -> tuple[str, ...]:
    """Notes of the files that data.on_error left out of the training and of the test jets."""
    trained = run.tagger.card["data"].get("skipped", [])
    return (
        *(
            f"{run.name} was trained without {one['path']} ({one['sample']}): {one['reason']}"
            for one in trained
        ),
        *(f"{one.path} ({one.sample}) is not among the test jets: {one.reason}" for one in prepared.skipped),
    )


def _check_samples(run: Run, samples: Samples) -> None:
    """Where the classes are samples, files need one: raises JettaggerError for those without."""
    classes = run.tagger.config.classes.values()
    known = [
        condition.sample for condition in classes if isinstance(condition, ClassSection) and condition.sample
    ]
    if len(known) == len(classes) and not all(name in known for name in samples):
        allowed = " and ".join(f"--data {name}=FILES" for name in known)
        raise JettaggerError(
            f"--data: the classes of {run.name} are samples; say which files are which: {allowed}"
        )


def _predictions(
    run: Run, jets: ScoredJets, group: str | None, mc_dropout: int, say: Callable[[str], None]
) -> list[Predictions]:
    prepared = jets.prepared
    batches = Batches(prepared, jets.rows, BATCH, inputs=run.tagger.members[0].inputs)
    scores = run.tagger.run(batch.inputs for batch in batches.epoch(0))
    members = len(run.tagger.members)
    seed = run.document.get("training", {}).get("seed", 1)
    common = Predictions(
        name=run.name,
        classes=run.tagger.classes,
        labels_N=jets.labels,
        weights_N=prepared.weights_J[jets.rows].astype(np.float64),
        spectators=jets.picked(prepared.spectators),
        notes=_left_out(run, prepared),
        seed=seed,
    )
    trained = run.tagger.card.get("trainings", [])
    network = replace(
        common,
        decomposition=scores.decomposition,
        members_MNC=scores.members_MJC,
        group=group,
        history=_history(run),
        n_parameters=sum(p.numel() for p in run.tagger.members[0].parameters()),
        training_seconds=sum(t["seconds"] for t in trained) if trained else None,
    )
    found = [network]
    if members > 1:
        kind = f" (ensemble of {members})"
        whole = replace(network, name=run.name + kind, group=None if group is None else group + kind)
        found = [_single(network, scores), whole]
    if mc_dropout:
        found += _mc_dropout(
            run, batches, replace(network, members_MNC=None, history=(), group=None), mc_dropout, say
        )
    return found + _baselines(run, jets, replace(common, group=None))


def _single(network: Predictions, scores: Scores) -> Predictions:
    """The ensemble's first member alone."""
    assert scores.members_MJC is not None
    first = scores.members_MJC[:1]
    seconds = network.training_seconds
    return replace(
        network,
        decomposition=decompose(first),
        members_MNC=first,
        history=network.history[:1],
        training_seconds=None if seconds is None else seconds / len(scores.members_MJC),
    )


def _mc_dropout(
    run: Run, batches: Batches, common: Predictions, passes: int, say: Callable[[str], None]
) -> list[Predictions]:
    first = run.tagger.members[0]
    if not any(layer.p > 0 for _, layer in dropout_layers(first)):
        say(f"{run.name}: no MC dropout, since its network has no dropout")
        return []
    single = replace(run.tagger, members=run.tagger.members[:1])
    scores = single.run((batch.inputs for batch in batches.epoch(0)), mc_dropout=passes)
    decomposition: Decomposition = scores.decomposition
    return [replace(common, name=f"{run.name} (MC dropout)", decomposition=decomposition)]


def _baselines(run: Run, jets: ScoredJets, common: Predictions) -> list[Predictions]:
    section = BaselinesSection.model_validate(run.document.get("baselines") or {})
    found = []
    if section.cut is not None:
        scores_N = baselines.cut_scores(jets.picked(jets.prepared.extras))
        found.append(replace(common, name="cut", scores_N=scores_N, seed=None))
    stored = run.path / "baselines" / "boosted_trees.npz"
    if section.boosted_trees is not None and stored.is_file():
        trees = baselines.load_trees(stored)
        probabilities_JC = trees.probabilities(baselines.jet_features(jets.prepared, jets.rows))
        found.append(
            replace(common, name="boosted trees", decomposition=decompose(probabilities_JC[np.newaxis]))
        )
    return found


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


def _history(run: Run) -> tuple[tuple[dict[str, Any], ...], ...]:
    """The epochs of each member's training, where the run directory is still around the bundle."""
    files = [run.path / f"member_{k}" / "metrics.jsonl" for k in range(len(run.tagger.members))]
    return tuple(
        tuple(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
        for file in files
        if file.is_file()
    )
