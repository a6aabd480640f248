"""The first layer of every model: missing -> shift and scale -> clip, in float32.

Shapes: B jets, R rows (jets or particles), F features.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jettagger.batch import Dense, Feature, Inputs, InputSpec, Packed
from jettagger.errors import JettaggerError

LARGEST_SAMPLE = 1_000_000
"""Rows (evenly spaced) on which a feature is measured."""


class FeatureNormalisation(nn.Module):
    """clip((x - shift) / scale), where values that are not finite are replaced first: (..., F) -> (..., F).

    Only elementwise operations on the float32 buffers, which autocast leaves in float32.
    """

    shift_F: Tensor
    scale_F: Tensor
    missing_F: Tensor
    lower_F: Tensor
    upper_F: Tensor

    def __init__(self, features: Sequence[Feature], where: str) -> None:
        super().__init__()
        self.features = tuple(features)
        self.where = where
        """Where the features stand in the YAML, for messages."""
        widest = float(torch.finfo(torch.float32).max)
        clips = [feature.clip or (-widest, widest) for feature in features]
        for name in ("shift_F", "scale_F", "missing_F"):
            self.register_buffer(name, torch.zeros(len(features)))
        self.register_buffer("lower_F", torch.tensor([low for low, _ in clips]))
        self.register_buffer("upper_F", torch.tensor([high for _, high in clips]))
        fixed = [f.normalise if isinstance(f.normalise, tuple) else (0.0, 1.0) for f in features]
        self._store(fixed)

    def forward(self, x: Tensor) -> Tensor:
        """(..., F) -> (..., F) in the buffers' precision."""
        x = x.to(self.shift_F.dtype)
        x = torch.where(torch.isfinite(x), x, self.missing_F)
        x = (x - self.shift_F) / self.scale_F
        return torch.minimum(torch.maximum(x, self.lower_F), self.upper_F)

    def fit(self, x_RF: Tensor) -> list[str]:
        """Measures the features that are normalised automatically; returns warnings."""
        rows_RF = x_RF[:: -(-len(x_RF) // LARGEST_SAMPLE) or 1].double().cpu().numpy()
        pairs, warnings = [], []
        for feature, x_R in zip(self.features, rows_RF.T, strict=True):
            name = f"{self.where}.{feature.name}"
            finite_R = x_R[np.isfinite(x_R)]
            if len(finite_R) == 0:
                warnings.append(f"{name} has no finite value in the training sample")
            elif np.ptp(finite_R) == 0:
                warnings.append(
                    f"{self.where}.{feature.name} is constant ({finite_R[0]:g}) in the training sample"
                )
            if isinstance(feature.normalise, tuple):
                pairs.append(feature.normalise)
            else:
                pairs.append(measure(finite_R) if feature.normalise == "auto" else (0.0, 1.0))
        self._store(pairs)
        return warnings

    def _store(self, pairs: Sequence[tuple[float, float]]) -> None:
        # Through float32 first, so that overflow is seen here and not in a training.
        with np.errstate(over="ignore"):
            values_F2 = np.array(pairs, np.float64).reshape(-1, 2).astype(np.float32)
        for feature, (shift, scale) in zip(self.features, values_F2, strict=True):
            finite = np.isfinite((shift, scale, 0.0 if feature.missing is None else feature.missing)).all()
            if not finite or scale <= 0:
                raise JettaggerError(
                    f"{self.where}.{feature.name}: normalisation has shift {shift:g} and scale {scale:g}; "
                    "both must be finite and the scale above 0: transform the feature or set `normalise`"
                )
        missing = [
            s if f.missing is None else f.missing for f, s in zip(self.features, values_F2[:, 0], strict=True)
        ]
        self.shift_F.copy_(torch.from_numpy(values_F2[:, 0].copy()))
        self.scale_F.copy_(torch.from_numpy(values_F2[:, 1].copy()))
        self.missing_F.copy_(torch.tensor(np.array(missing, np.float32)))


def measure(x_R: NDArray[np.float64]) -> tuple[float, float]:
    """Shift and scale of finite values: median and half the central 68 %; mean and standard deviation where
    that is 0 (flags); scale 1 where all are equal; (0, 1) without values."""
    if len(x_R) == 0:
        return 0.0, 1.0
    low, median, high = np.quantile(x_R, [0.16, 0.5, 0.84])
    if high > low:
        return float(median), float(high - low) / 2
    if np.ptp(x_R) > 0:
        return float(x_R.mean()), float(x_R.std())
    return float(x_R[0]), 1.0


class InputNormalisation(nn.Module):
    """Normalises jet-level features and those of every collection; coordinates stay as they are.

    Slots without a particle come out as 0, whatever finite or infinite value they held.
    """

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.jet = FeatureNormalisation(spec.jet, "inputs.jet.features")
        self.collections = nn.ModuleDict(
            {c.name: FeatureNormalisation(c.features, f"inputs.{c.name}.features") for c in spec.collections}
        )

    def forward(self, inputs: Inputs) -> Inputs:
        """Inputs with the same shapes."""
        collections: dict[str, Packed | Dense] = {}
        for name, layer in self.collections.items():
            x = inputs.collections[name]
            if isinstance(x, Packed):
                collections[name] = x.with_features(layer(x.features_NF))
            else:
                real_BP1 = x.mask_BP.unsqueeze(-1)
                features_BPF = layer(torch.where(real_BP1, x.features_BPF, 0.0))
                coordinates = x.coordinates_BPK
                collections[name] = Dense(
                    torch.where(real_BP1, features_BPF, 0.0),
                    x.mask_BP,
                    None if coordinates is None else torch.where(real_BP1, coordinates, 0.0),
                )
        return replace(inputs, jet_BF=self.jet_features(inputs), collections=collections)

    def jet_features(self, inputs: Inputs) -> Tensor | None:
        """Normalised jet-level features, (B, F), if there are any."""
        if inputs.jet_BF is None or not self.jet.features:
            return None
        x_BF: Tensor = self.jet(inputs.jet_BF)
        return x_BF

    def fit(self, sample: Inputs) -> list[str]:
        """Measures all features on raw training jets (real particles only); returns warnings."""
        warnings = []
        if sample.jet_BF is not None and self.jet.features:
            warnings += self.jet.fit(sample.jet_BF)
        for name, layer in self.collections.items():
            assert isinstance(layer, FeatureNormalisation)
            x = sample.collections[name]
            warnings += layer.fit((x if isinstance(x, Packed) else x.packed()).features_NF)
        return warnings
