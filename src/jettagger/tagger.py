"""The `Tagger`: preprocessing, networks and calibration in one folder that an analysis loads.

    tagger = jettagger.load("runs/particle_cnn/tagger")
    scores = tagger.predict(jets)                  # awkward records, a dict of arrays, NumPy, or a ROOT file
    scores.Top, scores.std.Top, scores.mutual_information

Where a training had folds (`data.folds`), the bundle holds the networks of all of them, and each jet is scored by
those of the fold that its event number puts it in: they never saw it.

A bundle holds `config.yaml`, `weights.safetensors` (all members), `card.json` and `check_jets.npz`: a few raw
jets with the scores they had when it was written, which loading replays. No part of it is code.

Shapes: J jets, M members, K output columns, C classes.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from jettagger import models, yaml_source
from jettagger.batch import Inputs
from jettagger.data import splits
from jettagger.data.columns import Columns
from jettagger.data.locations import find_files
from jettagger.data.reader import opening_of, source_of
from jettagger.data.rows import RawInputs, offsets_of, take
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError, unknown_name
from jettagger.files import directory_written_aside, sha256, write_json
from jettagger.models.parts.model import JetModel
from jettagger.outputs.description import describe
from jettagger.outputs.schema import ClassLossSection
from jettagger.randomness import torch_generator
from jettagger.uncertainty.columns import class_columns, target_columns
from jettagger.uncertainty.decomposition import Accumulator, Decomposition
from jettagger.uncertainty.ensemble import estimates_of, probabilities_of, raw_outputs
from jettagger.uncertainty.mc_dropout import pass_outputs
from jettagger.uncertainty.regression import TargetAccumulator, TargetPrediction, joined, nothing

FORMAT = 2
READABLE = (1, 2)
"""1: its networks are members 0, 1, …; there is no fold among them, though one may have been held out of all."""
FILES = ("weights.safetensors", "config.yaml", "check_jets.npz")
"""What the card holds checksums of."""
CHECK_JETS = 16
TOLERANCE = 1.0e-4
"""How far a replayed probability may be off: processors round float32 sums differently."""
BATCH = 1024
"""Jets that go through the networks together."""


class Network(NamedTuple):
    """Which training a network comes from."""

    member: int
    fold: int | None = None
    """The fold that it has not seen; None without folds."""

    @property
    def name(self) -> str:
        """`member_0`, or `fold_2/member_0`: as in the run's folder and in front of its weights."""
        return f"member_{self.member}" if self.fold is None else f"fold_{self.fold}/member_{self.member}"

    @property
    def words(self) -> str:
        """`member 1`, or `fold 2, member 1`."""
        return f"member {self.member}" if self.fold is None else f"fold {self.fold}, member {self.member}"


class Scores(NamedTuple):
    """What a tagger says of J jets, one entry a jet."""

    decomposition: Decomposition
    members_MJC: NDArray[np.float32] | None
    """Each member's probabilities; None for MC dropout. With folds, the M-th network of the jet's own fold."""
    targets: Mapping[str, TargetPrediction] = {}
    """What is said of each regression target."""


class Scored(NamedTuple):
    """Scores of some entries of a file, or of arrays."""

    first: int
    """Number of the first entry in the file."""
    entries: int
    columns: dict[str, NDArray[Any]]
    """One value a jet: see `Tagger.score`."""
    counts_E: NDArray[np.int64] | None
    """Jets of each entry, where jets are nested in events; None where an entry is a jet."""


@dataclass(frozen=True)
class Tagger:
    """Networks with all that is needed to score raw jets."""

    config: DataConfig
    members: tuple[JetModel, ...]
    card: Mapping[str, Any]
    """What is known of it: classes, inputs, training, versions, metrics."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    networks: tuple[Network, ...] = ()
    """Where each of `members` comes from; empty: members 0, 1, … without folds."""

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds whose networks are here; where there are some, a jet is scored by those of its own fold."""
        return tuple(dict.fromkeys(one.fold for one in self.networks if one.fold is not None))

    def of_fold(self, fold: int) -> "Tagger":
        """The networks that never saw the fold, as a tagger for any jets. Raises JettaggerError without such."""
        kept = [k for k, one in enumerate(self.networks) if one.fold == fold]
        if not kept:
            raise JettaggerError(f"fold {fold}: this tagger has {_listed(self.folds)}")
        return self._with(kept, [Network(self.networks[k].member) for k in kept])

    def mean_over_folds(self) -> "Tagger":
        """The networks of all folds as one ensemble, for jets that none of them was trained on.

        No event number is looked at. Of a training jet most networks have seen the label: their mean is no fair
        score of it. The spread between them holds that between training samples too.
        """
        if not self.folds:
            raise JettaggerError("mean over folds: this tagger has no folds")
        return self._with(range(len(self.members)), [Network(k) for k in range(len(self.members))])

    def first_members(self) -> "Tagger":
        """One network alone; with folds one of each."""
        folds = [one.fold for one in self.networks] or [None] * len(self.members)
        kept = [folds.index(fold) for fold in dict.fromkeys(folds)]
        return self._with(kept, [self.networks[k] for k in kept] if self.networks else [])

    def _with(self, kept: Iterable[int], networks: Sequence[Network]) -> "Tagger":
        return replace(self, members=tuple(self.members[k] for k in kept), networks=tuple(networks))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the scores, in the order of the outputs."""
        return tuple(self.config.classes)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the regression targets."""
        return tuple(self.config.targets)

    @cached_property
    def _columns(self) -> Columns:
        """Parsed once: an analysis may ask for a few jets at a time."""
        return Columns(self.config, splits.fold_column(self.config.data.folds) if self.folds else None)

    def branches(self, available: Collection[str], *, where: str, spectators: bool = True) -> frozenset[str]:
        """What a prediction reads of those that are `available`. Raises JettaggerError for one that is missing."""
        needed = self._columns.input_branches(available, where=where, spectators=spectators)
        if not self.folds:
            return needed
        try:
            return needed | self._columns.extra_branches(available, where=where)
        except JettaggerError as error:
            raise JettaggerError(
                f"{error}\nIt tells which network never saw a jet (data.folds: this tagger holds the networks of "
                f"{len(self.folds)} folds). For jets that none of them was trained on, ask for the mean over folds: "
                "--mean-over-folds, or Tagger.mean_over_folds()"
            ) from error

    def predict(self, jets: Any, *, mc_dropout: int = 0, seed: int = 0) -> ak.Array:
        """Scores of jets, as an awkward record array with one entry for each input jet, in order.

        `jets`: an awkward record array (nested events keep their nesting), a dict of arrays, a structured NumPy
        array, or the path (glob, list) of files, with the branches that the config names. Where `data.jets`
        says that an entry is an event, there is a list for each event, of its jets in their order. With
        `mc_dropout=T` each member is run T times with dropout on.

        Fields: a probability for each class; `std` with the standard deviation of each between members;
        `mutual_information` (between trainings, epistemic), `expected_entropy` (label noise, aleatoric) and
        `total_entropy` in nats; `passes_selection`. For each regression target: `<target>`; `<target>_error`,
        the error that a Gaussian loss has learned with the spread between members; `<target>_std`, that spread
        alone; `<target>_q16` and so on for quantiles. Without classes only these stand beside
        `passes_selection`. Raises JettaggerError for a branch that is missing.
        """
        if mc_dropout < 0:
            raise JettaggerError(
                f"predict: mc_dropout is {mc_dropout}; it is a number of passes, or 0 for none"
            )
        if isinstance(jets, (str, Path)) or _is_list_of_paths(jets):
            paths = [jets] if isinstance(jets, (str, Path)) else list(jets)
            files = find_files([str(path) for path in paths], where="predict")
            parts = [
                part
                for file in files
                for part in self.predict_file(file, mc_dropout=mc_dropout, seed=seed, spectators=False)
            ]
            return self._nested(parts)
        if isinstance(jets, ak.Array) and jets.ndim > 1 and jets.fields:
            counts = ak.num(jets, axis=1)
            scores = self.predict(ak.flatten(jets, axis=1), mc_dropout=mc_dropout, seed=seed)
            return ak.unflatten(scores, counts)
        branches = _branches(jets)
        return self._nested(
            [self.scored(branches, where="predict", mc_dropout=mc_dropout, seed=seed, spectators=False)]
        )

    def predict_file(
        self, path: str | Path, *, mc_dropout: int = 0, seed: int = 0, spectators: bool = True
    ) -> Iterator[Scored]:
        """The scores of each chunk of a file's entries, in order."""
        source = source_of(path, opening_of(self.config))
        needed = self.branches(source.branches, where=str(path), spectators=spectators)
        for chunk in source.chunks(needed):
            yield self.scored(
                chunk.branches,
                where=str(path),
                first=chunk.start,
                mc_dropout=mc_dropout,
                seed=seed,
                spectators=spectators,
            )

    def score(
        self,
        branches: Mapping[str, Any],
        *,
        where: str,
        mc_dropout: int = 0,
        seed: int = 0,
        spectators: bool = True,
    ) -> dict[str, NDArray[Any]]:
        """Flat columns, one entry a jet: `<class>`, `std_<class>`, the entropies, targets, `passes_selection`,
        spectators."""
        return self.scored(
            branches, where=where, mc_dropout=mc_dropout, seed=seed, spectators=spectators
        ).columns

    def scored(
        self,
        branches: Mapping[str, Any],
        *,
        where: str,
        first: int = 0,
        mc_dropout: int = 0,
        seed: int = 0,
        spectators: bool = True,
    ) -> Scored:
        """The same, with the number of jets of each entry; `first` is the number of the first entry in its file."""
        columns = self._columns
        needed = self.branches(branches.keys(), where=where, spectators=spectators)
        used = {name: branches[name] for name in sorted(needed)}
        found = columns.layout.jets(used, where=where, first=first)
        jets = len(found)
        namespace = columns.namespace(found.branches, where=where, jets=jets)
        selected_J = columns.selected(namespace, jets)
        raw, _ = columns.inputs(namespace, jets, selected_J)
        fold_J = self.folds_of(columns.extras(namespace, jets), where=where) if self.folds else None
        scores = self.run_rows(jets, partial(_sliced, raw), fold_J, mc_dropout=mc_dropout, seed=seed)
        result = class_columns(self.classes, scores.decomposition) if self.classes else {}
        for name, predicted in scores.targets.items():
            result |= target_columns(name, predicted)
        result["passes_selection"] = selected_J
        if spectators:
            result |= columns.spectators(namespace, jets)
        entries = jets if found.counts_E is None else len(found.counts_E)
        return Scored(first, entries, result, found.counts_E)

    def folds_of(self, extras: Mapping[str, NDArray[np.float64]], *, where: str) -> NDArray[np.int64]:
        """The fold of each jet, (J,), by the function that split the training jets."""
        assert self.config.data.folds is not None, "only a config with data.folds makes a tagger with folds"
        return splits.fold_numbers(extras[splits.FOLD], self.config.data.folds, where)

    def run_rows(
        self,
        jets: int,
        inputs_of: Callable[[NDArray[np.int64]], Iterable[Inputs]],
        fold_J: NDArray[np.int64] | None = None,
        *,
        mc_dropout: int = 0,
        seed: int = 0,
    ) -> Scores:
        """Scores of jets 0, 1, …, each by the networks of its fold; `inputs_of` gives the inputs of some of them.

        The jets of a fold go through its networks together: their scores are, to the last bit, what the tagger of
        that fold alone gives for them.
        """
        rows = np.arange(jets)
        if fold_J is None or not jets:
            alone = self if fold_J is None else self.of_fold(self.folds[0])
            return alone.run(inputs_of(rows), mc_dropout=mc_dropout, seed=seed)
        rows_F = {fold: np.flatnonzero(fold_J == fold) for fold in np.unique(fold_J).tolist()}
        parts = [
            self.of_fold(fold).run(inputs_of(rows), mc_dropout=mc_dropout, seed=seed)
            for fold, rows in rows_F.items()
        ]
        return _put_back(parts, list(rows_F.values()))

    def run(self, batches: Iterable[Inputs], *, mc_dropout: int = 0, seed: int = 0) -> Scores:
        """Scores of batches of raw inputs, in their order. A tagger with folds takes them by `run_rows`."""
        assert not self.folds, "without the folds of jets it is not known which networks may score them"
        decompositions: list[Decomposition] = []
        members: list[NDArray[np.float32]] = []
        targets: dict[str, list[TargetPrediction]] = {name: [] for name in self.targets}
        for inputs in batches:
            inputs = inputs.to(self.device)
            accumulator = Accumulator()
            regression = {one.name: TargetAccumulator(one) for one in self.members[0].outputs.targets}
            if mc_dropout:
                self._add_passes(accumulator, regression, inputs, mc_dropout, seed)
            else:
                raw = [raw_outputs(model, inputs) for model in self.members]
                # In float64: in float32 all confident jets would tie at 1.
                probabilities_MBC = np.stack(
                    [probabilities_of(x, model.outputs) for x, model in zip(raw, self.members, strict=True)]
                )
                accumulator.add_many(probabilities_MBC)
                members.append(probabilities_MBC.astype(np.float32))
                for raw_BK, model in zip(raw, self.members, strict=True):
                    _add_estimates(regression, raw_BK, model)
            decompositions.append(accumulator.result())
            for name, one in regression.items():
                targets[name].append(one.result())
        if not decompositions:
            return self._nothing(mc_dropout)
        return Scores(
            _one_after_the_other(decompositions),
            np.concatenate(members, axis=1) if members else None,
            {name: joined(parts) for name, parts in targets.items()},
        )

    def _add_passes(
        self,
        accumulator: Accumulator,
        regression: Mapping[str, TargetAccumulator],
        inputs: Inputs,
        passes: int,
        seed: int,
    ) -> None:
        for number, model in enumerate(self.members):
            for raw_BK in pass_outputs(model, inputs, passes, seed + number):
                accumulator.add(probabilities_of(raw_BK, model.outputs))
                _add_estimates(regression, raw_BK, model)

    def _nothing(self, mc_dropout: int) -> Scores:
        empty_JC, empty_J = np.empty((0, len(self.classes))), np.empty(0)
        samples = len(self.members) * max(mc_dropout, 1)
        targets = {one.name: nothing(one, samples) for one in self.members[0].outputs.targets}
        return Scores(Decomposition(empty_JC, empty_JC, empty_J, empty_J, empty_J, samples), None, targets)

    def _nested(self, parts: Sequence[Scored]) -> ak.Array:
        """One record a jet, in a list for each event where jets are nested in events."""
        record = self._record(_joined([part.columns for part in parts]))
        counts = [part.counts_E for part in parts if part.counts_E is not None]
        return ak.unflatten(record, np.concatenate(counts)) if counts else record

    def _record(self, columns: Mapping[str, NDArray[Any]]) -> ak.Array:
        spreads = [f"std_{name}" for name in self.classes]
        fields: dict[str, Any] = {name: columns[name] for name in self.classes}
        if spreads:
            fields["std"] = ak.zip({name: columns[f"std_{name}"] for name in self.classes})
        others = {name: x for name, x in columns.items() if name not in (*self.classes, *spreads)}
        return ak.zip(fields | others, depth_limit=1)


def save(
    directory: Path, *, tagger: Tagger, document: Mapping[str, Any], check_jets: Mapping[str, Any]
) -> Tagger:
    """Writes the bundle, whole or not at all, and returns it as loaded again.

    `document` is the resolved config; `check_jets` are the raw branches of a few jets.
    """
    networks = tagger.networks or tuple(Network(number) for number in range(len(tagger.members)))
    weights = {
        f"{network.name}/{name}": tensor.detach().cpu().contiguous().clone()
        for network, model in zip(networks, tagger.members, strict=True)
        for name, tensor in model.state_dict().items()
    }
    expected = _replayed(tagger, check_jets, where="check jets")
    with directory_written_aside(directory) as aside:
        save_file(weights, aside / "weights.safetensors")
        (aside / "config.yaml").write_text(yaml_source.write(dict(document)), encoding="utf-8")
        form, _, buffers = ak.to_buffers(ak.Array({name: ak.Array(x) for name, x in check_jets.items()}))
        length = len(next(iter(check_jets.values())))
        stored = {"form": form.to_json(), "length": length, "scores": expected, **buffers}
        if tagger.folds:  # few jets meet few of the networks
            stored["scores_of_all"] = _replayed(tagger.mean_over_folds(), check_jets, where="check jets")
        np.savez(aside / "check_jets.npz", **stored)
        files = {name: sha256(aside / name) for name in FILES}
        card = {
            **tagger.card,
            "format": FORMAT,
            "members": len({network.member for network in networks}),
            "networks": [network._asdict() for network in networks],
            "sha256": files,
        }
        write_json(aside / "card.json", card)
    return load(directory)


def load(path: str | Path, *, device: str = "cpu", replay: bool = True) -> Tagger:
    """The tagger of a bundle, or of the run directory that holds one.

    Raises JettaggerError when a file is missing or was changed, or when the check jets score differently here.
    """
    directory = _bundle_of(Path(path))
    place = _device(device)
    card = _read_card(directory)
    for name, expected in card["sha256"].items():
        if not (directory / name).is_file():
            raise JettaggerError(f"{directory}: {name} is missing from the bundle")
        if sha256(directory / name) != expected:
            raise JettaggerError(
                f"{directory / name} was changed after the bundle was written (its SHA-256 is not that of card.json)"
            )
    document = yaml_source.read(directory / "config.yaml").content
    config = DataConfig.model_validate(
        {name: document[name] for name in DataConfig.model_fields if name in document}
    )
    weights = load_file(directory / "weights.safetensors", device=device)
    loss = ClassLossSection.model_validate(document.get("training", {}).get("loss", {}))
    networks = _networks(card)
    members = tuple(_member(document["model"], loss, config, weights, one.name, device) for one in networks)
    tagger = Tagger(config, members, card, place, networks)
    if replay:
        _replay(directory, tagger)
    return tagger


def _bundle_of(path: Path) -> Path:
    if (path / "card.json").is_file():
        return path
    if (path / "tagger" / "card.json").is_file():
        return path / "tagger"
    if not path.exists():
        raise JettaggerError(f"no such bundle or run: {path}")
    unfinished = " (its training has not ended)" if (path / "config.yaml").is_file() else ""
    raise JettaggerError(f"{path} holds no tagger: there is no card.json in it{unfinished}")


def _device(name: str) -> torch.device:
    """The device of that name. Raises JettaggerError for what there is not, or not here."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise unknown_name("device", name, ["cpu", "cuda", "cuda:N"])
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise JettaggerError(
            f"device {name} asked for, but PyTorch sees {torch.cuda.device_count()} CUDA devices"
        )
    return device


def _read_card(directory: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads((directory / "card.json").read_text(encoding="utf-8"))
        found = card["format"]
        if found in READABLE:
            for name in FILES:
                card["sha256"][name]
            _networks(card)
    except (ValueError, KeyError, TypeError) as error:
        raise JettaggerError(
            f"{directory / 'card.json'} is damaged ({type(error).__name__}: {error})"
        ) from error
    if found not in READABLE:
        raise JettaggerError(
            f"{directory}: a bundle of format {found}, this version reads {' and '.join(map(str, READABLE))}"
        )
    return card


def _networks(card: Mapping[str, Any]) -> tuple[Network, ...]:
    if card["format"] == 1:
        return tuple(Network(number) for number in range(card["members"]))
    return tuple(Network(**one) for one in card["networks"])


def _member(
    section: Mapping[str, Any],
    loss: ClassLossSection,
    config: DataConfig,
    weights: Mapping[str, torch.Tensor],
    name: str,
    device: str,
) -> JetModel:
    model_config = models.config_class(section["architecture"]).model_validate(section)
    outputs = describe(
        tuple(config.classes), loss, {name: (one.loss, one.weight) for name, one in config.targets.items()}
    )
    model = models.build(model_config, Columns(config).spec, outputs, torch_generator(0, "unused"))
    prefix = f"{name}/"
    model.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return model.to(device).eval()


def _replay(directory: Path, tagger: Tagger) -> None:
    with np.load(directory / "check_jets.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    form, length, expected = str(arrays.pop("form")), int(arrays.pop("length")), arrays.pop("scores")
    of_all = arrays.pop("scores_of_all", None)
    jets = ak.from_buffers(ak.forms.from_json(form), length, arrays)
    gap = _gap(tagger, jets, expected, directory)
    if of_all is not None:
        gap = max(gap, _gap(tagger.mean_over_folds(), jets, of_all, directory))
    if not gap <= TOLERANCE:
        raise JettaggerError(
            f"{directory}: the stored check jets score differently here, by up to {gap:.2g} "
            f"(written with {tagger.card.get('versions')}); the tagger cannot be trusted on this machine"
        )


def _replayed(tagger: Tagger, jets: Mapping[str, Any], *, where: str) -> NDArray[np.float64]:
    """(J, C + T): probabilities, and the targets in units of their spread in the training."""
    columns = tagger.score(jets, where=where)
    found = [columns[name] for name in tagger.classes]
    if tagger.targets:
        first = tagger.members[0]
        shifts, scales = first.target_shift.tolist(), first.target_scale.tolist()
        for name, shift, scale in zip(tagger.targets, shifts, scales, strict=True):
            found.append((columns[name] - shift) / scale)
    return np.stack(found, axis=1)


def _add_estimates(
    regression: Mapping[str, TargetAccumulator], raw_BK: torch.Tensor, model: JetModel
) -> None:
    for name, estimate in estimates_of(raw_BK, model).items():
        regression[name].add(estimate)


def _gap(tagger: Tagger, jets: ak.Array, expected_JC: NDArray[np.float64], directory: Path) -> float:
    """The largest distance from the expected scores."""
    found_JC = _replayed(tagger, {name: jets[name] for name in jets.fields}, where=str(directory))
    return float(np.abs(found_JC - expected_JC).max()) if len(expected_JC) else 0.0


def _put_back(parts: Sequence[Scores], rows: Sequence[NDArray[np.int64]]) -> Scores:
    """Scores of jets that were scored in several parts, in the order of the jets."""
    back_J = np.argsort(np.concatenate(rows), kind="stable")
    whole = _one_after_the_other([part.decomposition for part in parts])
    ordered = {name: values[back_J] for name, values in whole._asdict().items() if name != "samples"}
    # A fold may lack a member that failed: its spread is that of the others.
    fewest = min(part.decomposition.samples for part in parts)
    members = [part.members_MJC[:fewest] for part in parts if part.members_MJC is not None]
    return Scores(
        Decomposition(**ordered, samples=fewest),
        np.concatenate(members, axis=1)[:, back_J] if members else None,
        {name: joined([part.targets[name] for part in parts]).at(back_J) for name in parts[0].targets},
    )


def _listed(folds: Sequence[int]) -> str:
    return f"folds {', '.join(map(str, folds))}" if folds else "no folds"


def _one_after_the_other(parts: Sequence[Decomposition]) -> Decomposition:
    """The decompositions of batches as that of all their jets."""

    def joined(field: str) -> NDArray[np.float64]:
        return np.concatenate([getattr(part, field) for part in parts])

    return Decomposition(
        probabilities_NC=joined("probabilities_NC"),
        std_NC=joined("std_NC"),
        total_entropy_N=joined("total_entropy_N"),
        expected_entropy_N=joined("expected_entropy_N"),
        mutual_information_N=joined("mutual_information_N"),
        samples=parts[0].samples,
    )


def _sliced(raw: RawInputs, rows_J: NDArray[np.int64]) -> Iterator[Inputs]:
    offsets = offsets_of(raw)
    for start in range(0, len(rows_J), BATCH):
        yield take(raw, offsets, rows_J[start : start + BATCH])


def _is_list_of_paths(jets: Any) -> bool:
    return isinstance(jets, (list, tuple)) and bool(jets) and all(isinstance(x, (str, Path)) for x in jets)


def _branches(jets: Any) -> dict[str, Any]:
    """The named arrays in what the user gave, all of one length."""
    if isinstance(jets, ak.Array) and jets.fields:
        return {name: jets[name] for name in jets.fields}
    if isinstance(jets, np.ndarray) and jets.dtype.names:
        return {name: jets[name] for name in jets.dtype.names}
    if isinstance(jets, Mapping) and jets:
        if scalars := [name for name, x in jets.items() if np.isscalar(x) or x is None]:
            raise JettaggerError(
                f"predict: {scalars[0]} is a {type(jets[scalars[0]]).__name__}, not an array"
            )
        branches = {str(name): x if isinstance(x, np.ndarray) else ak.Array(x) for name, x in jets.items()}
        lengths = {name: len(x) for name, x in branches.items()}
        if len(set(lengths.values())) > 1:
            raise JettaggerError(f"predict: the arrays have different numbers of jets: {lengths}")
        return branches
    raise JettaggerError(
        f"predict: cannot take jets from {type(jets).__name__}: give an awkward record array, a dict of arrays, "
        "a structured NumPy array, or the path of a ROOT file"
    )


def _joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
