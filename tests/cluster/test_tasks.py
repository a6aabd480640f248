"""The commands of the jobs, one after the other on this machine: folds and members apart, merged, evaluated."""

import json

import pytest

from jettagger import configuration
from jettagger.cluster.plan import Trained, make_plan
from jettagger.cluster.status import status_of


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["[folds, members]", "[members]"])
def test_all_tasks_together_make_the_run(command, toy_folder, tmp_path, jobs):
    run, config = tmp_path / "run", tmp_path / "config.yaml"
    overrides = [
        *(
            "data.folds={k: 2}",
            "ensemble.members=2",
            "training.epochs=1",
            "training.threads=1",
        ),
        *("evaluation.bootstrap=0", f"cluster={{jobs: {jobs}, cpus: 1}}"),
    ]
    resolved = configuration.resolver(toy_folder / "config.yaml", overrides)([])
    config.write_text(resolved.yaml)
    trained = Trained(run, config, resolved.folds, resolved.members, resolved.prepared, resolved.tested)
    plan = make_plan(run, resolved.cluster, [trained], folder=tmp_path, sweep=False)
    assert [job.name for job in plan.jobs] == ["prepare", "train", "merge", "evaluate"]
    for job in plan.jobs:
        for task in job.tasks:
            done = command(*task.arguments)
            assert done.status == 0, f"{task.arguments}: {done.error}"
    (one,) = status_of(run).runs
    assert [(member.fold, member.member, member.state) for member in one.members] == [
        (fold, member, "done") for fold in range(2) for member in range(2)
    ]
    assert one.tagger
    assert json.loads((run / "report" / "report.json").read_text())["runs"]
