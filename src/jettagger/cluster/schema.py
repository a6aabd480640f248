"""The section of the YAML that says what a job asks of a cluster. Nothing in it changes a result."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from jettagger.schema import Problem, Section, Words, refuse

Split = Literal["folds", "members"]
Flavour = Literal["espresso", "microcentury", "longlunch", "workday", "tomorrow", "testmatch", "nextweek"]

FLAVOURS: dict[str, int] = {
    "espresso": 20 * 60,
    "microcentury": 3600,
    "longlunch": 2 * 3600,
    "workday": 8 * 3600,
    "tomorrow": 24 * 3600,
    "testmatch": 3 * 24 * 3600,
    "nextweek": 7 * 24 * 3600,
}
"""Wall times of CERN's job flavours, in seconds."""

AtLeastOne = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


def _line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"{text!r} is not one line of text")
    return text


def _word(text: str) -> str:
    if re.search(r"[\s\"'\\]", _line(text)):
        raise ValueError(f"'{text}' holds spaces, quotes or backslashes")
    return text


Line = Annotated[str, AfterValidator(_line), Words("one line of text")]
Word = Annotated[str, AfterValidator(_word), Words("one word")]

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>[0-5]\d)(?::(?P<seconds>[0-5]\d))?")
_MEMORY = re.compile(r"(\d+)([MGT])B?")
_MEGABYTES = {"M": 1, "G": 1024, "T": 1024**2}


class SlurmSection(Section):
    """What only Slurm knows."""

    partition: Word | None = None
    """Where the jobs queue; default: the cluster's."""
    account: Word | None = None
    """Who is charged."""
    constraint: Line | None = None
    """Features that a node must have, such as `a100|h100`."""
    gpu_type: Word | None = None
    """Kind of the GPUs, as the cluster calls it."""
    nodes: AtLeastOne = 1
    """Machines that share each batch of one training."""
    lines: list[Line] = []
    """Further options of sbatch, such as `--qos=long`, one an entry."""

    @model_validator(mode="after")
    def _options(self) -> "SlurmSection":
        wrong = [(n, line) for n, line in enumerate(self.lines) if not line.startswith("-")]
        message = "is no option of sbatch: write it as --name=value, without #SBATCH"
        refuse([Problem(("lines", n), f"'{line}' {message}") for n, line in wrong])
        return self


class HTCondorSection(Section):
    """What only HTCondor knows."""

    flavour: Flavour | None = None
    """CERN's name for a wall time. Default: the shortest that holds `time`."""
    requirements: Line | None = None
    """Expression that a machine must fulfil."""
    lines: list[Line] = []
    """Further lines of the submit description, such as `+AccountingGroup = "group_u_ATLAS"`."""

    @model_validator(mode="after")
    def _assignments(self) -> "HTCondorSection":
        wrong = [(n, line) for n, line in enumerate(self.lines) if not re.match(r"[+\w][\w.]*\s*=", line)]
        refuse([Problem(("lines", n), f"'{line}' is not: name = value") for n, line in wrong])
        return self


class ClusterSection(Section):
    """What each job of `jettagger submit` asks for, and which parts of a training become jobs."""

    time: Line = "1-00:00:00"
    """Wall time of a job: `hours:minutes`, `hours:minutes:seconds` or `days-hours:minutes:seconds`. A training that
    needs longer is interrupted, queued again, and goes on."""
    memory: Line = "8G"
    """On each machine, such as `8G` or `4000M`."""
    cpus: AtLeastOne = 4
    """Processors for each process: threads of the training, workers that prepare data."""
    gpus: NotNegative = 0
    """On each machine."""
    processes: AtLeastOne | None = None
    """Processes on each machine that share the batches of a training. Default: one a GPU, or one."""
    jobs: list[Split] = ["folds", "members"]
    """What is trained in jobs of its own, beside a sweep's points, which always are."""
    at_once: AtLeastOne | None = None
    """Most trainings that run at the same time; default: as many as the cluster lets."""
    prepare: bool = True
    """A job before the trainings fills the prepared dataset, where several would begin with it."""
    evaluate: bool = True
    """A job after the trainings runs `jettagger evaluate`; a sweep is never evaluated."""
    setup: list[Line] = []
    """Lines of bash before each command, such as `source venv/bin/activate` or `module load cuda`."""
    python: Line | None = None
    """What starts Python, such as `apptainer exec --nv image.sif python`. Default: `python` where there is a
    `setup`, else the interpreter that submits."""
    warning: Annotated[int, Field(ge=10)] = 180
    """Seconds before the end of the wall time at which a training is told to save and stop."""
    restarts: NotNegative = 3
    """Restarts of a training that was killed (out of memory, kill -9). Wall time and preemption do not count."""
    slurm: SlurmSection = SlurmSection()
    """What only Slurm knows."""
    htcondor: HTCondorSection = HTCondorSection()
    """What only HTCondor knows."""

    @model_validator(mode="after")
    def _consistent(self) -> "ClusterSection":
        refuse([*_form_problems(self)] or [*_time_problems(self)])
        return self

    @property
    def seconds(self) -> int:
        """The wall time."""
        parts = _TIME.fullmatch(self.time)
        assert parts is not None
        days, hours, minutes, seconds = (
            int(parts[name] or 0) for name in ("days", "hours", "minutes", "seconds")
        )
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds

    @property
    def megabytes(self) -> int:
        """The memory on each machine."""
        parts = _MEMORY.fullmatch(self.memory)
        assert parts is not None
        return int(parts[1]) * _MEGABYTES[parts[2]]

    @property
    def per_machine(self) -> int:
        """Processes of one training on each machine."""
        return self.processes or max(self.gpus, 1)

    @property
    def flavour(self) -> str:
        """The flavour that is asked for, or the shortest that holds the wall time."""
        holding = (name for name, seconds in FLAVOURS.items() if seconds >= self.seconds)
        return self.htcondor.flavour or next(holding, "nextweek")


def _form_problems(section: ClusterSection) -> list[Problem]:
    problems = []
    if not _TIME.fullmatch(section.time) or not section.seconds:
        message = f"'{section.time}' is no wall time: write 08:00:00, or 2-12:00:00 for two days and a half"
        problems.append(Problem(("time",), message))
    if not _MEMORY.fullmatch(section.memory) or not section.megabytes:
        problems.append(Problem(("memory",), f"'{section.memory}' is no memory: write 8G or 4000M"))
    if len(set(section.jobs)) < len(section.jobs):
        problems.append(Problem(("jobs",), f"an entry stands twice: {', '.join(section.jobs)}"))
    return problems


def _time_problems(section: ClusterSection) -> list[Problem]:
    problems = []
    if section.warning >= section.seconds:
        message = f"{section.warning} s is no less than the wall time, {section.seconds} s"
        problems.append(Problem(("warning",), message))
    flavour = section.htcondor.flavour
    if flavour is not None and "time" in section.model_fields_set and FLAVOURS[flavour] < section.seconds:
        message = f"'{flavour}' ends after {FLAVOURS[flavour]} s, before cluster.time ({section.seconds} s)"
        problems.append(Problem(("htcondor", "flavour"), message))
    if flavour is not None and FLAVOURS[flavour] <= section.warning:
        message = f"'{flavour}' ends after {FLAVOURS[flavour]} s, before cluster.warning"
        problems.append(Problem(("htcondor", "flavour"), message))
    if section.processes is not None and section.gpus and section.processes > section.gpus:
        message = f"{section.processes} processes cannot share {section.gpus} GPUs: at most one a GPU"
        problems.append(Problem(("processes",), message))
    return problems
