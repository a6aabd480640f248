"""Plans for tests, without a config behind them."""

from pathlib import Path
from typing import Any

from jettagger.cluster.plan import Plan, Trained, make_plan
from jettagger.cluster.schema import ClusterSection


def plan(run: Path, *, members: int = 1, folds: int = 0, tested: bool = True, **section: Any) -> Plan:
    """The jobs of one run; keywords are those of the section `cluster`."""
    trained = Trained(run, run / "jobs" / "config.yaml", folds, members, "", tested)
    parsed = ClusterSection.model_validate(section)
    return make_plan(run, parsed, [trained], folder=run.parent, sweep=False)
