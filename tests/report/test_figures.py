"""Every figure is drawn, also where there is little to draw."""

from dataclasses import replace

import numpy as np
import pytest

from jettagger.evaluation.comparison import compare
from jettagger.evaluation.evaluate import evaluate
from jettagger.evaluation.schema import EvaluationSection
from jettagger.report.class_figures import confusion_drawing
from jettagger.report.figures import draw, drawn_pairs
from jettagger.report.style import freeze, hep_style, looks, rendered
from jettagger.report.training_figures import training_drawing

QUICK = EvaluationSection(bootstrap=0)
ALL = ["roc", "significance", "scores", "confusion", "calibration", "pt", "mass", "training"]


def kinds(drawings):
    return [drawing.name.split("_")[0] for drawing in drawings]


def drawn(*runs, settings=QUICK):
    """All figures; their layout is settled in `draw`, so that what only shows when drawn is seen."""
    drawings = draw(compare(runs, settings))
    for drawing in drawings:
        assert drawing.caption.endswith(".")
        assert drawing.title
    assert len({drawing.name for drawing in drawings}) == len(drawings)
    return drawings


def test_an_ensemble_and_a_cut(make_predictions, make_cut):
    drawings = drawn(make_cut(), make_predictions())
    assert kinds(drawings) == [*ALL, "uncertainty", "coverage"]
    roc = drawings[0].caption
    assert "epistemic in ML terms; the lecture's statistical part" in roc
    assert "probability 2/4" in roc
    assert "relative to cut" in roc
    assert "label noise (aleatoric)" in drawings[8].caption


def test_a_single_network(make_predictions):
    drawings = drawn(make_predictions(members=1))
    assert kinds(drawings) == [*ALL, "coverage"]
    assert "Band" not in drawings[0].caption


def test_a_cut_alone(make_cut):
    assert kinds(drawn(make_cut())) == ["roc", "significance", "scores", "pt", "mass"]


def test_three_classes(make_predictions):
    run = make_predictions(classes=("QCD", "W", "Top"), members=1, jets=400, history=(), spectators={})
    assert len(drawn_pairs([evaluate(run)])) == 6
    assert kinds(drawn(run, settings=EvaluationSection(bootstrap=0, signal="Top"))).count("roc") == 2


def test_many_classes_are_drawn_against_the_first(make_predictions):
    run = make_predictions(classes=tuple("ABCDEFGH"), members=1, jets=800)
    assert drawn_pairs([evaluate(run)]) == [f"{name}_vs_A" for name in "BCDEFGH"]


def test_one_jet_of_each_class(make_predictions):
    assert "roc" in kinds(drawn(make_predictions(jets=2, members=2, history=())))


def test_a_perfect_tagger_leaves_no_background(make_predictions):
    run = make_predictions(jets=60, members=1, history=())
    perfect = run.decomposition._replace(probabilities_NC=np.eye(2)[run.labels_N])
    drawings = drawn(replace(run, decomposition=perfect))
    mass = next(drawing for drawing in drawings if drawing.name.startswith("mass"))
    assert "No jet passes the cut." in mass.caption


def test_negative_and_equal_weights(make_predictions):
    weights_N = np.where(np.arange(1500) % 5 == 0, -1.0, 1.0)
    runs = [
        make_predictions(name, weights=one, members=1, history=())
        for name, one in (("negative", weights_N), ("equal", np.full(1500, 0.25)))
    ]
    assert kinds(drawn(*runs))[-1] == "coverage"


def test_without_spectators_or_history(make_predictions):
    drawings = drawn(make_predictions(spectators={}, history=(), members=1))
    assert not {"pt", "mass", "training"} & set(kinds(drawings))


def test_a_history_with_gaps_is_drawn(make_predictions):
    epochs = [
        {"epoch": 1, "train_loss": 0.5, "validation_loss": None},
        {"epoch": 2, "train_loss": float("nan")},
    ]
    with hep_style():
        drawing = training_drawing([evaluate(make_predictions(history=[epochs, []]))], "jettagger")
        freeze(drawing.figure)
    assert drawing.name == "training"


def test_seeds_share_a_colour(make_predictions):
    results = [evaluate(make_predictions(f"net {k}", members=1, group="net")) for k in range(2)]
    results.append(evaluate(make_predictions("other", members=1)))
    look = looks(results)
    assert look["net 0"].colour == look["net 1"].colour != look["other"].colour
    assert look["net 0"].line != look["net 1"].line
    assert len({one.marker for one in look.values()}) == 3


def test_the_same_figure_gives_the_same_bytes(make_predictions):
    results = [evaluate(make_predictions(jets=200, members=1))]
    for suffix in ("svg", "pdf", "png"):
        with hep_style():
            first, second = (confusion_drawing(results, "jettagger") for _ in range(2))
        assert rendered(first.figure, suffix) == rendered(second.figure, suffix)


@pytest.mark.parametrize("label", ["jettagger simulation", "CMS", "My own words"])
def test_the_label_is_the_users(make_predictions, label):
    drawing = confusion_drawing([evaluate(make_predictions(jets=200, members=1))], label)
    first, _, rest = label.partition(" ")
    assert {first, rest} <= {text.get_text() for text in drawing.figure.axes[0].texts}
