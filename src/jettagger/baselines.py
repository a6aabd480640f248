"""What a network has to beat: a cut on jet variables, and gradient-boosted trees on the same inputs.

The trees are fitted by scikit-learn and kept as plain arrays, so that loading them runs no code.

Shapes: J jets, F features, C classes, T trees.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from jettagger.data.expression_text import ExpressionText, Name
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError
from jettagger.files import written_aside
from jettagger.schema import Section

if TYPE_CHECKING:  # torch stays out of whoever only reads the config
    from jettagger.data.prepared import Prepared

FORMAT = 1


class CutSection(Section):
    """A window and a discriminant: the tagger of the days before networks."""

    signal: Name
    """The class that the cut selects."""
    discriminant: ExpressionText
    """Larger is more like the signal, for example -jet_tau3 / jet_tau2."""
    window: ExpressionText | None = None
    """Jets outside are ranked below all jets inside, for example (jet_sdmass > 105) & (jet_sdmass < 210)."""


class BoostedTreesSection(Section):
    """scikit-learn's HistGradientBoostingClassifier on the features of inputs.jet."""

    iterations: Annotated[int, Field(ge=1)] = 300
    """Boosting steps; for more than two classes each has a tree a class."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.06
    """Weight of each tree."""
    leaves: Annotated[int, Field(ge=2)] = 31
    """The most leaves of a tree."""
    jets_in_leaf: Annotated[int, Field(ge=1)] = 20
    """The fewest training jets of a leaf."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """L2 regularisation of the leaves."""


class BaselinesSection(Section):
    """Simple taggers that are fitted and reported beside the network."""

    cut: CutSection | None = None
    """A cut on jet variables."""
    boosted_trees: BoostedTreesSection | None = None
    """Gradient-boosted trees on the features of inputs.jet."""


def check(section: BaselinesSection, data: DataConfig) -> list[tuple[str, str]]:
    """What of `section` does not fit the data: pairs of key and problem."""
    problems = []
    if section.cut is not None and section.cut.signal not in data.classes:
        allowed = ", ".join(data.classes)
        problems.append(
            ("baselines.cut.signal", f"'{section.cut.signal}' is not in classes (allowed: {allowed})")
        )
    if section.boosted_trees is not None and not data.classes:
        problems.append(("baselines.boosted_trees", "trees tell classes apart, and there are none"))
    elif section.boosted_trees is not None and "jet" not in data.inputs:
        problems.append(
            ("baselines.boosted_trees", "trees need jet-level variables: add inputs.jet.features")
        )
    return problems


def expressions(section: BaselinesSection) -> dict[str, str | int | float]:
    """What the prepared dataset has to hold for the baselines."""
    if section.cut is None:
        return {}
    window = section.cut.window
    found: dict[str, str | int | float] = {"baselines.cut.discriminant": section.cut.discriminant}
    if window is not None:
        found["baselines.cut.window"] = window
    return found


def cut_scores(extras: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Score of each jet, (J,): the discriminant inside the window, and below all of those outside it.

    A discriminant that is not finite (0/0 for too few particles) counts as the lowest.
    """
    values_J = extras["baselines.cut.discriminant"]
    finite_J = np.isfinite(values_J)
    lowest, highest = (values_J[finite_J].min(), values_J[finite_J].max()) if finite_J.any() else (0.0, 0.0)
    values_J = np.where(finite_J, values_J, lowest)
    inside_J = extras.get("baselines.cut.window", np.ones(len(values_J))) > 0
    return np.where(inside_J, values_J, values_J - (highest - lowest + 1.0))


class BoostedTrees(NamedTuple):
    """Fitted trees as arrays; node n of tree t is at `first[t] + n`."""

    features: tuple[str, ...]
    classes: tuple[str, ...]
    offset: NDArray[np.float64]
    """Raw score before the first tree, one an output (one for two classes, else C)."""
    first: NDArray[np.int64]
    """T; trees of all outputs of an iteration follow each other."""
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    missing_left: NDArray[np.bool_]
    leaf: NDArray[np.bool_]
    value: NDArray[np.float64]

    def probabilities(self, features_JF: NDArray[np.float32]) -> NDArray[np.float64]:
        """Class probabilities, (J, C); NaN is a value that trees know how to treat, ±inf likewise."""
        raw_JO = np.tile(self.offset, (len(features_JF), 1))
        outputs = len(self.offset)
        for tree in range(len(self.first)):
            raw_JO[:, tree % outputs] += self._leaf_values(tree, features_JF)
        if outputs == 1:
            signal_J = 1.0 / (1.0 + np.exp(-raw_JO[:, 0]))
            return np.stack([1.0 - signal_J, signal_J], axis=1)
        exponential_JC = np.exp(raw_JO - raw_JO.max(1, keepdims=True))
        return np.asarray(exponential_JC / exponential_JC.sum(1, keepdims=True))

    def _leaf_values(self, tree: int, features_JF: NDArray[np.float32]) -> NDArray[np.float64]:
        node_J = np.full(len(features_JF), self.first[tree])
        open_J = np.flatnonzero(~self.leaf[node_J])
        while open_J.size:
            node = node_J[open_J]
            x = features_JF[open_J, self.feature[node]].astype(np.float64)
            left = np.where(np.isnan(x), self.missing_left[node], x <= self.threshold[node])
            node_J[open_J] = self.first[tree] + np.where(left, self.left[node], self.right[node])
            open_J = open_J[~self.leaf[node_J[open_J]]]
        values_J: NDArray[np.float64] = self.value[node_J]
        return values_J

    def save(self, path: Path) -> None:
        """Writes an `.npz` file, whole or not at all."""
        with written_aside(path) as aside:
            np.savez(aside, format=FORMAT, **self._asdict())


def load_trees(path: Path) -> BoostedTrees:
    """Trees that were saved before. Raises JettaggerError for another format."""
    with np.load(path, allow_pickle=False) as arrays:
        if int(arrays["format"]) != FORMAT:
            raise JettaggerError(f"{path}: trees of format {arrays['format']}, this version reads {FORMAT}")
        fields = {name: arrays[name] for name in BoostedTrees._fields}
    fields["features"] = tuple(str(name) for name in fields["features"])
    fields["classes"] = tuple(str(name) for name in fields["classes"])
    return BoostedTrees(**fields)


def check_tree_weights(weights_R: NDArray[np.float32]) -> None:
    """Raises JettaggerError for training weights that trees cannot be fitted to."""
    if (weights_R < 0).any():
        raise JettaggerError("baselines.boosted_trees: trees cannot be fitted to negative event weights")


def fit_trees(
    section: BoostedTreesSection,
    prepared: "Prepared",
    rows_R: NDArray[np.int64],
    weights_R: NDArray[np.float32],
    *,
    seed: int,
) -> BoostedTrees:
    """Trees fitted to the jets `rows_R`, with their training weights."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    check_tree_weights(weights_R)
    features_RF = jet_features(prepared, rows_R)
    model = HistGradientBoostingClassifier(
        max_iter=section.iterations,
        learning_rate=section.learning_rate,
        max_leaf_nodes=section.leaves,
        min_samples_leaf=section.jets_in_leaf,
        l2_regularization=section.l2,
        early_stopping=False,
        random_state=seed % 2**32,
    )
    model.fit(features_RF, prepared.labels_J[rows_R], sample_weight=weights_R)
    trees = _as_arrays(model, prepared)
    few = features_RF[:1000]
    gap = np.abs(trees.probabilities(few) - model.predict_proba(few)).max()
    if gap > 1e-6:
        raise JettaggerError(
            f"baselines.boosted_trees: the stored trees differ from scikit-learn's by {gap:.1g}; "
            "this version of scikit-learn is not supported"
        )
    return trees


def jet_features(prepared: "Prepared", rows_R: NDArray[np.int64]) -> NDArray[np.float32]:
    """The jet-level features of jets `rows_R`, which ascend, (R, F)."""
    from jettagger.batch import InputSpec

    features_RF = prepared.read(rows_R, InputSpec(jet=prepared.spec.jet)).jet_JF
    assert features_RF is not None
    return features_RF


def _as_arrays(model: Any, prepared: "Prepared") -> BoostedTrees:
    trees = [tree.nodes for iteration in model._predictors for tree in iteration]
    sizes = [len(nodes) for nodes in trees]
    nodes = np.concatenate(trees)
    return BoostedTrees(
        features=tuple(feature.name for feature in prepared.spec.jet),
        classes=prepared.classes,
        offset=np.asarray(model._baseline_prediction, np.float64).reshape(-1),
        first=np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64),
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        missing_left=nodes["missing_go_to_left"].astype(bool),
        leaf=nodes["is_leaf"].astype(bool),
        value=nodes["value"].astype(np.float64),
    )
