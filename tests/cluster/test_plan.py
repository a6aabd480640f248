"""Which jobs there are, and which waits for which."""

from dataclasses import replace
from pathlib import Path

from plans import plan

from jettagger.cluster.plan import Plan, Trained, make_plan
from jettagger.cluster.schema import ClusterSection

RUN = Path("/disk/runs/a")


def shape(plan: Plan) -> list[tuple[str, int, str | None, bool]]:
    return [(job.name, len(job.tasks), job.after, job.whatever) for job in plan.jobs]


def test_one_network_is_one_job():
    assert shape(plan(RUN)) == [("train", 1, None, False), ("evaluate", 1, "train", False)]
    assert shape(plan(RUN, tested=False)) == [("train", 1, None, False)]
    assert shape(plan(RUN, evaluate=False)) == [("train", 1, None, False)]


def test_members_are_an_array_that_is_prepared_for_and_merged():
    jobs = plan(RUN, members=3)
    assert shape(jobs) == [
        ("prepare", 1, None, False),
        ("train", 3, "prepare", False),
        ("merge", 1, "train", True),
        ("evaluate", 1, "merge", False),
    ]
    assert jobs.jobs[1].tasks[2].arguments == (
        *("train", "/disk/runs/a/jobs/config.yaml", "--output", "/disk/runs/a", "--resume"),
        *("--member", "2", "--workers", "4"),
    )
    assert jobs.jobs[2].tasks[0].arguments[-1] == "--merge"


def test_folds_and_members_are_trained_apart_as_asked():
    def trained(**section):
        jobs = plan(RUN, members=2, folds=3, **section)
        (train,) = (job for job in jobs.jobs if job.trains)
        return [(task.fold, task.member) for task in train.tasks]

    assert trained() == [(fold, member) for fold in range(3) for member in range(2)]
    assert trained(jobs=["folds"]) == [(0, None), (1, None), (2, None)]
    assert trained(jobs=["members"]) == [(None, 0), (None, 1)]
    assert trained(jobs=[]) == [(None, None)]


def test_points_of_a_sweep_prepare_each_dataset_once_and_are_not_evaluated():
    runs = [
        Trained(RUN / name, RUN / "jobs" / f"{name}.yaml", 0, 1, prepared, True)
        for name, prepared in (("point_000", "a"), ("point_001", "b"), ("point_002", "a"))
    ]
    jobs = make_plan(RUN, ClusterSection(), runs, folder=RUN, sweep=True)
    assert shape(jobs) == [
        ("prepare", 2, None, False),
        ("train", 3, "prepare", False),
        ("table", 1, "train", True),
    ]
    assert [task.arguments[1] for task in jobs.jobs[0].tasks] == [
        "/disk/runs/a/jobs/point_000.yaml",
        "/disk/runs/a/jobs/point_001.yaml",
    ]
    merged = make_plan(RUN, ClusterSection(), [replace(runs[0], members=2)], folder=RUN, sweep=True)
    assert shape(merged)[1:] == [
        ("train", 2, "prepare", False),
        ("merge", 1, "train", True),
        ("table", 1, "merge", True),
    ]
