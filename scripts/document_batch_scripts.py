"""Writes the examples scripts/slurm_*.sh and scripts/htcondor.*; with --check, says whether they are current.

They are what `jettagger submit --dry-run` prints, for a user with a folder /home/you/tagging.
"""

import sys
from pathlib import Path
from typing import NamedTuple

from jettagger.cluster import htcondor, slurm
from jettagger.cluster.plan import Plan, Trained, make_plan
from jettagger.cluster.schema import ClusterSection

FOLDER = Path("/home/you/tagging")
HERE = Path(__file__).parent


class Example(NamedTuple):
    """A run for which a script is shown."""

    config: str
    members: int
    section: ClusterSection


SETUP = {"setup": ["source .venv/bin/activate"], "time": "08:00:00"}
SINGLE = Example("particle_cnn", 1, ClusterSection.model_validate({**SETUP, "gpus": 1}))
ARRAY = Example("particle_cnn", 5, ClusterSection.model_validate({**SETUP, "gpus": 1, "at_once": 3}))
NODES = Example("particle_cnn", 1, ClusterSection.model_validate({**SETUP, "gpus": 4, "slurm": {"nodes": 2}}))


def plan_of(example: Example) -> Plan:
    """The jobs of an example."""
    run = FOLDER / "runs" / example.config
    trained = Trained(run, run / "jobs" / "config.yaml", 0, example.members, "", True)
    return make_plan(run, example.section, [trained], folder=FOLDER, sweep=False)


def files() -> dict[Path, str]:
    """The examples as they should be."""
    shown = {}
    for name, example in (("train", SINGLE), ("array", ARRAY), ("multinode", NODES)):
        plan = plan_of(example)
        shown[HERE / f"slurm_{name}.sh"] = slurm.scripts(plan)[plan.scripts / "train.sh"]
    plan = plan_of(ARRAY)
    written = htcondor.scripts(plan)
    for suffix in ("sub", "sh"):
        shown[HERE / f"htcondor.{suffix}"] = written[plan.scripts / f"train.{suffix}"]
    return {path: _headed(text, path.name) for path, text in shown.items()}


def _headed(text: str, name: str) -> str:
    """With a word on what it is, below the line that bash reads."""
    about = "# An example, written by scripts/document_batch_scripts.py: what `jettagger submit --dry-run` prints.\n"
    first, newline, rest = text.partition("\n")
    return f"{first}{newline}{about}{rest}" if first.startswith("#!") else about + text


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        old = [path.name for path, text in files().items() if path.read_text(encoding="utf-8") != text]
        sys.exit(f"not current: {', '.join(old)}; run this script" if old else 0)
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
        if path.suffix == ".sh":
            path.chmod(0o755)
