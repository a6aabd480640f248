"""Training with weaver-core's own loop and in-memory loader: run by the interpreter that weaver-core is installed in.

`training.py` starts it. ParticleNet is weaver's; P-CNN and PFN are written down here from their publication
(arXiv:2202.03772). Nothing of jettagger is imported.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader
from weaver.nn.model.ParticleNet import ParticleNet
from weaver.utils.dataset import SimpleIterDataset
from weaver.utils.nn.tools import train_classification

from measuring.stopwatch import measured

FEATURES, CLASSES = 17, 2
RATE = 1e-3
NEIGHBOURS = 16


class Unit(nn.Module):
    """Two convolutions with batch norm and ReLU; the shortcut is added after the last ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(inputs, outputs, 3, stride, 1),
            nn.BatchNorm1d(outputs),
            nn.ReLU(),
            nn.Conv1d(outputs, outputs, 3, 1, 1),
            nn.BatchNorm1d(outputs),
            nn.ReLU(),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv1d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x_BFP: Tensor) -> Tensor:
        return self.layers(x_BFP) + self.shortcut(x_BFP)


class PCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = [(32, 64, 1), (64, 64, 1), (64, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        first = [nn.BatchNorm1d(FEATURES), nn.Conv1d(FEATURES, 32, 3, 1, 1), nn.BatchNorm1d(32), nn.ReLU()]
        self.particles = nn.Sequential(*first, *(Unit(*size) for size in sizes))
        dense = [nn.Linear(128, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, CLASSES)]
        self.dense = nn.Sequential(*dense)

    def forward(self, points_B2P: Tensor, features_BFP: Tensor, mask_B1P: Tensor) -> Tensor:
        return self.dense(self.particles(features_BFP * mask_B1P).mean(-1))


class PFN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = [FEATURES, 128, 128, 128]
        convolutions = [nn.Conv1d(*pair, 1) for pair in pairwise(sizes)]
        self.particles = nn.Sequential(*(layer for conv in convolutions for layer in (conv, nn.ReLU())))
        linear = [layer for _ in range(3) for layer in (nn.Linear(128, 128), nn.ReLU())]
        self.dense = nn.Sequential(*linear, nn.Linear(128, CLASSES))

    def forward(self, points_B2P: Tensor, features_BFP: Tensor, mask_B1P: Tensor) -> Tensor:
        return self.dense((self.particles(features_BFP * mask_B1P) * mask_B1P).sum(-1))


class Net(nn.Module):
    """weaver's ParticleNet as its examples wrap it."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [(NEIGHBOURS, (width,) * 3) for width in (64, 128, 256)]
        self.net = ParticleNet(FEATURES, CLASSES, blocks, [(256, 0.1)], use_fusion=False)

    def forward(self, points_B2P: Tensor, features_BFP: Tensor, mask_B1P: Tensor) -> Tensor:
        return self.net(points_B2P, features_BFP, mask_B1P.bool())


NETWORKS = {"p_cnn": PCNN, "particle_net": Net, "pfn": PFN}


def main() -> None:
    told = json.loads(sys.argv[1])
    torch.set_num_threads(told["threads"])
    torch.manual_seed(1)
    model = NETWORKS[told["network"]]()
    if told["kind"] == "check":
        check(model, told["network"], told["path"])
        return
    loader = loader_of(told)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    settings = {"args": Namespace(use_amp=False, amp_dtype=None)}

    def epoch(number: int, steps: int) -> None:
        train_classification(
            model, nn.CrossEntropyLoss(), optimiser, None, loader, torch.device("cpu"), number,
            steps_per_epoch=steps, extra_args=settings,
        )  # fmt: skip

    epoch(0, max(1, told["steps"] // 3))
    with measured("steps") as figures:
        epoch(1, told["steps"])
        figures["jets"] = told["steps"] * told["batch_size"]


class Going:
    """A loader that goes on where the last epoch has stopped, as weaver's own does not start anew in memory."""

    def __init__(self, loader: DataLoader) -> None:
        self.dataset = loader.dataset
        self.batches = iter(loader)

    def __iter__(self) -> Iterator[object]:
        return self.batches


def loader_of(told: dict) -> Going:
    """As weaver's command makes it with --in-memory; the data are read before anything is timed."""
    config = yaml.safe_load(Path(told["weaver_config"]).read_text())
    points = {"length": 128, "pad_mode": "constant", "vars": [["deta", None], ["dphi", None]]}
    config["inputs"] = {"pf_points": points, **config["inputs"]}
    path = Path(told["weaver_config"]).with_name("weaver_points.yaml")
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    dataset = SimpleIterDataset(
        told["samples"],
        str(path),
        for_training=True,
        in_memory=True,
        infinity_mode=True,
        fetch_step=1,
        batch_size=told["batch_size"],
        name="train",
    )
    return Going(DataLoader(dataset, batch_size=told["batch_size"], num_workers=0, drop_last=True))


def check(model: nn.Module, network: str, path: str) -> None:
    """Tells how far the logits are from jettagger's, with its weights."""
    with np.load(path) as file:
        stored = {name: torch.from_numpy(file[name]) for name in file}
    model.double()
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
    places = [x for m in model.modules() if isinstance(m, layers) for x in m.state_dict().values()]
    weights = [value for name, value in sorted(stored.items()) if name.startswith("weight_")]
    with torch.no_grad():
        for place, value in zip(places, weights, strict=True):
            place.copy_(value.reshape(place.shape))
    mask_B1P = stored["mask"].unsqueeze(1).double()
    given = stored["points"].transpose(1, 2), stored["features"].transpose(1, 2), mask_B1P
    jets_B = mask_B1P.sum((1, 2)) > (NEIGHBOURS if network == "particle_net" else -1)
    gaps = {}
    for mode in ("eval",) if network == "particle_net" else ("eval", "train"):
        model.eval()
        for module in model.modules():
            module.training = mode == "train" and isinstance(module, nn.BatchNorm1d)
        gap_BC = (model(*given) - stored[f"logits_{mode}"]).abs()
        gaps["evaluation" if mode == "eval" else "training"] = float(gap_BC[jets_B].max().detach())
    print(json.dumps({"gaps": gaps, "jets": int(jets_B.sum())}), flush=True)


if __name__ == "__main__":
    main()
