"""Temperature scaling (arXiv:1706.04599): logits / T, T fitted on validation jets. Rankings do not change.

Shapes: N jets, C classes.
"""

import numpy as np
from numpy.typing import NDArray

from jettagger.uncertainty.decomposition import Floats

COLDEST, HOTTEST = 1e-3, 1e3
"""Bounds of T, reached where labels and logits say nothing of each other, or everything."""


def fit_temperature(
    logits_NC: NDArray[np.floating],
    labels_N: NDArray[np.int64],
    weights_N: NDArray[np.floating] | None = None,
) -> float:
    """The T > 0 that minimises -sum w ln softmax(logits / T)[label].

    Event weights may be negative; labels -1 are left out. In 1/T the loss is convex for positive weights, so
    the root of its derivative, sum w (E_p[z] - z_label), is bracketed and bisected in ln T.
    """
    known_N = labels_N >= 0
    z_NC = np.asarray(logits_NC, np.float64)[known_N]
    w_N = np.ones(len(z_NC)) if weights_N is None else np.asarray(weights_N, np.float64)[known_N]
    z_label_N = z_NC[np.arange(len(z_NC)), labels_N[known_N]]
    if len(z_NC) == 0 or not np.isfinite(z_NC).all():
        raise ValueError("temperature scaling needs finite logits of labelled jets")

    def too_cold(temperature: float) -> bool:
        expected_N = (scaled_probabilities(z_NC, temperature) * z_NC).sum(1)
        return bool(w_N @ (expected_N - z_label_N) > 0)

    low, high = np.log(COLDEST), np.log(HOTTEST)
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if too_cold(float(np.exp(middle))) else (low, middle)
    return float(np.exp((low + high) / 2))


def scaled_probabilities(logits_NC: NDArray[np.floating], temperature: float) -> Floats:
    """softmax(logits / T), (N, C); ln p of an ensemble's mean serves as logits as well."""
    z_NC = np.asarray(logits_NC, np.float64) / temperature
    p_NC = np.exp(z_NC - z_NC.max(-1, keepdims=True))
    scaled: Floats = p_NC / p_NC.sum(-1, keepdims=True)
    return scaled
