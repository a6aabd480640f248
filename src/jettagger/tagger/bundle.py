"""The folder in which a tagger is saved, checked and loaded again.

Shapes: J jets, C classes, T targets.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from jettagger import models, yaml_source
from jettagger.data.columns import Columns
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError, unknown_name
from jettagger.files import directory_written_aside, sha256, write_json
from jettagger.models.parts.model import JetModel
from jettagger.outputs.description import describe
from jettagger.outputs.schema import ClassLossSection
from jettagger.randomness import torch_generator
from jettagger.tagger.networks import Network
from jettagger.tagger.tagger import Tagger

FORMAT = 2
READABLE = (1, 2)
"""1: its networks are members 0, 1, …; there is no fold among them, though one may have been held out of all."""
FILES = ("weights.safetensors", "config.yaml", "check_jets.npz")
"""What the card holds checksums of."""
CHECK_JETS = 16
TOLERANCE = 1.0e-4
"""How far a replayed probability may be off: processors round float32 sums differently."""


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


def _gap(tagger: Tagger, jets: ak.Array, expected_JC: NDArray[np.float64], directory: Path) -> float:
    """The largest distance from the expected scores."""
    found_JC = _replayed(tagger, {name: jets[name] for name in jets.fields}, where=str(directory))
    return float(np.abs(found_JC - expected_JC).max()) if len(expected_JC) else 0.0
