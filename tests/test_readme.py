"""The README's code blocks, executed as they stand there, one after the other, beside nothing but configs/."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M)


def test_every_block_is_either_executed_or_a_make_target():
    assert {language for language, _ in BLOCKS} == {"bash", "python", "text"}
    (text,) = (block for language, block in BLOCKS if language == "text")
    commands = [line.split("#")[0].split() for line in text.splitlines()]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for make, target in commands:
        assert make == "make"
        assert re.search(rf"^{target}:", makefile, re.M)


def test_links_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (ROOT / target).exists(), target


@pytest.mark.slow
def test_the_tour_runs(tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    scripts = tmp_path / "bin"
    scripts.mkdir()
    command = scripts / "jettagger"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jettagger "$@"\n')
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{scripts}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
    }
    for language, block in BLOCKS:
        if language == "text":
            continue
        run = (
            ["bash", "-euo", "pipefail", "-c", block] if language == "bash" else [sys.executable, "-c", block]
        )
        done = subprocess.run(
            run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "runs" / "comparison" / "report.html").stat().st_size > 100_000
    assert (tmp_path / "scores.root").is_file()
