"""What HTCondor is told, read by its own parser, and the DAG."""

import re
from pathlib import Path

import pytest
from plans import plan

from jettagger.cluster import htcondor
from jettagger.errors import JettaggerError

REASON = "HTCondor's parser comes with `pip install htcondor`"
RUN = Path("/disk/$a/b c")


@pytest.fixture
def parser(monkeypatch):
    """HTCondor's bindings, without a configuration of a pool."""
    monkeypatch.setenv("CONDOR_CONFIG", "/dev/null")
    return pytest.importorskip("htcondor2", reason=REASON)


@pytest.mark.parametrize("name", ["prepare", "train", "merge", "evaluate"])
def test_its_own_parser_reads_the_descriptions(parser, name):
    jobs = plan(
        RUN,
        members=3,
        gpus=2,
        cpus=3,
        memory="4000M",
        htcondor={"flavour": "longlunch", "requirements": "OpSysMajorVer == 9", "lines": ['+Group = "x"']},
    )
    text = htcondor.scripts(jobs)[RUN / "jobs" / f"{name}.sub"]
    read = parser.Submit(text)
    read["task"] = "2"
    trains, several = name == "train", "_2" if name == "train" else ""
    assert read.expand("executable") == f"/disk/$a/b c/jobs/{name}.sh"
    assert read.expand("output") == f"/disk/$a/b c/logs/{name}{several}.out"
    assert read.expand("arguments").startswith("2 ")
    assert read["request_cpus"] == ("6" if trains else "3")
    assert read["request_memory"] == "4000MB"
    assert read.get("request_gpus") == ("2" if trains else None)
    assert read["MY.JobFlavour"] == '"longlunch"'
    assert read["MY.Group"] == '"x"'
    assert read["requirements"] == "OpSysMajorVer == 9"
    assert read["kill_sig"] == "SIGTERM"


def test_the_parser_refuses_what_is_no_description(parser):
    with pytest.raises(ValueError, match="parse"):
        parser.Submit("executable x\nqueue")


def test_an_interrupted_job_stays_in_the_queue_and_any_other_leaves_it(parser):
    classad = pytest.importorskip("classad2", reason=REASON)
    text = htcondor.scripts(plan(RUN))[RUN / "jobs" / "train.sub"]
    rule = classad.ExprTree(parser.Submit(text)["on_exit_remove"])

    def leaves(code, *, by_signal=False, starts=1):
        job = {
            "ExitBySignal": by_signal,
            "NumJobStarts": starts,
            "ExitSignal" if by_signal else "ExitCode": code,
        }
        return rule.eval(classad.ClassAd(job))

    assert [leaves(code) for code in (0, 1, 2, 137)] == [True] * 4
    assert leaves(75) is False
    assert leaves(15, by_signal=True) is False
    assert leaves(75, starts=100) is True


def nodes(text):
    return re.findall(r"^JOB (\S+) (\S+)$", text, re.M)


def test_the_dag():
    text = htcondor.dag(plan(RUN, members=2, folds=2, at_once=3))
    trained = [f"train_{n}" for n in range(4)]
    assert nodes(text) == [
        ("prepare", "prepare.sub"),
        *((name, "train.sub") for name in trained),
        ("merge", "merge.sub"),
        ("evaluate", "evaluate.sub"),
    ]
    assert re.findall(r"^PARENT (.*) CHILD (.*)$", text, re.M) == [
        ("prepare", " ".join(trained)),
        (" ".join(trained), "merge"),
        ("merge", "evaluate"),
    ]
    assert re.findall(r'^VARS (\S+) task="(\d)"$', text, re.M)[1:5] == [(n, n[-1]) for n in trained]
    # A member that fails does not stop the merge, which says so; a merge that fails stops the evaluation.
    assert re.findall(r"^SCRIPT POST (\S+) /bin/true$", text, re.M) == trained
    assert "\nMAXJOBS train 3\n" in text
    assert re.findall(r"^CATEGORY (\S+) train$", text, re.M) == trained


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"slurm": {"nodes": 2}}, "cluster.slurm.nodes: 2, but a job of HTCondor is on one machine"),
        ({"time": "8-00:00:00"}, "cluster.time: 8-00:00:00 is longer than the longest flavour, nextweek"),
    ],
)
def test_what_htcondor_cannot_do_is_refused(section, message):
    with pytest.raises(JettaggerError, match=message):
        htcondor.check(plan(RUN, **section))


def test_several_processes_are_started_by_torchrun():
    text = htcondor.scripts(plan(RUN, gpus=2))[RUN / "jobs" / "train.sh"]
    assert " -m torch.distributed.run --standalone --nproc-per-node=2 -m jettagger " in text
    assert "--signal=TERM " in text
    assert "-name interrupted.json -newer" in text
