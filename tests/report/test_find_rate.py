"""`jettagger find-lr`: what it says, and what it writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_scan_and_figure(toy_folder: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    output = tmp_path / "scan"
    options = ["--set", "training.batch_size=32", "--output", output, "--steps", 60, "--lowest", 1e-5]
    found = command("find-lr", toy_folder / "config.yaml", *options)
    assert (found.status, found.error) == (0, "")
    document = json.loads((output / "lr_finder.json").read_text())
    assert document["kind"] == "rising"
    assert document["batch_size"] == 32
    assert document["optimiser"]["name"] == "adamw"
    assert len(document["rates"]) == len(document["losses"]) == len(document["smoothed"]) == document["steps"]
    assert document["rates"][0] == pytest.approx(1e-5)
    assert document["ended"] in found.out
    assert document["reason"] in found.out
    assert (output / "figures" / "lr_finder.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "figures" / "lr_finder.pdf").read_bytes().startswith(b"%PDF")
    assert sorted(path.name for path in output.iterdir()) == ["figures", "lr_finder.json"]


def test_side_by_side_and_a_scaled_rate(
    toy_folder: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    output = tmp_path / "scan"
    scaled = "training.lr_scaling={name: linear, reference: 16}"
    options = ["--set", "training.batch_size=32", "--set", scaled, "--output", output, "--steps", 30]
    found = command("find-lr", toy_folder / "config.yaml", *options, "--side-by-side", 3, "--highest", 0.1)
    assert (found.status, found.error) == (0, "")
    document = json.loads((output / "lr_finder.json").read_text())
    assert document["kind"] == "side by side"
    assert len(document["rates"]) == 3
    assert document["suggested_rate"] in document["rates"]
    assert document["suggested_lr"] == pytest.approx(document["suggested_rate"] / 2)
    assert f"optimiser.lr: {document['suggested_lr']:.2g}, since the smoothed loss ended" in found.out


def test_mistakes(toy_folder: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    config = toy_folder / "config.yaml"
    found = command("find-lr", config, "--output", tmp_path / "x", "--lowest", 2, "--highest", 1)
    assert found.status == 2
    assert "--lowest 2 --highest 1: rates must be above 0 and rise" in found.error
    (tmp_path / "file").write_text("")
    found = command("find-lr", config, "--output", tmp_path / "file")
    assert found.status == 2
    assert "is a file; what is found goes into a folder" in found.error
    for copies in (0, -2, 1):  # before any file is looked for
        missing = ("--set", "data.train.qcd=/nowhere.root", "--side-by-side", copies)
        found = command("find-lr", config, "--output", tmp_path / "x", *missing)
        assert found.status == 2
        assert f"--side-by-side {copies}: two rates at least can be compared, write 2 or more" in found.error
    assert not (tmp_path / "x").exists()
