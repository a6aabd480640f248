"""`report.json` keeps its keys and holds plain numbers; the table rounds as physicists do."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from jettagger.evaluation.comparison import compare
from jettagger.evaluation.document import to_json
from jettagger.evaluation.schema import EvaluationSection
from jettagger.evaluation.table import format_measurement, format_rejection, format_table
from jettagger.metrics import Measurement, Rejection

RUN_KEYS = {
    *("name", "group", "seed", "evaluated", "classes", "n_jets", "n_jets_of_class", "n_effective", "members"),
    *(
        "n_parameters",
        "training_seconds",
        "cost",
        "accuracy",
        "accuracy_error",
        "auc",
        "auc_error",
        "nll",
        "nll_error",
    ),
    *("brier", "brier_error", "ece", "ece_error", "adaptive_ece", "adaptive_ece_error", "classwise_ece"),
    *("classwise_ece_error", "signal_ece", "signal_ece_error", "ece_floor", "rejection", "rejection_error"),
    *("rejection_lower_limit", "threshold", "signal_efficiency", "pair_auc", "pair_auc_error", "confusion"),
    *("confusion_error", "uncertainty", "member_spread", "mass_sculpting", "bootstrap_error", "training"),
    *("targets", "notes"),
}


def test_keys_are_pinned(make_predictions, make_cut):
    runs = [make_cut(), *(make_predictions(f"net {k}", group="net") for k in range(2))]
    document = to_json(compare(runs, EvaluationSection(bootstrap=20)))
    assert set(document) == {"format", "jettagger", "runs", "differences", "seeds", "settings", "notes"}
    cut, net, _ = document["runs"]
    assert set(cut) == set(net) == RUN_KEYS
    assert set(net["rejection"]) == {"Top_vs_QCD"}
    assert set(net["rejection"]["Top_vs_QCD"]) == {"0.3", "0.5", "0.8"}
    assert net["rejection"].keys() == net["rejection_error"].keys()
    assert (cut["nll"], cut["nll_error"], cut["accuracy"], cut["confusion"]) == (None,) * 4
    assert net["confusion"]["Top"].keys() == {"QCD", "Top"}
    (difference,) = document["differences"]
    assert set(difference) == {
        *("name", "reference", "auc", "auc_error", "log_rejection_ratio", "log_rejection_ratio_error"),
        "seed_error",
    }
    (seeds,) = document["seeds"]
    assert set(seeds["figures"]["auc"]) == {"values", "mean", "std", "median", "half_68", "min", "max"}


def test_every_key_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    ticked = set(re.findall("`[^`]+`", text))
    missing = [key for key in RUN_KEYS if not {f"`{key}`", f"`{key.removesuffix('_error')}`"} & ticked]
    assert missing == []


def test_numbers_are_plain_and_never_infinite(make_predictions):
    perfect = make_predictions(noise=0.0, jets=50, members=1)
    p_NC = np.eye(2)[perfect.labels_N]
    perfect.decomposition.probabilities_NC[:] = p_NC
    document = to_json(compare([perfect], EvaluationSection(bootstrap=10)))
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text) == document
    (run,) = document["runs"]
    assert run["rejection"]["Top_vs_QCD"]["0.5"] is None
    assert run["rejection_lower_limit"]["Top_vs_QCD"]["0.5"] > 1


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.991299, 0.000581, "0.99130 ± 0.00058"),
        (1455.3, 382.0, "1460 ± 380"),
        (38.01, 2.29, "38.0 ± 2.3"),
        (0.5, 0.0996, "0.50 ± 0.10"),
        (9.96, 9.96, "10 ± 10"),
        (364.0, 69.4, "364 ± 69"),
        (0.25, np.nan, "0.25"),
        (0.25, 0.0, "0.25"),
        (np.nan, 1.0, "–"),
    ],
)
def test_figures_are_rounded_to_two_digits_of_the_error(value, error, text):
    assert format_measurement(Measurement(value, error)) == text


def test_signs_and_limits():
    assert format_measurement(Measurement(0.0012, 0.00034), signed=True) == "+0.00120 ± 0.00034"
    assert format_measurement(None) == "–"
    assert format_rejection(Rejection(None, None, 8874.2, 0.9, 0.3, 0.0)) == "> 8900"


def test_the_table_is_aligned(make_predictions, make_cut):
    results = compare([make_cut(), make_predictions("a longer name")], EvaluationSection(bootstrap=0)).results
    lines = format_table(results).splitlines()
    assert lines[0].split() == [
        "run",
        "accuracy",
        "AUC",
        "R(0.3)",
        "R(0.5)",
        "R(0.8)",
        "NLL",
        "Brier",
        "ECE",
        "jets",
    ]
    assert len({len(line) for line in lines}) == 1
    assert set(lines[1]) == {"-", " "}
    assert "**" not in format_table(results)


def test_the_table_says_which_pair_of_many_it_is_of(make_predictions):
    run = make_predictions(classes=("QCD", "W", "Top"), members=1)
    results = compare([run], EvaluationSection(bootstrap=0)).results
    assert results[0].headline.name == "Top_vs_QCD"
    assert format_table(results).splitlines()[-1] == "R: Top against QCD"
