"""The `Tagger`: preprocessing, networks and calibration in one folder that an analysis loads.

    tagger = jettagger.load("runs/particle_cnn/tagger")
    scores = tagger.predict(jets)                  # awkward records, a dict of arrays, NumPy, or a ROOT file
    scores.Top, scores.std.Top, scores.mutual_information

Where a training had folds (`data.folds`), the bundle holds the networks of all of them, and each jet is scored by
those of the fold that its event number puts it in: they never saw it.

A bundle holds `config.yaml`, `weights.safetensors` (all members), `card.json` and `check_jets.npz`: a few raw
jets with the scores they had when it was written, which loading replays. No part of it is code.
"""

from jettagger.tagger.bundle import CHECK_JETS, load, save
from jettagger.tagger.networks import Network, Scores
from jettagger.tagger.tagger import BATCH, Scored, Tagger

__all__ = ["BATCH", "CHECK_JETS", "Network", "Scored", "Scores", "Tagger", "load", "save"]
